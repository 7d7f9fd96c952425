"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import HealthCheck, settings

from tests.fixtures.checkpoints import make_checkpoints

# Threads that spin while they wait are quick alone, and very slow where others share the cores, as tests do.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# How quick a case is says more of the machine than of the code. (In CI, where the parent is another, so is the seed.)
settings.register_profile("here", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")
# The same of httpx, which gives a server five seconds.
for part in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, part, 60.0)

pytest_plugins = [
    "tests.fixtures.database",
    "tests.fixtures.hub",
    "tests.fixtures.postgres",
    "tests.fixtures.redis",
    "tests.fixtures.residency",
    "tests.fixtures.server",
]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Seeded tiny checkpoints by id, made once a run."""
    return make_checkpoints(tmp_path_factory.mktemp("checkpoints"))

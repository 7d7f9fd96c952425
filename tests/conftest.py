"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

from tests.fixtures.checkpoints import make_checkpoints

# Threads that spin while they wait are quick alone, and very slow where others share the cores, as tests do.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

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

"""Fixtures that every test may use."""

from pathlib import Path

import pytest

from tests.fixtures.checkpoints import make_checkpoints

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

"""One stack for all of these tests: each leaves it as it found it, and counts with a tenant of its own."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.processes import DoesNotRun
from deploy.stack import Stack
from tests.fixtures.residency import write_catalogue


def stack_of(folder: Path, checkpoints: dict[str, Path], *, replica_count: int = 2) -> Stack:
    """A stack that serves the seeded checkpoints, not yet started. Skips (in CI: fails) without the programs."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "TOLLGATE_REGISTRY__CATALOGUE": str(write_catalogue(folder, checkpoints, load="start")),
        "TOLLGATE_API__DRAIN_DELAY_S": "0.5", "OMP_WAIT_POLICY": "passive",
    }  # fmt: skip
    try:
        return Stack(folder, replica_count=replica_count, settings=settings, has_prometheus=False)
    except DoesNotRun as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(f"NOT TESTED: {error}")


@pytest.fixture(scope="session")
def stack(checkpoints: dict[str, Path]) -> Iterator[Stack]:
    folder = Path(tempfile.mkdtemp(prefix="tollgate-stack-"))  # where PostgreSQL's own account may go, unlike pytest's
    made = stack_of(folder, checkpoints)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)

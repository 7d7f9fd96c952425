"""The live server, one for all tests with real clients."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wire.live import Live, live_server


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Live]:
    """The whole application on a socket, every seeded checkpoint loaded. Take a key of your own (`key`)."""
    with live_server(tmp_path_factory.mktemp("live"), checkpoints) as running:
        yield running


@pytest.fixture
def key(live: Live) -> str:
    """A fresh customer's key."""
    return live.new_key()

"""A database of its own for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.clock import SystemClock
from app.metering.database import Database
from app.metering.keys import NewKey, Pepper, create_key


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(home=tmp_path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def key(database: Database, tmp_path: Path) -> NewKey:
    pepper = Pepper(tmp_path)
    return await database.run(
        lambda connection: create_key(connection, clock=SystemClock(), pepper=pepper, tenant_name="acme", name="first")
    )

"""A newer release's migration runs under the traffic of this one, and a replica of this one is started again on it."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from app.metering.transactions import bring_forward, revision
from deploy.stack import Stack
from tests.fixtures.next_release import NEXT, next_release, take_back
from tests.stack.test_replicas import CUSTOMERS, customers

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]


@pytest.fixture
def engine(stack: Stack, tmp_path: Path) -> Iterator[Engine]:
    """The stack's database, whose schema is this release's again afterwards."""
    made = create_engine(stack.database_url.replace("postgresql:", "postgresql+psycopg:"))
    yield made
    with made.begin() as connection:
        take_back(connection, tmp_path)
    made.dispose()


@pytest.mark.parametrize("count", CUSTOMERS)
async def test_the_next_release_migrates_under_traffic_and_no_request_fails(
    stack: Stack, engine: Engine, tmp_path: Path, count: int
) -> None:
    async with customers(stack, count) as (crowd, _):
        began_s = time.monotonic()
        await asyncio.to_thread(bring_forward, engine, next_release(tmp_path))
        took_s = time.monotonic() - began_s
        for replica in stack.replicas:
            assert await asyncio.to_thread(replica.end) == 0
            await asyncio.to_thread(replica.start)
        with engine.connect() as connection:
            assert revision(connection) == NEXT
    print(f"migrated in {took_s:.2f} s")
    assert not crowd.failed, crowd.told()
    assert len(crowd.done) > count

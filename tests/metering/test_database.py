"""Transactions that share a commit: each whole by itself, one's failure never another's."""

import asyncio

import pytest
from sqlalchemy import Connection, func, select

from app.errors import NotFound
from app.metering.database import Database
from app.metering.tables import key_change


async def test_a_failing_transaction_leaves_its_company_whole(database: Database) -> None:
    def work(number: int):
        def run(connection: Connection) -> int:
            connection.execute(key_change.insert().values(key_id=f"k{number}", at_us=number))
            if number % 3 == 0:
                raise NotFound(f"no {number}")
            return number

        return run

    found = await asyncio.gather(*(database.run(work(number)) for number in range(90)), return_exceptions=True)
    assert [one for one in found if isinstance(one, int)] == [number for number in range(90) if number % 3]
    assert sum(isinstance(one, NotFound) for one in found) == 30
    kept = await database.run(lambda c: c.execute(select(key_change.c.at_us)).scalars().all())
    assert sorted(kept) == [number for number in range(90) if number % 3]


async def test_many_waiting_transactions_share_commits(database: Database) -> None:
    def write(number: int):
        return lambda c: c.execute(key_change.insert().values(key_id=f"k{number}", at_us=number))

    await asyncio.gather(*(database.run(write(number)) for number in range(300)))
    assert await database.run(lambda c: c.scalar(select(func.count()).select_from(key_change))) == 300
    assert database.commits_count < 100


async def test_a_commit_is_synced_when_one_in_its_company_asks_for_it(database: Database) -> None:
    def level(c: Connection) -> int:
        return c.exec_driver_sql("PRAGMA synchronous").scalar_one()

    full, normal = 2, 1
    assert await database.run(level) == full
    assert await database.run(level, is_synced=False) == normal
    together = await asyncio.gather(*(database.run(level, is_synced=number == 40) for number in range(60)))
    assert together[40] == full
    assert await database.run(level) == full


async def test_a_closed_database_says_so(database: Database) -> None:
    await database.close()
    with pytest.raises(Exception, match="closed"):
        await database.run(lambda c: c.execute(select(key_change)))

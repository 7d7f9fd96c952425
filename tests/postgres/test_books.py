"""The ledger on PostgreSQL: the same tables, two replicas on one budget, the server away and back, copies."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select

from app.clock import SystemClock
from app.errors import Conflict, InsufficientQuota, SettingsError, StorageUnavailable
from app.metering.books import Books
from app.metering.budgets import add_money, list_budgets, set_monthly
from app.metering.copying import copy_database
from app.metering.database import Database, microseconds
from app.metering.idempotency import claim, finish
from app.metering.keys import NewKey, Pepper, create_key
from app.metering.ledger import Admission, Outcome, Usage, extend_hold, list_entries, open_hold, settle
from app.metering.tables import hold, metadata
from app.metering.verify import drifts
from tests.cli.test_keys import tollgate
from tests.fixtures.postgres import Postgres

CLOCK = SystemClock()
PRICES = {"input_token": 1000, "output_token": 2000}


@pytest.fixture
async def replicas(postgres: Postgres, tmp_path: Path) -> AsyncIterator[list[Database]]:
    """Two replicas' databases, which are one."""
    url = postgres.fresh()
    made = [Database(home=tmp_path / name, url=url) for name in ("a", "b")]
    await asyncio.gather(*(one.open() for one in made))
    yield made
    for one in made:
        await one.close()


@pytest.fixture
async def shared_key(replicas: list[Database], tmp_path: Path) -> NewKey:
    pepper = Pepper(tmp_path)
    return await replicas[0].run(lambda c: create_key(c, clock=CLOCK, pepper=pepper, tenant_name="acme", name="first"))


def admission(
    key: NewKey, name: str, *, is_free: bool = False, held: int | None = None, at_us: int | None = None
) -> Admission:
    return Admission(
        request_id=name, tenant_id=key.record.tenant_id, key_id=key.record.id, model="m", task="t", route="/v1/x",
        prices=PRICES, input_tokens=10, output_tokens_max=20,
        admitted_us=microseconds(CLOCK.now()) if at_us is None else at_us, is_free=is_free, output_tokens_held=held,
    )  # fmt: skip


def is_no_partition(thing: Any, name: str | None, kind: str, is_reflected: bool, other: Any) -> bool:
    """The tables of months are made as time goes by, and PostgreSQL keeps a foreign key to each."""
    if kind == "foreign_key_constraint":
        return thing.elements[0].target_fullname.rpartition(".")[0] in metadata.tables
    return kind != "table" or name in metadata.tables


async def test_the_migrations_make_the_same_tables(replicas: list[Database]) -> None:
    opts = {"include_object": is_no_partition}
    found = await replicas[1].run(lambda c: compare_metadata(MigrationContext.configure(c, opts=opts), metadata))
    assert found == []


async def test_two_replicas_and_64_at_once_never_overspend_one_budget(
    replicas: list[Database], shared_key: NewKey
) -> None:
    await replicas[0].run(lambda c: add_money(c, clock=CLOCK, tenant_name="acme", amount_nano=505))
    await replicas[0].run(lambda c: set_monthly(c, clock=CLOCK, tenant_name="acme", limit_nano=10**9, key="first"))
    is_over = False
    looked = 0

    async def watch() -> None:
        nonlocal looked
        while not is_over:
            for state in await replicas[1].run(lambda c: list_budgets(c, clock=CLOCK)):
                assert state.spent_nano + state.held_nano <= state.limit_nano
            looked += 1

    async def serve(number: int) -> int:
        database = replicas[number % 2]
        asked = admission(shared_key, f"r{number:02}", held=5)
        try:
            opened = await database.run(lambda c: open_hold(c, asked))
        except InsufficientQuota:
            return 0
        covered = await database.run(lambda c: extend_hold(c, opened, held_tokens=5, wanted_tokens=20))
        usage = Usage(input_tokens=10, output_tokens=covered)
        receipts = await asyncio.gather(
            *(one.run(lambda c: settle(c, opened, Outcome.FINISHED, usage, at_us=2)) for one in (*replicas, database))
        )
        assert len({receipt.cost_nano for receipt in receipts}) == 1
        return receipts[0].cost_nano

    watcher = asyncio.create_task(watch())
    costs = await asyncio.gather(*(serve(number) for number in range(64)))
    is_over = True
    await watcher
    states = await replicas[0].run(lambda c: list_budgets(c, clock=CLOCK))
    assert {(state.spent_nano, state.held_nano) for state in states} == {(sum(costs), 0)}
    assert 505 - 20 < sum(costs) <= 505
    assert looked > 0
    assert await replicas[0].run(lambda c: list(drifts(c))) == []


async def test_a_key_is_claimed_once_on_both_replicas(replicas: list[Database], shared_key: NewKey) -> None:
    async def ask(number: int) -> bool:
        found = await replicas[number % 2].run(
            lambda c: claim(
                c, tenant_id="t", key="k", fingerprint="f", request_id=f"r{number}", replica_id="a", at_us=1
            )
        )
        return found.is_mine

    mine = await asyncio.gather(*(ask(number) for number in range(32)))
    assert mine.count(True) == 1
    winner = f"r{mine.index(True)}"
    await replicas[0].run(lambda c: finish(c, request_id=winner, tenant_id="t", key="k"))
    found = await replicas[1].run(
        lambda c: claim(c, tenant_id="t", key="k", fingerprint="f", request_id="late", replica_id="b", at_us=2)
    )
    assert (found.is_done, found.request_id) == (True, winner)


async def test_the_server_away_and_back_loses_and_doubles_nothing(
    replicas: list[Database], shared_key: NewKey, postgres: Postgres, tmp_path: Path
) -> None:
    books = Books(database=replicas[0], home=tmp_path / "a", clock=CLOCK, replica_id="a")
    await books.start()
    free = [admission(shared_key, f"r{number}", is_free=True) for number in range(40)]
    opened = [await books.open(one) for one in free[:20]]
    await asyncio.to_thread(postgres.stop)
    try:
        opened += [await books.open(one) for one in free[20:]]
        for one in opened:
            await books.settle(one, Outcome.FINISHED, Usage(input_tokens=1))
        with pytest.raises(StorageUnavailable):
            await books.drain()
    finally:
        await asyncio.to_thread(postgres.start)
    assert books.spooled
    await books.drain()
    await books.drain()
    books.close()
    entries = await replicas[1].run(list_entries)
    assert sorted(one["request_id"] for one in entries) == sorted(one.request_id for one in free)
    assert await replicas[1].run(lambda c: c.scalar(select(func.count()).select_from(hold))) == 0
    assert await replicas[1].run(lambda c: list(drifts(c))) == []


async def test_a_copy_from_sqlite_keeps_every_entry_and_goes_on(
    replicas: list[Database], database: Database, key: NewKey, tmp_path: Path
) -> None:
    await database.run(lambda c: add_money(c, clock=CLOCK, tenant_name="acme", amount_nano=10_000))
    for number in range(30):
        asked = admission(key, f"r{number:02}")
        opened = await database.run(lambda c, asked=asked: open_hold(c, asked))
        usage = Usage(input_tokens=number % 10, output_tokens=number % 7)
        await database.run(lambda c, o=opened, u=usage: settle(c, o, Outcome.FINISHED, u, at_us=o.admitted_us))
    copied: dict[str, int] = {}
    await copy_database(database, replicas[0], say=copied.__setitem__)
    assert copied["usage_entry"] == 30
    assert await replicas[0].run(list_entries) == await database.run(list_entries)
    states = [await one.run(lambda c: list_budgets(c, clock=CLOCK)) for one in (database, replicas[0])]
    assert states[0] == states[1]
    assert await replicas[0].run(lambda c: list(drifts(c))) == []
    with pytest.raises(Conflict, match="not empty"):
        await copy_database(database, replicas[0], say=copied.__setitem__)
    pepper = Pepper(tmp_path)
    await replicas[0].run(lambda c: create_key(c, clock=CLOCK, pepper=pepper, tenant_name="acme", name="second"))


async def test_the_command_copies(postgres: Postgres, tmp_path: Path) -> None:
    tollgate(tmp_path, "keys", "create", "--tenant", "acme", "--name", "web")
    url = postgres.fresh()
    done = tollgate(tmp_path, "db", "copy", "--to", url)
    assert "rows copied" in done.stdout, done.stderr
    listed = tollgate(tmp_path, "keys", "list", "--json", TOLLGATE_METERING__DATABASE_URL=url)
    assert [one["name"] for one in json.loads(listed.stdout)] == ["web"]


@pytest.mark.parametrize("url", ["mysql://a@b/c", "not a url", "postgresql+asyncpg://a@b/c"])
async def test_a_url_that_is_none_is_refused_in_words(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match=r"metering\.database_url"):
        await Database(home=tmp_path, url=url).open()

"""The ledger in months: each entry in its own, unique over all, moved there, made ahead, and taken away in the end."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, func, select, text

from app.clock import SystemClock
from app.errors import InvalidRequest
from app.metering.acts import Operator
from app.metering.budgets import add_money, list_budgets, set_monthly
from app.metering.copying import copy_database
from app.metering.database import Database, microseconds
from app.metering.keys import NewKey, Pepper, create_key
from app.metering.ledger import Outcome, Usage, list_entries, open_hold, settle
from app.metering.partitions import first_id, list_partitions, make_months, month_before
from app.metering.pruning import prune
from app.metering.tables import metadata, usage_entry
from app.metering.transactions import MIGRATIONS
from app.metering.verify import drifts
from tests.cli.test_keys import tollgate
from tests.fixtures.clock import TurnedClock
from tests.fixtures.postgres import Postgres
from tests.postgres.test_books import admission, replicas, shared_key

__all__ = ["replicas", "shared_key"]
CLOCK = SystemClock()
NOW = CLOCK.now()


async def sell(database: Database, key: NewKey, *, months: int, each: int = 3) -> list[str]:
    """Some requests in each of the last months, the last of each settled in the next one; returns their ids."""
    ids: list[str] = []
    for back in reversed(range(months)):
        first = month_before(NOW, back)
        for number in range(each):
            request_id = f"{first_id(first)}{back:010x}{number:010x}"
            ids.append(request_id)
            at = first if number + 1 < each else month_before(first, -1) - timedelta(hours=-1 if back else 1)
            opened = await database.run(
                lambda c, name=request_id, at=at: open_hold(c, admission(key, name, at_us=microseconds(at)))
            )
            used = Usage(input_tokens=10, output_tokens=number)
            await database.run(
                lambda c, o=opened, u=used, at=at: settle(c, o, Outcome.FINISHED, u, at_us=microseconds(at))
            )
    return ids


async def months_of_rows(database: Database) -> dict[str, int]:
    chosen = select(text("tableoid::regclass::text AS part"), func.count()).select_from(usage_entry)
    return {row[0]: row[1] for row in await database.run(lambda c: c.execute(chosen.group_by(text("part"))).all())}


@pytest.fixture
async def paying(replicas: list[Database], shared_key: NewKey) -> NewKey:
    await replicas[0].run(lambda c: add_money(c, clock=CLOCK, tenant_name="acme", amount_nano=10_000))
    await replicas[0].run(lambda c: set_monthly(c, clock=CLOCK, tenant_name="acme", limit_nano=10_000))
    return shared_key


async def test_months_are_made_ahead_and_an_entry_is_unique_over_all_of_them(
    replicas: list[Database], paying: NewKey
) -> None:
    found = {one.month for one in await replicas[0].run(list_partitions)}
    ahead = {f"{month_before(NOW, -count):%Y-%m}" for count in range(3)}
    assert found == ahead | {"rest"}
    later = month_before(NOW, -5)
    made = await replicas[0].run(lambda c: make_months(c, now=later))
    assert len(made) == 2 * 3
    assert await replicas[1].run(lambda c: make_months(c, now=later)) == []
    [name] = await sell(replicas[0], paying, months=1, each=1)
    again = admission(paying, name, at_us=1)
    for at in (later, month_before(NOW, 7)):
        used = Usage(input_tokens=999)
        at_us = microseconds(at)
        receipt = await replicas[1].run(lambda c, u=used, t=at_us: settle(c, again, Outcome.FAILED, u, at_us=t))
        assert receipt.input_tokens == 10
    assert await months_of_rows(replicas[0]) == {f"usage_entry_{NOW:%Y_%m}": 1}
    assert await replicas[0].run(lambda c: list(drifts(c))) == []


async def test_what_has_no_month_lies_in_the_rest_and_its_month_is_left_there(
    replicas: list[Database], paying: NewKey
) -> None:
    await sell(replicas[0], paying, months=3)
    parts = await months_of_rows(replicas[0])
    assert parts == {f"usage_entry_{NOW:%Y_%m}": 3, "usage_entry_rest": 6}
    made = await replicas[0].run(lambda c: make_months(c, now=NOW, first=month_before(NOW, 4)))
    assert [one[-7:] for one in made] == [f"{month_before(NOW, back):%Y_%m}" for back in (4, 4, 3, 3)]
    assert await replicas[0].run(lambda c: list(drifts(c))) == []


async def test_old_months_leave_and_the_books_still_balance(
    replicas: list[Database], paying: NewKey, tmp_path: Path
) -> None:
    database = replicas[0]
    await database.run(lambda c: make_months(c, now=NOW, first=month_before(NOW, 5)))
    await sell(database, paying, months=7)
    before = [await database.run(lambda c: list_budgets(c, clock=CLOCK)), await database.run(day_sums)]
    operator = Operator(actor="test", clock=CLOCK, pepper=Pepper(tmp_path))
    with pytest.raises(InvalidRequest, match="at least"):
        await database.run(lambda c: prune(c, operator, keep_months=1, is_dropped=False))
    done = await database.run(lambda c: prune(c, operator, keep_months=3, is_dropped=False))
    assert (done["entries"], len(done["tables"])) == (9, 4), "two months have tables, one lies in the rest"
    assert len(await database.run(list_entries)) == 12
    assert await database.run(lambda c: list(drifts(c))) == []
    assert [await database.run(lambda c: list_budgets(c, clock=CLOCK)), await database.run(day_sums)] == before
    archived = text(f"SELECT count(*) FROM usage_entry_{month_before(NOW, 5):%Y_%m}")
    assert await database.run(lambda c: c.scalar(archived)) == 3
    again = await database.run(lambda c: prune(c, operator, keep_months=3, is_dropped=True))
    assert (again["entries"], again["tables"]) == (0, [])
    await database.run(lambda c: c.execute(text("UPDATE usage_pruned SET cost_nano = cost_nano + 1")) and None)
    assert await database.run(lambda c: list(drifts(c))) != []
    with pytest.raises(InvalidRequest, match="do not balance"):
        await database.run(lambda c: prune(c, operator, keep_months=3, is_dropped=True))


def day_sums(connection: object) -> list[tuple[object, ...]]:
    chosen = text("SELECT day_us, requests, cost_nano FROM usage_day ORDER BY day_us")
    return [tuple(row) for row in connection.execute(chosen)]  # type: ignore[attr-defined]


async def test_sqlite_deletes_old_months_and_keeps_their_sums(database: Database, key: NewKey, tmp_path: Path) -> None:
    await database.run(lambda c: add_money(c, clock=CLOCK, tenant_name="acme", amount_nano=10_000))
    await sell(database, key, months=6)
    operator = Operator(actor="test", clock=CLOCK, pepper=Pepper(tmp_path))
    with pytest.raises(InvalidRequest, match="SQLite"):
        await database.run(lambda c: prune(c, operator, keep_months=3, is_dropped=False))
    done = await database.run(lambda c: prune(c, operator, keep_months=3, is_dropped=True))
    assert done["entries"] == 6
    assert len(await database.run(list_entries)) == 12
    assert await database.run(lambda c: list(drifts(c))) == []


async def test_a_copy_makes_the_months_that_it_needs(replicas: list[Database], database: Database, key: NewKey) -> None:
    await database.run(lambda c: add_money(c, clock=CLOCK, tenant_name="acme", amount_nano=10_000))
    ids = await sell(database, key, months=4)
    await copy_database(database, replicas[0], say=lambda name, rows: None)
    parts = await months_of_rows(replicas[0])
    assert parts == {f"usage_entry_{month_before(NOW, back):%Y_%m}": 3 for back in range(4)}
    assert sorted(one["request_id"] for one in await replicas[0].run(list_entries)) == sorted(ids)
    assert await replicas[0].run(lambda c: list(drifts(c))) == []


async def test_a_ledger_from_before_is_moved_into_months(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.fresh()
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    old = metadata.tables["usage_entry"]
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0006")
        pepper = Pepper(tmp_path)
        key = create_key(connection, clock=CLOCK, pepper=pepper, tenant_name="acme", name="first")
        columns = {"model": "m", "task": "t", "route": "x", "outcome": "finished", "prices": {}, "currency": "USD"}
        counts = dict.fromkeys(("input_tokens", "cached_tokens", "output_tokens", "characters", "duration_ms"), 0)
        for back in range(3):
            for number in range(2):
                month = month_before(NOW, back)
                name = f"{first_id(month)}{number:020x}" if back else f"odd{number}"
                whose = {"tenant_id": key.record.tenant_id, "key_id": key.record.id, "replica_id": "local"}
                row = columns | counts | whose | {"id": name, "occurred_us": microseconds(month), "cost_nano": 0}
                connection.execute(old.insert().values(**row))
    engine.dispose()
    database = Database(home=tmp_path, url=url)
    await database.open()
    parts = await months_of_rows(database)
    await database.close()
    wanted = {f"usage_entry_{month_before(NOW, back):%Y_%m}": 2 for back in (1, 2)}
    assert parts == wanted | {"usage_entry_rest": 2}


async def test_the_commands_list_and_prune(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.fresh()
    listed = tollgate(tmp_path, "db", "partitions", "--json", TOLLGATE_METERING__DATABASE_URL=url)
    found = {(one["table"], one["month"]) for one in json.loads(listed.stdout)}
    assert {("usage_entry", f"{NOW:%Y-%m}"), ("budget_charge", "rest")} <= found
    done = tollgate(tmp_path, "db", "prune", "--keep-months", "12", TOLLGATE_METERING__DATABASE_URL=url)
    assert "0 entries from before" in done.stdout, done.stderr


def test_months_are_those_of_utc_whatever_the_border() -> None:
    clock = TurnedClock()
    assert month_before(clock.now(), 0) == datetime(2026, 11, 1, tzinfo=UTC)
    assert month_before(clock.now() - timedelta(microseconds=1), 0) == datetime(2026, 10, 1, tzinfo=UTC)
    assert month_before(clock.now(), 11) == datetime(2025, 12, 1, tzinfo=UTC)
    assert month_before(clock.now(), -2) == datetime(2027, 1, 1, tzinfo=UTC)
    east = datetime.fromisoformat("2026-12-01T00:30:00+02:00").astimezone(UTC)
    assert month_before(east, 0) == datetime(2026, 11, 1, tzinfo=UTC)

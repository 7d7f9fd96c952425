"""A newer release migrates the database under replicas of an older one: it may add, and take nothing away.

The rule (docs/recovery.md): a migration leaves every table and column that there was, and whoever knows nothing of what
it adds can go on writing.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from app.clock import SystemClock
from app.errors import StorageUnavailable
from app.metering import transactions
from app.metering.database import Database, microseconds
from app.metering.keys import NewKey, Pepper, create_key
from app.metering.ledger import Admission, Outcome, Usage, list_entries, open_priced_hold, settle
from app.metering.transactions import migrate
from app.metering.verify import drifts
from tests.cli.test_serve import command
from tests.fixtures.next_release import REVISIONS, bring, next_release
from tests.fixtures.postgres import Postgres

CLOCK = SystemClock()
Columns = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str | None]:
    """Home and URL of a database in which nothing is."""
    if request.param == "sqlite":
        return tmp_path, None
    postgres: Postgres = request.getfixturevalue("postgres")
    return tmp_path, postgres.fresh()


@pytest.fixture
def engine(place: tuple[Path, str | None]) -> Iterator[Engine]:
    """The same, for whoever migrates it by hand."""
    home, url = place
    driver = f"sqlite:///{home / 'tollgate.db'}" if url is None else url.replace("postgresql:", "postgresql+psycopg:")
    made = create_engine(driver)
    yield made
    made.dispose()


def admission(key: NewKey, name: str) -> Admission:
    return Admission(
        request_id=f"req_{name}", tenant_id=key.record.tenant_id, key_id=key.record.id, model="m", task="t",
        route="/v1/x", input_tokens=3, output_tokens_max=20, is_free=True,
    )  # fmt: skip


async def sell(database: Database, key: NewKey, name: str) -> None:
    """A request from hold to entry."""
    asked = admission(key, name)
    await database.run(lambda c: open_priced_hold(c, asked, clock=CLOCK))
    used, at_us = Usage(input_tokens=3, output_tokens=5), microseconds(CLOCK.now())
    await database.run(lambda c: settle(c, asked, Outcome.FINISHED, used, at_us=at_us))


async def first_key(database: Database, home: Path) -> NewKey:
    return await database.run(
        lambda c: create_key(c, clock=CLOCK, pepper=Pepper(home), tenant_name="acme", name="first")
    )


def columns(connection: Connection) -> tuple[Columns, set[tuple[str, str]]]:
    """Every column with its kind, and every unique constraint."""
    found: Columns = {}
    unique: set[tuple[str, str]] = set()
    inspector = inspect(connection)
    for table in inspector.get_table_names():
        if "_rest" in table or table.endswith(tuple("0123456789")) or table == "alembic_version":
            continue  # the parts of a partitioned table
        for column in inspector.get_columns(table):
            found[table, column["name"]] = column | {"type": str(column["type"]).partition(" COLLATE")[0]}
        unique |= {(table, column) for one in inspector.get_unique_constraints(table) for column in one["column_names"]}
    return found, unique


@pytest.mark.parametrize("after", REVISIONS[1:])
def test_a_migration_leaves_an_older_replica_all_that_it_writes(engine: Engine, after: str) -> None:
    with engine.begin() as connection:
        bring(connection, REVISIONS[REVISIONS.index(after) - 1])
    with engine.begin() as connection:
        old, old_unique = columns(connection)
        bring(connection, after)
    with engine.begin() as connection:
        new, new_unique = columns(connection)
    for place, column in old.items():
        assert place in new, f"{place} is gone"
        assert (new[place]["type"], new[place]["nullable"]) == (column["type"], column["nullable"]), place
    tables = {table for table, _ in old}
    for place in new.keys() - old.keys():
        is_filled = new[place]["nullable"] or new[place]["default"] is not None
        assert place[0] not in tables or is_filled, f"an older replica does not fill {place}"
    assert not {place for place in new_unique - old_unique if place in old}, "an older replica may write it twice"


async def test_a_release_runs_on_the_schema_of_the_next_one_and_can_be_started_on_it(
    place: tuple[Path, str | None], engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home, url = place
    running, started = [Database(home=home, url=url) for _ in range(2)]
    await running.open()
    key = await first_key(running, home)
    await sell(running, key, "before")
    with engine.begin() as connection:
        migrate(connection, next_release(tmp_path))
    await sell(running, key, "beside")
    await started.open()
    assert "newer release" in caplog.text
    await sell(started, key, "after")
    entries, found = await started.run(lambda c: (list_entries(c), list(drifts(c))))
    assert [entry["request_id"] for entry in entries] == ["req_after", "req_before", "req_beside"]
    assert found == []
    for database in (running, started):
        await database.close()


async def test_a_start_brings_an_older_schema_forward_with_what_is_in_it(
    place: tuple[Path, str | None], engine: Engine
) -> None:
    with engine.begin() as connection:
        bring(connection, REVISIONS[0])
        connection.execute(text("INSERT INTO tenant (id, name, weight, created_us) VALUES ('t', 'acme', 1.0, 0)"))
    home, url = place
    database = Database(home=home, url=url)
    await database.open()
    key = await first_key(database, home)
    assert key.record.tenant_id == "t"
    await sell(database, key, "first")
    await database.close()


def test_the_command_brings_a_schema_forward(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'tollgate.db'}")
    with engine.begin() as connection:
        bring(connection, REVISIONS[0])
    engine.dispose()
    told = command(os.environ | {"TOLLGATE_HOME": str(tmp_path)}, "db", "upgrade", "--json")
    assert json.loads(told) == {"revision": REVISIONS[-1]}


async def test_a_migration_that_would_have_to_wait_stands_in_nobodys_way(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup reads for an hour: whoever waits for its locks would make every customer wait behind."""
    monkeypatch.setattr(transactions, "LOCK_TIMEOUT_MS", 200)
    monkeypatch.setattr(transactions, "MIGRATION_PAUSE_S", 0.05)
    url = postgres.fresh()
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        bring(connection, REVISIONS[0])
    newer = Database(home=tmp_path, url=url)
    with engine.connect() as backup:
        backup.execute(text("SELECT * FROM hold"))
        with pytest.raises(StorageUnavailable, match="lock timeout"):
            await newer.open()
        with engine.begin() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == REVISIONS[0]
    await newer.open()
    await newer.close()
    engine.dispose()

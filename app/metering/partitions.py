"""PostgreSQL's monthly partitions of the entries and of their charges to budgets; SQLite has none.

Partitioned by the entry's id, which begins with the time of its request: the primary key is then unique over all
months, and repeating a settlement stays harmless. A row whose month has no partition lies in the partition `…_rest`.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, func, select, text

from app.clock import Clock
from app.metering.database import Database
from app.metering.tables import usage_entry

PARTITIONED = {"usage_entry": "id", "budget_charge": "request_id"}
"""Tables by the column that holds the request's id, in the order in which a row needs another."""
AHEAD = 2
"""Months that are made before they begin."""
REST = "rest"
EVERY_S = 3600.0
PREFIX = "req_"
LOCK_TIMEOUT_S = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One table of a month, or of the rest."""

    table: str
    month: str
    rows: int
    bytes_size: int


def month_before(moment: datetime, months: int) -> datetime:
    """The first moment, in UTC, of the month that lies `months` before that of `moment`; below 0 after it."""
    number = moment.year * 12 + moment.month - 1 - months
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)


def first_id(month: datetime) -> str:
    """Every request of a month, and none before it, has this id or a greater one."""
    return f"{PREFIX}{int(month.timestamp() * 1000):012x}"


def month_of_id(request_id: str) -> datetime | None:
    """The month of a request; None for an id that was not made by new_id."""
    try:
        return month_before(datetime.fromtimestamp(int(request_id[len(PREFIX) :][:12], 16) / 1000, UTC), 0)
    except (ValueError, OverflowError, OSError):
        return None


def months_until(first: datetime, last: datetime) -> Iterator[datetime]:
    """Every month from `first` to `last`, both included."""
    while first <= last:
        yield first
        first = month_before(first, -1)


def is_partitioned(connection: Connection) -> bool:
    """Whether this database has months at all."""
    return connection.dialect.name == "postgresql"


def make_months(connection: Connection, *, now: datetime, first: datetime | None = None) -> list[str]:
    """Make the missing months from `first` (default: this one) on, and some ahead; returns the tables that were made.

    A month is left to the rest if some of it lies there already.
    """
    if not is_partitioned(connection):
        return []
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'"))
    made: list[str] = []
    for month in months_until(month_before(first or now, 0), month_before(now, -AHEAD)):
        low, high = first_id(month), first_id(month_before(month, -1))
        for table, column in PARTITIONED.items():
            name = f"{table}_{month:%Y_%m}"
            is_there = connection.scalar(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": name})
            in_rest = text(f"SELECT 1 FROM {table}_{REST} WHERE {column} >= :low AND {column} < :high LIMIT 1")  # nosec B608
            if is_there or connection.scalar(in_rest, {"low": low, "high": high}):
                continue
            connection.execute(
                text(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{low}') TO ('{high}')")
            )
            made.append(name)
    return made


def make_months_of_entries(connection: Connection, *, lowest_id: str | None, now: datetime) -> list[str]:
    """Make every month from that of an entry on."""
    return make_months(connection, now=now, first=None if lowest_id is None else month_of_id(lowest_id))


def lowest_entry_id(connection: Connection) -> str | None:
    """The oldest request that has an entry."""
    return connection.scalar(select(func.min(usage_entry.c.id)).where(usage_entry.c.id >= PREFIX))


def list_partitions(connection: Connection) -> list[Partition]:
    """Every partition, the rest last, with about how many rows it has. None on SQLite."""
    if not is_partitioned(connection):
        return []
    rows = connection.execute(
        text(
            "SELECT parent.relname AS name, child.relname AS part, GREATEST(child.reltuples, 0)::bigint AS rows, "
            "pg_total_relation_size(child.oid) AS bytes FROM pg_inherits "
            "JOIN pg_class parent ON parent.oid = inhparent JOIN pg_class child ON child.oid = inhrelid "
            "WHERE parent.relname = ANY(:tables) AND parent.relkind = 'p' ORDER BY parent.relname, child.relname"
        ),
        {"tables": list(PARTITIONED)},
    )
    return [
        Partition(
            table=row.name, month=row.part.removeprefix(f"{row.name}_").replace("_", "-"), rows=row.rows,
            bytes_size=row.bytes,
        )
        for row in rows
    ]  # fmt: skip


async def keep_months(database: Database, clock: Clock) -> None:
    """Make months ahead for ever; the task group of main.py owns this. Raises StorageUnavailable."""
    while database.is_shared:
        await database.run(lambda connection: make_months(connection, now=clock.now()))
        await asyncio.sleep(EVERY_S)
    await asyncio.Event().wait()

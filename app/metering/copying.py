"""Every row of one database into another, empty one: SQLite to PostgreSQL, or back."""

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Connection, Table, func, select, text

from app.errors import Conflict
from app.metering.database import Database
from app.metering.partitions import lowest_entry_id, make_months_of_entries
from app.metering.tables import metadata

ROWS = 1000


async def copy_database(source: Database, target: Database, *, say: Callable[[str, int], None]) -> int:
    """Copy table by table, in an order that foreign keys allow; returns how many rows there were.

    Stop the servers first. Raises Conflict, and copies nothing, when the target has rows: nothing is ever overwritten.
    """
    for table in metadata.sorted_tables:
        if await target.run(lambda c, table=table: count_of(c, table)):
            raise Conflict(f"the target is not empty: its table {table.name} has rows; copy into a fresh database")
    lowest_id = await source.run(lowest_entry_id)
    await target.run(lambda c: make_months_of_entries(c, lowest_id=lowest_id, now=datetime.now(UTC)))
    total = 0
    for table in metadata.sorted_tables:
        rows = await source.run(lambda c, table=table: [dict(row) for row in c.execute(select(table)).mappings()])
        for first in range(0, len(rows), ROWS):
            some = rows[first : first + ROWS]
            await target.run(lambda c, table=table, some=some: c.execute(table.insert(), some) and None)
        await target.run(lambda c, table=table: continue_numbers(c, table))
        say(table.name, len(rows))
        total += len(rows)
    return total


def count_of(connection: Connection, table: Table) -> int:
    """How many rows a table has."""
    return connection.scalar(select(func.count()).select_from(table)) or 0


def continue_numbers(connection: Connection, table: Table) -> None:
    """Let PostgreSQL count on after the numbers that were copied."""
    column = table.autoincrement_column
    if connection.dialect.name != "postgresql" or column is None or count_of(connection, table) == 0:
        return
    sequence = connection.scalar(text("SELECT pg_get_serial_sequence(:t, :c)"), {"t": table.name, "c": column.name})
    if sequence is not None:
        newest = connection.scalar(select(func.max(column)))
        connection.execute(text("SELECT setval(:s, :n)"), {"s": sequence, "n": newest})

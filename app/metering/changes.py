"""How one process tells the others that a key or a tenant changed: a numbered row that each of them looks for."""

from sqlalchemy import Connection, text

from app.clock import Clock
from app.metering.database import microseconds
from app.metering.tables import key_change

LOCK = 0x7011_6A7E
"""Names the lock under which PostgreSQL numbers rows in the order of their commits."""


def one_at_a_time(connection: Connection) -> None:
    """Until the end of the transaction, no other one numbers rows: a reader never misses a smaller number.

    SQLite's transactions are alone from their begin.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})


def note_change(connection: Connection, *, clock: Clock, changed_id: str) -> None:
    """A key, or all keys of a tenant, are not what they were."""
    one_at_a_time(connection)
    connection.execute(key_change.insert().values(key_id=changed_id, at_us=microseconds(clock.now())))

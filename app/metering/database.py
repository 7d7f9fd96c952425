"""The one way to the database: short transactions, each run whole on a thread that owns its connection."""

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

from app.clock import Clock
from app.errors import StorageUnavailable
from app.metering.transactions import PostgresThreads, SqliteWriter

T = TypeVar("T")
Work = Callable[[Connection], T]
"""What runs in a transaction."""
DATABASE_NAME = "tollgate.db"


def new_id(prefix: str, clock: Clock) -> str:
    """A unique id that sorts by time: prefix, milliseconds since 1970 and 80 random bits (as UUIDv7 does)."""
    return id_at(prefix, microseconds(clock.now()))


def id_at(prefix: str, at_us: int) -> str:
    """The same, of a moment."""
    return f"{prefix}_{at_us // 1000:012x}{uuid.uuid4().hex[:20]}"


def microseconds(moment: datetime) -> int:
    """A moment as the tables hold it."""
    return int(moment.timestamp() * 1_000_000)


def moment_of(value_us: int) -> datetime:
    """The moment that a table holds, in UTC."""
    return datetime.fromtimestamp(value_us / 1_000_000, UTC)


def upsert(connection: Connection, table: Table) -> Any:
    """An insert that knows ON CONFLICT, in the words of the connection's database: both dialects' have one shape."""
    return (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(table)


class Database:
    """SQLite in the data folder, or PostgreSQL at a URL; the same tables, migrations and statements on both.

    A command may open the database beside a running server: transactions are short and wait for one another.
    """

    def __init__(self, *, home: Path, url: str | None = None, connections: int = 8) -> None:
        self.path = home / DATABASE_NAME
        self.is_shared = url is not None
        """Whether other replicas may be using it too."""
        self._threads = (
            SqliteWriter(path=self.path) if url is None else PostgresThreads(url=url, connections=connections)
        )

    @property
    def commits_count(self) -> int:
        """Commits so far; fewer than transactions when they shared some."""
        return self._threads.commits_count

    async def open(self) -> None:
        """Create the folder and bring the schema to the newest migration. Raises StorageUnavailable."""
        await asyncio.to_thread(self._threads.open)

    async def close(self) -> None:
        """Finish what was asked for and let go of the database. Idempotent."""
        await asyncio.to_thread(self._threads.close)

    async def run(self, work: Callable[[Connection], T], *, is_synced: bool = True) -> T:
        """Run `work` in one transaction: committed when this returns, rolled back when `work` raises.

        Without `is_synced` a power failure of the file's machine may take it; a killed process loses nothing.
        `work` may be run again after a failure that rolled it back, so it does nothing but use its connection. A caller
        that is cancelled meanwhile does not cut the transaction short. Raises StorageUnavailable when the database
        cannot be reached or stays locked.
        """
        return await asyncio.shield(asyncio.wrap_future(self._threads.submit(work, is_synced=is_synced)))

    async def run_within(self, work: Callable[[Connection], T], timeout_s: float) -> T:
        """As `run`, for so long; raises StorageUnavailable then, and what was asked for may happen yet."""
        asking = asyncio.ensure_future(self.run(work))
        asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait((asking,), timeout=timeout_s)
        if not asking.done():
            raise StorageUnavailable
        return await asking

    async def flush_log(self) -> None:
        """Empty SQLite's write-ahead log into the file, so that what was erased is nowhere; readers may prevent it."""
        await asyncio.shield(asyncio.wrap_future(self._threads.flush_log()))

"""The one way to the database: short transactions, each run whole on one dedicated thread."""

import asyncio
import sqlite3
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError

from app.clock import Clock
from app.errors import StorageUnavailable

T = TypeVar("T")
Work = Callable[[Connection], T]
"""What runs in a transaction."""
MIGRATIONS = Path(__file__).parent / "migrations"
DATABASE_NAME = "tollgate.db"
BUSY_TIMEOUT_MS = 10_000


def new_id(prefix: str, clock: Clock) -> str:
    """A unique id that sorts by time: prefix, milliseconds since 1970 and 80 random bits (as UUIDv7 does)."""
    milliseconds = int(clock.now().timestamp() * 1000)
    return f"{prefix}_{milliseconds:012x}{uuid.uuid4().hex[:20]}"


def microseconds(moment: datetime) -> int:
    """A moment as the tables hold it."""
    return int(moment.timestamp() * 1_000_000)


def moment_of(value_us: int) -> datetime:
    """The moment that a table holds, in UTC."""
    return datetime.fromtimestamp(value_us / 1_000_000, UTC)


class Database:
    """SQLite in the data folder: write-ahead log, every commit synced, one writer thread in this process.

    A command may open the file beside a running server: transactions are short and wait for one another.
    """

    def __init__(self, *, home: Path) -> None:
        self.path = home / DATABASE_NAME
        self._engine: Engine | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tollgate-database")

    async def open(self) -> None:
        """Create the folder and bring the schema to the newest migration. Raises StorageUnavailable."""
        await self._in_thread(self._open)

    async def close(self) -> None:
        """Finish what was asked for and let go of the file. Idempotent."""
        if self._engine is not None:
            await self._in_thread(self._engine.dispose)
            self._engine = None
        self._thread.shutdown()

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction: committed when it returns, rolled back when it raises.

        A caller that is cancelled meanwhile does not cut the transaction short. Raises StorageUnavailable when the
        database cannot be reached or stays locked.
        """
        return await asyncio.shield(asyncio.ensure_future(self._in_thread(lambda: self._transact(work))))

    async def flush_log(self) -> None:
        """Empty SQLite's write-ahead log into the file, so that what was erased is nowhere; readers may prevent it."""
        await self._in_thread(self._flush_log)

    def _flush_log(self) -> None:
        if self._engine is None:
            raise StorageUnavailable("the database is closed")
        connection = self._engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            engine = create_engine(f"sqlite:///{self.path}")
            event.listen(engine, "connect", configure)
            event.listen(engine, "begin", begin_immediately)
            with engine.begin() as connection:
                config = Config()
                config.set_main_option("script_location", str(MIGRATIONS))
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except (DatabaseError, OSError) as cause:
            reason = cause.orig if isinstance(cause, DatabaseError) else cause
            raise StorageUnavailable(f"the database {self.path} cannot be opened: {reason}") from cause
        self._engine = engine

    def _transact(self, work: Callable[[Connection], T]) -> T:
        if self._engine is None:
            raise StorageUnavailable("the database is closed")
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except OperationalError as cause:
            raise StorageUnavailable from cause

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def configure(connection: sqlite3.Connection, _: object) -> None:
    """SQLite's settings, once a connection."""
    connection.isolation_level = None
    pragmas = (
        "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
    )  # fmt: skip
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")


def begin_immediately(connection: Connection) -> None:
    """Take the write lock at the start, so that no transaction fails half-way because another wrote."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")

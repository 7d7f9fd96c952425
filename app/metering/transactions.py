"""Threads that run transactions: one writer that commits in groups (SQLite), or a few with a connection each."""

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, NoSuchModuleError, OperationalError

from app.errors import SettingsError, StorageUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")
MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_TIMEOUT_MS = 10_000
GROUP_MAX = 64
"""Transactions that share one commit, and its wait for the disk."""
CONNECT_TIMEOUT_S = 2
STATEMENT_TIMEOUT_MS = 10_000
ATTEMPTS = 5
SYNCED, UNSYNCED = "PRAGMA synchronous=FULL", "PRAGMA synchronous=NORMAL"
CHECKPOINT = "PRAGMA wal_checkpoint(TRUNCATE)"
MIGRATION_LOCK = 7_061_001
LOCK_TIMEOUT_MS = 2000
LOCK_NOT_AVAILABLE = "55P03"
MIGRATION_PAUSE_S = 0.5
SERIALISATION_FAILURES = ("40001", "40P01")


def own_release() -> Config:
    """Alembic's settings for the migrations of this release."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def migrate(connection: Connection, release: Config | None = None) -> None:
    """Bring the schema to the newest migration of a release, one process at a time.

    A schema of a newer release is left as it is: migrations only add. On PostgreSQL a migration takes the time it
    takes, but gives up where it would have to wait for somebody's lock, since everybody else would wait behind it.
    """
    config = release or own_release()
    config.attributes["connection"] = connection
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    at = revision(connection)
    known = {one.revision for one in ScriptDirectory.from_config(config).walk_revisions()}
    if at is not None and at not in known:
        log.warning("the database has the schema of a newer release (%s); this one runs on it as it is", at)
        return
    command.upgrade(config, "head")


def bring_forward(engine: Engine, release: Config | None = None) -> None:
    """Migrate; where somebody's locks stand in the way, let go of the own ones, and try again.

    Raises OperationalError when they always do.
    """
    for attempt in range(ATTEMPTS):
        try:
            with engine.begin() as connection:
                migrate(connection, release)
            return
        except OperationalError as cause:
            state = getattr(cause.orig, "sqlstate", None)
            if state not in (LOCK_NOT_AVAILABLE, *SERIALISATION_FAILURES) or attempt == ATTEMPTS - 1:
                raise
            log.warning("the migration stands back from a lock that others hold, and is tried again")
            time.sleep(MIGRATION_PAUSE_S)


def revision(connection: Connection) -> str | None:
    """The last migration that the schema has."""
    return MigrationContext.configure(connection).get_current_revision()


@dataclass(frozen=True, slots=True)
class Job:
    """A transaction to run."""

    work: Callable[[Connection], Any]
    done: "Future[Any]"
    is_synced: bool
    """Whether it is on the disk, and not only in the file, before `done` is."""


def empty_log(_: Connection) -> None:
    """Stands for work that no transaction may hold: the writer knows it by its identity."""


class SqliteWriter:
    """One thread, one connection, write-ahead log; what waits meanwhile shares the next commit and its sync.

    A commit is synced unless none of its transactions asks for it. Those survive `kill -9` like any other, and are on
    the disk with the next synced commit at the latest.
    """

    def __init__(self, *, path: Path) -> None:
        self._path = path
        self._engine: Engine | None = None
        self._was_synced: bool = True
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.commits_count = 0

    def open(self) -> None:
        """See Database.open."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            engine = create_engine(f"sqlite:///{self._path}")
            event.listen(engine, "connect", configure)
            event.listen(engine, "begin", begin_immediately)
            with engine.begin() as connection:
                migrate(connection)
        except (DatabaseError, OSError) as cause:
            reason = cause.orig if isinstance(cause, DatabaseError) else cause
            raise StorageUnavailable(f"the database {self._path} cannot be opened: {reason}") from cause
        engine.dispose()
        self._engine = engine
        self._thread = threading.Thread(target=self._run, name="tollgate-database", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """See Database.close."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def submit(self, work: Callable[[Connection], T], *, is_synced: bool = True) -> "Future[T]":
        """Queue `work`; its future is done when its group is committed."""
        done: Future[T] = Future()
        if self._thread is None:
            done.set_exception(StorageUnavailable("the database is closed"))
        else:
            self._jobs.put(Job(work, done, is_synced))
        return done

    def flush_log(self) -> "Future[None]":
        """See Database.flush_log."""
        return self.submit(empty_log)

    def _run(self) -> None:
        assert self._engine is not None, "a writer is opened before it runs. This is a bug."
        is_open = True
        while is_open:
            group: list[Job] = []
            flushing: Future[Any] | None = None
            while len(group) < GROUP_MAX:
                try:
                    job = self._jobs.get(block=not group)
                except queue.Empty:
                    break
                if job is None:
                    is_open = False
                    break
                if not job.done.set_running_or_notify_cancel():
                    continue
                if job.work is empty_log:
                    flushing = job.done
                    break
                group.append(job)
            if group:
                self._commit(group)
            if flushing is not None:
                self._flush(flushing)
        self._engine.dispose()

    def _flush(self, done: "Future[Any]") -> None:
        assert self._engine is not None
        try:
            connection = self._engine.raw_connection()
            try:
                connection.cursor().execute(CHECKPOINT)
            finally:
                connection.close()
        except BaseException as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    def _commit(self, group: list[Job]) -> None:
        if len(group) == 1 or not self._commit_together(group):
            for job in group:
                self._commit_alone(job)

    @contextmanager
    def _transaction(self, *, is_synced: bool) -> Generator[Connection]:
        """A transaction on this thread's one connection."""
        assert self._engine is not None
        with self._engine.connect() as connection:
            if is_synced != self._was_synced:
                connection.connection.cursor().execute(SYNCED if is_synced else UNSYNCED)
                self._was_synced = is_synced
            with connection.begin():
                yield connection
        self.commits_count += 1

    def _commit_together(self, group: list[Job]) -> bool:
        """One transaction for all, a savepoint each. False: the database failed, nothing of it happened."""
        answers: list[tuple[Any, BaseException | None]] = []
        try:
            with self._transaction(is_synced=any(job.is_synced for job in group)) as connection:
                execute = connection.connection.cursor().execute
                for job in group:
                    execute("SAVEPOINT work")
                    try:
                        answers.append((job.work(connection), None))
                    except OperationalError:
                        raise
                    except BaseException as error:
                        execute("ROLLBACK TO work")
                        answers.append((None, error))
                    execute("RELEASE work")
        except OperationalError:
            return False
        for job, (found, error) in zip(group, answers, strict=True):
            if error is None:
                job.done.set_result(found)
            else:
                job.done.set_exception(error)
        return True

    def _commit_alone(self, job: Job) -> None:
        try:
            with self._transaction(is_synced=job.is_synced) as connection:
                found = job.work(connection)
        except OperationalError as cause:
            job.done.set_exception(unavailable(cause))
        except BaseException as error:
            job.done.set_exception(error)
        else:
            job.done.set_result(found)


class PostgresThreads:
    """A pool of connections, a thread for each; a transaction that lost a race for rows is run again."""

    def __init__(self, *, url: str, connections: int) -> None:
        self._url = url
        self._connections = connections
        self._engine: Engine | None = None
        self.commits_count = 0
        self._threads = ThreadPoolExecutor(max_workers=connections, thread_name_prefix="tollgate-database")

    def open(self) -> None:
        """See Database.open. Raises SettingsError for a URL that is none, or without the extra `postgres`."""
        try:
            url = make_url(self._url)
            if url.drivername in ("postgres", "postgresql"):
                url = url.set(drivername="postgresql+psycopg")
            if url.drivername != "postgresql+psycopg":
                raise SettingsError("metering.database_url must begin with postgresql://")
            options = f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC"
            # Said, because a database that was made without a locale would else send bytes.
            arguments = {"connect_timeout": CONNECT_TIMEOUT_S, "options": options, "client_encoding": "utf8"}
            engine = create_engine(
                url, pool_size=self._connections, max_overflow=0, pool_pre_ping=True, connect_args=arguments
            )
            try:
                bring_forward(engine)
            except DatabaseError:
                engine.dispose()
                raise
        except (ImportError, NoSuchModuleError) as cause:
            raise SettingsError("PostgreSQL needs psycopg: pip install 'tollgate[postgres]'") from cause
        except ArgumentError as cause:
            raise SettingsError("metering.database_url is no URL: postgresql://user:password@host/database") from cause
        except DatabaseError as cause:
            raise StorageUnavailable(f"the database cannot be opened: {' '.join(str(cause.orig).split())}") from cause
        self._engine = engine

    def close(self) -> None:
        """See Database.close."""
        self._threads.shutdown()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def submit(self, work: Callable[[Connection], T], *, is_synced: bool = True) -> "Future[T]":
        """Run `work` on a free thread. Always synced: other machines' spending relies on what was answered."""
        if self._engine is None:
            done: Future[T] = Future()
            done.set_exception(StorageUnavailable("the database is closed"))
            return done
        return self._threads.submit(self._transact, work)

    def flush_log(self) -> "Future[None]":
        """PostgreSQL looks after its own log."""
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _transact(self, work: Callable[[Connection], T]) -> T:
        assert self._engine is not None, "it is closed after its threads. This is a bug."
        for attempt in range(ATTEMPTS):
            try:
                with self._engine.begin() as connection:
                    found = work(connection)
                self.commits_count += 1
                return found
            except DBAPIError as cause:
                if getattr(cause.orig, "sqlstate", None) in SERIALISATION_FAILURES and attempt < ATTEMPTS - 1:
                    continue
                if isinstance(cause, OperationalError) or cause.connection_invalidated:
                    raise unavailable(cause) from cause
                raise
        raise AssertionError("the last attempt returns or raises. This is a bug.")


def unavailable(cause: Exception) -> StorageUnavailable:
    """The database's failure, in our words."""
    error = StorageUnavailable()
    error.__cause__ = cause
    return error


def configure(connection: sqlite3.Connection, _: object) -> None:
    """SQLite's settings, once a connection."""
    connection.isolation_level = None
    pragmas = (
        "journal_mode=WAL", "foreign_keys=ON", "secure_delete=ON",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
    )  # fmt: skip
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(SYNCED)


def begin_immediately(connection: Connection) -> None:
    """Take the write lock at the start, so that no transaction fails half-way because another wrote."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")

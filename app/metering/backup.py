"""A copy of the SQLite ledger while it is written to, and back. PostgreSQL has its own tools: pg_dump, pg_restore."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from app.errors import Conflict, NotFound, SettingsError
from app.metering.database import DATABASE_NAME

PAGES_AT_ONCE = 2000
"""Between two parts others may write; SQLite starts anew where they did."""


def back_up(home: Path, target: Path) -> int:
    """Copy the database to `target`, as it is at one moment; returns its entries. The server may run."""
    source = home / DATABASE_NAME
    if not source.is_file():
        raise NotFound(f"there is no database {source}; with PostgreSQL use pg_dump")
    if target.exists():
        raise Conflict(f"{target} exists; name a new file")
    unfinished = target.with_name(target.name + ".unfinished")
    with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(unfinished)) as copy:
        live.backup(copy, pages=PAGES_AT_ONCE)
        copy.execute("PRAGMA journal_mode = DELETE")
        entries = entries_of(copy)
    settle_on_disk(unfinished, target)
    return entries


def restore(source: Path, home: Path, *, is_replacing: bool) -> int:
    """Put a backup in place; returns its entries. The server must not run. Raises Conflict unless `is_replacing`."""
    if not source.is_file():
        raise NotFound(f"there is no file {source}")
    target = home / DATABASE_NAME
    if target.exists() and not is_replacing:
        raise Conflict(f"{target} exists; --replace puts it aside as {target.name}.replaced")
    home.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(target.name + ".unfinished")
    try:
        with closing(sqlite3.connect(source)) as kept, closing(sqlite3.connect(unfinished)) as copy:
            kept.backup(copy)
            entries = entries_of(copy)
    except (sqlite3.DatabaseError, ValueError) as cause:
        unfinished.unlink(missing_ok=True)
        raise SettingsError(f"{source} is no sound ledger of Tollgate's: {cause}") from cause
    if target.exists():
        with closing(sqlite3.connect(target)) as old:
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        target.replace(target.with_name(target.name + ".replaced"))
    for name in ("-wal", "-shm"):
        target.with_name(target.name + name).unlink(missing_ok=True)
    settle_on_disk(unfinished, target)
    return entries


def entries_of(copy: sqlite3.Connection) -> int:
    """How many entries a sound copy has. Raises ValueError for one that is damaged."""
    (found,) = copy.execute("PRAGMA integrity_check").fetchone()
    if found != "ok":
        raise ValueError(found)
    (entries,) = copy.execute("SELECT count(*) FROM usage_entry").fetchone()
    return entries


def settle_on_disk(written: Path, target: Path) -> None:
    """Give a finished file its name: whoever sees that name sees all of it, also after a power cut."""
    for path in (written, written.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    written.replace(target)

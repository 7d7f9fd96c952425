"""Which replica this is, when several share a database: a name made once, kept in its data folder."""

import os
import secrets
from pathlib import Path

REPLICA_NAME = "replica"
WORKERS_NAME = "workers"
JOURNAL_NAME = "journal"
LOCAL = "local"
"""The only one of its database."""


def replica_id(home: Path) -> str:
    """The name of the replica whose data folder this is; made when there is none."""
    path = home / REPLICA_NAME
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    with os.fdopen(descriptor, "w") as file:
        file.write("replica_" + secrets.token_hex(8))
    return path.read_text(encoding="ascii").strip()


def name_of(home: Path, *, is_shared: bool, worker: int | None = None) -> str:
    """What a process is called in the ledger; no two that run at once share it. Workers are `<replica>.<number>`."""
    replica = replica_id(home) if is_shared else LOCAL
    return replica if worker is None else f"{replica}.{worker}"


def journal_folder(home: Path, worker: int | None = None) -> Path:
    """Where a process keeps its journal and its spool."""
    return home if worker is None else home / WORKERS_NAME / str(worker)


def workers_of(home: Path) -> list[int]:
    """The workers that have ever kept a journal here."""
    return sorted(int(path.name) for path in (home / WORKERS_NAME).glob("*") if path.name.isdigit())


def is_folder_of(folder: Path, replica: str, *, is_shared: bool) -> bool:
    """Whether the journal of `replica` lies in `folder` on a disk of this machine: another's may have the same path."""
    base, _, worker = replica.partition(".")
    home = folder.parent.parent if worker else folder
    if not (folder / JOURNAL_NAME).exists():
        return False
    if not is_shared:
        return base == LOCAL
    path = home / REPLICA_NAME
    return path.exists() and path.read_text(encoding="ascii").strip() == base

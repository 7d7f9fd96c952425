"""Entries that wait on this machine's disk while the database is away: appended, synced, shipped later by id, once."""

import dataclasses
import json
import os
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path

from app.errors import StorageUnavailable
from app.metering.journal import admission_from, admission_json
from app.metering.ledger import Admission, Outcome, Usage

SPOOL_NAME = "spool"
SHIPPING_NAME = "spool.shipping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """All that an entry is made of."""

    admission: Admission
    outcome: Outcome
    usage: Usage
    at_us: int


class Spool:
    """Two files: one that grows, and one that is being shipped. A line is a checksum and a JSON object."""

    def __init__(self, *, home: Path) -> None:
        self._path = home / SPOOL_NAME
        self._shipping = home / SHIPPING_NAME
        self._lock = threading.Lock()

    def append(self, settlement: Settlement) -> None:
        """Write and sync. Raises StorageUnavailable when this disk fails too: then nothing was promised."""
        told = dataclasses.asdict(settlement) | {"admission": admission_json(settlement.admission)}
        text = json.dumps(told, separators=(",", ":")).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        try:
            with self._lock:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                is_new = not self._path.exists()
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                try:
                    size = os.fstat(descriptor).st_size
                    if os.write(descriptor, line) != len(line):
                        os.ftruncate(descriptor, size)
                        raise OSError("the disk is full")
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                if is_new:
                    sync_folder(self._path.parent)
        except OSError as cause:
            raise StorageUnavailable(f"neither the database nor the spool can be written: {cause}") from cause

    def waiting(self) -> list[Settlement]:
        """What is to be shipped, oldest first. A torn last line was never promised to anybody and is left out."""
        with self._lock:
            if not self._shipping.exists() and self._path.exists():
                self._path.rename(self._shipping)
                sync_folder(self._path.parent)
            if not self._shipping.exists():
                return []
            lines = self._shipping.read_bytes().splitlines()
        return [settlement for line in lines if (settlement := parsed(line)) is not None]

    def shipped(self) -> None:
        """What `waiting` gave is in the database."""
        with self._lock:
            self._shipping.unlink(missing_ok=True)
            sync_folder(self._path.parent)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._path.exists() and not self._shipping.exists()


def parsed(line: bytes) -> Settlement | None:
    """A line's settlement; None when its checksum does not fit."""
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    found = json.loads(text)
    return Settlement(
        admission=admission_from(found["admission"]), outcome=Outcome(found["outcome"]),
        usage=Usage(**found["usage"]), at_us=found["at_us"],
    )  # fmt: skip


def sync_folder(folder: Path) -> None:
    """Make a file's name as durable as its content."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

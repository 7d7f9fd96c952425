"""A file of events, an object a line: appended and synced under a lock, so that several processes may share it."""

import fcntl
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from app.metering.spool import sync_folder


class EventsFile:
    """The file at `path`, and older ones beside it: `events-20261124T113000000000.jsonl`. We never delete them."""

    def __init__(self, *, path: Path, bytes_max: int) -> None:
        self._path = path
        self._bytes_max = bytes_max

    def append(self, lines: Sequence[bytes], now: datetime) -> None:
        """Write and sync. Raises OSError, and then perhaps leaves half a line, which the next call takes away."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._rotate(now)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.lseek(file, mend(file), os.SEEK_SET)
                rest = memoryview(b"".join(line + b"\n" for line in lines))
                while rest:
                    rest = rest[os.write(file, rest) :]
                os.fsync(file)
            finally:
                os.close(file)
            sync_folder(self._path.parent)
        finally:
            os.close(lock)

    def _rotate(self, now: datetime) -> None:
        if self._path.exists() and self._path.stat().st_size >= self._bytes_max:
            moment = now.strftime("%Y%m%dT%H%M%S%f")
            self._path.rename(self._path.with_name(f"{self._path.stem}-{moment}{self._path.suffix}"))


def mend(file: int) -> int:
    """Cut half a line off the end, which a crash may have left; returns the size."""
    size = os.fstat(file).st_size
    whole = size
    while whole:
        first = max(0, whole - 4096)
        newline = os.pread(file, whole - first, first).rfind(b"\n")
        if newline >= 0:
            whole = first + newline + 1
            break
        whole = first
    if whole != size:
        os.ftruncate(file, whole)
    return whole

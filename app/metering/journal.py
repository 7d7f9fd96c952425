"""What running requests have delivered, noted in mapped memory before each piece leaves: kill -9 does not lose it.

A slot a request, in one file of the data folder. The file belongs to one process, which holds its lock; the operating
system keeps what was written when the process dies. For a power failure, a slot is synced as soon as it is opened, and
a sync four times a second bounds what may be lost of what was noted since.
"""

import asyncio
import dataclasses
import fcntl
import json
import mmap
import os
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from app.blocks import allocate
from app.errors import EngineOverloaded, SettingsError, StorageUnavailable
from app.metering.ledger import Admission, Usage
from app.metering.replica import JOURNAL_NAME

SYNC_S = 0.25
"""Each sync takes a core from an engine whose threads wait for each other, and no death of a process needs one."""
SLOT_BYTES = 4096
SLOTS = 4096
WORDS = SLOT_BYTES // 8
HEAD = struct.Struct("<II")
TEXT_AT = 64
STATE, INPUT, OUTPUT, CHARACTERS = range(4)
"""The words of a slot that hold its counters; each is one aligned store, never half a number."""
FREE, OPEN = 0, 1
FIELDS = tuple(field.name for field in dataclasses.fields(Admission))


class Journal:
    """Open, note, close, for each request; `leftovers` after a crash."""

    def __init__(self, *, home: Path) -> None:
        self._path = home / JOURNAL_NAME
        self._file = -1
        self._map: mmap.mmap | None = None
        self._words = memoryview(b"").cast("Q")
        self._free: list[int] = []
        self._slot_of: dict[str, int] = {}
        self._is_changed = False
        self._is_opened = threading.Event()

    def open(self) -> list[tuple[Admission, Usage]]:
        """Take the file; returns the requests that ran when the last process died. Their slots stay until `close_slot`.

        Raises SettingsError when another process has it, StorageUnavailable when the disk has no room for it.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as cause:
            os.close(self._file)
            raise SettingsError(
                f"another server uses the data folder {self._path.parent}; give each its own TOLLGATE_HOME"
            ) from cause
        try:
            allocate(self._file, SLOTS * SLOT_BYTES)
        except OSError as cause:
            os.close(self._file)
            raise StorageUnavailable(
                f"the journal {self._path} needs {SLOTS * SLOT_BYTES // 2**20} MiB: {cause.strerror}"
            ) from cause
        self._map = mmap.mmap(self._file, SLOTS * SLOT_BYTES)
        self._words = memoryview(self._map).cast("Q")
        found: list[tuple[Admission, Usage]] = []
        for slot in range(SLOTS):
            admission = self._read(slot)
            if admission is None:
                self._words[slot * WORDS + STATE] = FREE
                self._free.append(slot)
            else:
                self._slot_of[admission.request_id] = slot
                found.append((admission, self._usage(slot)))
        self._free.reverse()
        return found

    def open_slot(self, admission: Admission) -> None:
        """Make a request known. Raises EngineOverloaded when every slot is taken."""
        if not self._free:
            raise EngineOverloaded(f"{SLOTS} requests are running; try again shortly.")
        assert self._map is not None
        text = json.dumps(admission_json(admission), separators=(",", ":")).encode()
        assert len(text) <= SLOT_BYTES - TEXT_AT, "names are bounded in length. This is a bug."
        slot = self._free.pop()
        start = slot * SLOT_BYTES
        self._map[start + TEXT_AT : start + TEXT_AT + len(text)] = text
        HEAD.pack_into(self._map, start + TEXT_AT - HEAD.size, len(text), zlib.crc32(text))
        for word in (INPUT, OUTPUT, CHARACTERS):
            self._words[slot * WORDS + word] = 0
        self._words[slot * WORDS + STATE] = OPEN
        self._slot_of[admission.request_id] = slot
        self._is_changed = True
        self._is_opened.set()

    def note(self, request_id: str, usage: Usage) -> None:
        """Before a piece leaves: what the customer will have with it. Costs less than a microsecond."""
        slot = self._slot_of.get(request_id)
        if slot is not None:
            first = slot * WORDS
            self._words[first + INPUT] = usage.input_tokens
            self._words[first + CHARACTERS] = usage.characters
            self._words[first + OUTPUT] = usage.output_tokens
            self._is_changed = True

    def close_slot(self, request_id: str) -> None:
        """The request's entry is on disk elsewhere. Idempotent."""
        slot = self._slot_of.pop(request_id, None)
        if slot is not None:
            self._words[slot * WORDS + STATE] = FREE
            self._free.append(slot)
            self._is_changed = True

    async def run(self) -> None:
        """Sync for ever, on a thread of its own: the event loop has tokens to pass. main.py's task group owns this."""
        is_over = threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="tollgate-journal") as own:
            syncing = asyncio.get_running_loop().run_in_executor(own, self._sync_until, is_over)
            try:
                await asyncio.shield(syncing)
            finally:
                is_over.set()
                self._is_opened.set()
                await asyncio.gather(syncing, return_exceptions=True)

    def _sync_until(self, is_over: threading.Event) -> None:
        while not is_over.is_set():
            self._is_opened.wait(SYNC_S)
            self._is_opened.clear()
            if self._is_changed and self._map is not None:
                self._is_changed = False
                self._sync()

    def _sync(self) -> None:
        """What msync does on Linux, without the interpreter's lock, which mmap.flush keeps for so long."""
        if hasattr(os, "fdatasync"):
            os.fdatasync(self._file)
        elif self._map is not None:
            self._map.flush()

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if self._map is not None:
            self._words.release()
            self._map.flush()
            self._map.close()
            self._map = None
            os.close(self._file)

    def _usage(self, slot: int) -> Usage:
        words = self._words[slot * WORDS : slot * WORDS + 4]
        return Usage(input_tokens=words[INPUT], output_tokens=words[OUTPUT], characters=words[CHARACTERS])

    def _read(self, slot: int) -> Admission | None:
        assert self._map is not None
        if self._words[slot * WORDS + STATE] != OPEN:
            return None
        start = slot * SLOT_BYTES + TEXT_AT
        length, checksum = HEAD.unpack_from(self._map, start - HEAD.size)
        text = bytes(self._map[start : start + min(length, SLOT_BYTES - TEXT_AT)])
        if zlib.crc32(text) != checksum:
            return None
        return admission_from(json.loads(text))


def admission_json(admission: Admission) -> dict[str, Any]:
    """An admission as JSON holds it. What is not set stays away, so that an older release reads it."""
    values = ((name, getattr(admission, name)) for name in FIELDS)
    return {name: value for name, value in values if value is not None}


def admission_from(found: dict[str, Any]) -> Admission:
    """An admission out of its JSON."""
    windows = tuple((str(budget_id), int(window_us)) for budget_id, window_us in found.pop("windows"))
    key_hash, fingerprint = found.pop("once", None) or ("", "")
    return Admission(**found, windows=windows, once=(key_hash, fingerprint) if key_hash else None)

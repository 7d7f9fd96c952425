"""The same buckets in memory that the worker processes of one machine share: a limit is one limit for all of them.

A file that the workers map; one decision holds its lock for some microseconds. The kernel lets go of the lock of a
process that dies, and a worker that starts clears what its predecessor had running.
"""

import fcntl
import hashlib
import mmap
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.admission.buckets import Ask, Bucket, Limit, LocalBuckets, Refusal, What
from app.blocks import allocate
from app.clock import Clock

SLOTS = 65_536
PROBES = 16
HEAD_WORDS = 8
FIRST, SECOND, LEVEL, AT, RUNNING = range(5)
"""The words of a slot: who it is (two), what is left, when that was true, and a count of running requests a worker."""
CLEARED_EVERY_S = 5.0


def make_file(path: Path, *, workers: int) -> None:
    """A file for so many workers; it belongs in a folder that goes when they do, for it is worth nothing afterwards.

    Raises OSError when there is no room.
    """
    with path.open("xb") as file:
        allocate(file.fileno(), 8 * (HEAD_WORDS + SLOTS * (RUNNING + workers)))


@dataclass(slots=True)
class MappedBucket(Bucket):
    """A bucket that is read from a slot and written back when its decision is made."""

    start: int = 0


class MappedBuckets(LocalBuckets):
    """See the module. `worker` counts from 1."""

    def __init__(
        self, *, path: Path, worker: int, clock: Clock, share: int = 1,
        seed: Callable[[Limit], float] = lambda limit: 1.0,
    ) -> None:  # fmt: skip
        super().__init__(clock=clock, share=share, seed=seed)
        self._file = os.open(path, os.O_RDWR)
        size = os.fstat(self._file).st_size
        self._map = mmap.mmap(self._file, size)
        self._words = memoryview(self._map).cast("Q")
        self._numbers = memoryview(self._map).cast("d")
        self._stride = (size // 8 - HEAD_WORDS) // SLOTS
        self._mine = RUNNING + worker - 1
        self._read: list[MappedBucket] = []
        self._is_locked = False
        with self._locked():
            for start in range(HEAD_WORDS, len(self._words), self._stride):
                self._words[start + self._mine] = 0

    async def take(self, ask: Ask) -> Refusal | None:
        """See Buckets."""
        with self._locked():
            return await super().take(ask)

    async def give_back(self, ask: Ask, tokens_used: int) -> None:
        """See Buckets."""
        with self._locked():
            await super().give_back(ask, tokens_used)

    def level(self, limit: Limit) -> float:
        """See Buckets."""
        with self._locked():
            return super().level(limit)

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        if not self._map.closed:
            self._words.release()
            self._numbers.release()
            self._map.close()
            os.close(self._file)

    def clear(self) -> None:
        """Begin anew, once for all workers that find Redis gone at about the same time."""
        with self._locked():
            now_s = self.clock.monotonic_s()
            if now_s - self._numbers[0] < CLEARED_EVERY_S:
                return
            self._numbers[0] = now_s
            for start in range(HEAD_WORDS, len(self._words), self._stride):
                if not any(self._words[start + RUNNING : start + self._stride]):
                    self._words[start + FIRST] = self._words[start + SECOND] = 0

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Hold the lock of all workers; nothing awaits meanwhile. Within itself it does nothing."""
        if self._is_locked:
            yield
            return
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        self._is_locked = True
        try:
            yield
            for bucket in self._read:
                self._numbers[bucket.start + LEVEL] = bucket.level
                self._numbers[bucket.start + AT] = bucket.at_s
        finally:
            self._read.clear()
            self._is_locked = False
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _bucket(self, limit: Limit, now_s: float) -> Bucket:
        start, is_new = self._slot(limit.scope, limit.what)
        found = next((one for one in self._read if one.start == start), None)
        if found is None:
            capacity = self._capacity(limit)
            level = capacity * self.seed(limit) if is_new else self._numbers[start + LEVEL]
            found = MappedBucket(level, now_s if is_new else self._numbers[start + AT], start)
            self._read.append(found)
        found.refill(limit, now_s, self._capacity(limit), limit.amount / self.share)
        return found

    def _running(self, scope: str) -> int:
        start, _ = self._slot(scope, What.CONCURRENT)
        return sum(self._words[start + RUNNING : start + self._stride])

    def _run(self, scope: str, change: int) -> None:
        start, _ = self._slot(scope, What.CONCURRENT)
        self._words[start + self._mine] = max(0, self._words[start + self._mine] + change)

    def _slot(self, scope: str, what: What) -> tuple[int, bool]:
        """Where a bucket lies, and whether it was made just now: in a free slot, or that of the longest unused."""
        digest = hashlib.blake2b(f"{what} {scope}".encode(), digest_size=16).digest()
        first, second = int.from_bytes(digest[:8], "little") | 1, int.from_bytes(digest[8:], "little")
        oldest, oldest_s = -1, float("inf")
        for probe in range(PROBES):
            start = HEAD_WORDS + (first + probe) % SLOTS * self._stride
            if self._words[start + FIRST] == first and self._words[start + SECOND] == second:
                return start, False
            if not self._words[start + FIRST]:
                oldest = start
                break
            is_idle = not any(self._words[start + RUNNING : start + self._stride])
            if (is_idle or oldest < 0) and self._numbers[start + AT] < oldest_s:
                oldest, oldest_s = start, self._numbers[start + AT]
        self._words[oldest + FIRST], self._words[oldest + SECOND] = first, second
        self._numbers[oldest + LEVEL], self._numbers[oldest + AT] = 0.0, self.clock.monotonic_s()
        for place in range(oldest + RUNNING, oldest + self._stride):
            self._words[place] = 0
        return oldest, True

"""When requests come and when their tokens do: the clock that all streaming runners share."""

import asyncio
import time

from benchmarks.runners.runner import Trace
from benchmarks.workloads import Work


class Stopwatch:
    """Starts when it is made."""

    def __init__(self, work: Work) -> None:
        self._arrivals_s = [ask.arrival_s / work.rate if work.rate else 0.0 for ask in work.asks]
        self._times_s: list[list[float]] = [[] for _ in work.asks]
        self._began_s = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._began_s

    def arrival_s(self, place: int) -> float:
        """When that request comes."""
        return self._arrivals_s[place]

    async def arrival(self, place: int) -> None:
        """Sleep until that request comes."""
        pause_s = self._arrivals_s[place] - self.elapsed_s
        if pause_s > 0:
            await asyncio.sleep(pause_s)

    def received(self, place: int, count: int) -> None:
        """Note that `count` tokens of that request are here now."""
        now_s = self.elapsed_s
        self._times_s[place].extend([now_s] * count)

    def trace(self) -> Trace:
        """What came."""
        return Trace(tuple(len(times) for times in self._times_s), tuple(tuple(times) for times in self._times_s))

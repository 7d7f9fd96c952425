"""How values spread: counts by bucket, as Prometheus' histograms have them, in a form that crosses processes."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Distribution:
    """A snapshot. `counts` has one more entry than `bounds`: what lies above them all."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class Spread:
    """Counts values as they come. Written by one thread; a reader may see the last value half counted."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """Count one value; a bucket holds what is at most its bound."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    @property
    def snapshot(self) -> Distribution:
        """What was counted so far."""
        return Distribution(self._bounds, tuple(self._counts), self._total)

"""What one timed run gave, and the statistics over several: medians, spread, percentiles, paired ratios."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.runners.runner import Trace
from benchmarks.workloads import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One round of one work on one engine."""

    seconds: float
    requests: int
    input_tokens: int
    output_tokens: int
    first_s: float | None = None
    """How long the same prompts take with one token each, where that was asked for."""
    ttft_s: tuple[float, ...] = ()
    """From each request's arrival to its first token."""
    gaps_s: tuple[float, ...] = ()
    """Between consecutive tokens of a request, all requests together."""
    memory_bytes: int = 0
    """Resident memory of the engine's process after the round."""

    @property
    def rate(self) -> float:
        """Output tokens a second; requests a second where nothing is generated."""
        return (self.output_tokens or self.requests) / self.seconds

    @property
    def requests_per_s(self) -> float:
        """Whole requests a second."""
        return self.requests / self.seconds

    @property
    def decode_ms(self) -> float:
        """Milliseconds a token after the first. Only for one stream, and only where `first_s` was measured."""
        assert self.first_s is not None, "this work has no pass of one token. This is a bug."
        return 1000 * (self.seconds - self.first_s) / (self.output_tokens - self.requests)


def sample_of(
    work: Work, trace: Trace, seconds: float, *, first_s: float | None = None, memory_bytes: int = 0
) -> Sample:
    """A checked trace as numbers. Times to first token and gaps only where tokens were streamed."""
    ttft_s: list[float] = []
    gaps_s: list[float] = []
    for ask, times_s in zip(work.asks, trace.token_times_s, strict=bool(trace.token_times_s)):
        if times_s and not work.is_encoding:
            ttft_s.append(times_s[0] - (ask.arrival_s / work.rate if work.rate else 0.0))
            gaps_s += [later - earlier for earlier, later in pairwise(times_s)]
    return Sample(
        seconds=seconds, requests=len(work.asks), input_tokens=work.input_tokens, output_tokens=work.output_tokens,
        first_s=first_s, ttft_s=tuple(ttft_s), gaps_s=tuple(gaps_s), memory_bytes=memory_bytes,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the least and the greatest value."""

    median: float
    least: float
    greatest: float

    def shown(self, digits: int = 2) -> str:
        """As a table's cell: 2.04 (1.98–2.11)."""
        if self.least == self.greatest:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.least:.{digits}f}–{self.greatest:.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Median and range of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of them lie, interpolated between neighbours."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ratios round by round: what slowed the machine down in a round slowed both."""
    return spread([a / b for a, b in zip(ours, theirs, strict=False)])

"""The figures to reach, as data, and what a run says of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.measure import Sample, Spread, paired, percentile, spread
from benchmarks.runner import HTTP, LOAD_OF_THE_GOAL, OURS, STATIC, UNMETERED, Results

Ratio = Callable[[Results], tuple[str, Spread] | None]
"""Who was measured against whom, and how it came out; None where one of them is missing."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table."""

    work: str
    figure: str
    is_least: bool
    """Whether the value must be at least, or at most, the bound."""
    bound: float
    measured: Ratio

    @property
    def shown_bound(self) -> str:
        """≥ 2, or ≤ 0.65."""
        return f"{'≥' if self.is_least else '≤'} {self.bound:g}"

    def is_met(self, value: float) -> bool:
        """Whether a median meets it."""
        return value >= self.bound if self.is_least else value <= self.bound


def rates(samples: Sequence[Sample]) -> list[float]:
    return [sample.rate for sample in samples]


def decode_times(samples: Sequence[Sample]) -> list[float]:
    return [sample.decode_ms for sample in samples]


def first_tokens(samples: Sequence[Sample]) -> list[float]:
    return [percentile(sample.ttft_s, 0.95) for sample in samples]


def against(
    work: str, peer: str, *, ours: str = f"{OURS}-best", of: Callable[[Sequence[Sample]], list[float]] = rates
) -> Ratio:
    """Ours over the peer's, round by round."""

    def measured(results: Results) -> tuple[str, Spread] | None:
        mine = results.best(ours.removesuffix("-best"), work) if ours.endswith("-best") else ours
        if mine is None or not results.of(work, mine) or not results.of(work, peer):
            return None
        return f"{mine} / {peer}", paired(of(results.of(work, mine)), of(results.of(work, peer)))

    return measured


def against_best_order(results: Results) -> tuple[str, Spread] | None:
    """BERT against CTranslate2 in whichever order of its own is fastest in this run."""
    mine = results.best(OURS, "bert-64")
    works = ("bert-64", "bert-64-sorted", "bert-64-alone")
    found = {work: rates(results.of(work, STATIC)) for work in works if results.of(work, STATIC)}
    if mine is None or not found:
        return None
    fastest = max(found, key=lambda work: spread(found[work]).median)
    return f"{mine} / {STATIC} in {fastest}", paired(rates(results.of("bert-64", mine)), found[fastest])


def gap_evenness(results: Results) -> tuple[str, Spread] | None:
    """Our 95th percentile of the gaps between tokens over their median, at the goal's load."""
    work = f"gpt2-poisson@{LOAD_OF_THE_GOAL}"
    mine = results.best(OURS, work)
    if mine is None:
        return None
    samples = results.of(work, mine)
    return f"{mine}, p95 / median", spread([percentile(s.gaps_s, 0.95) / percentile(s.gaps_s, 0.5) for s in samples])


def http_over(other: str, work: str = "gpt2-32") -> Ratio:
    """The server's tokens a second over those of another kind of ours, in the same precision."""

    def measured(results: Results) -> tuple[str, Spread] | None:
        served = results.best(HTTP, work)
        if served is None:
            return None
        return against(work, served.replace(HTTP, other), ours=served)(results)

    return measured


POISSON = f"gpt2-poisson@{LOAD_OF_THE_GOAL}"
GOALS = (
    Goal("gpt2-32", "tokens/s", True, 2.0, against("gpt2-32", STATIC)),
    Goal("gpt2-32", "tokens/s", True, 3.0, against("gpt2-32", "transformers-bf16")),
    Goal("gpt2-32", "tokens/s", True, 1.5, against("gpt2-32", "ctranslate2-fp32", ours=f"{OURS}-fp32")),
    Goal("gpt2-queue", "tokens/s", True, 3.0, against("gpt2-queue", STATIC)),
    Goal("gpt2-1", "decode ms/token", False, 0.65, against("gpt2-1", STATIC, of=decode_times)),
    Goal(POISSON, "p95 time to first token", False, 0.5, against(POISSON, STATIC, of=first_tokens)),
    Goal(POISSON, "gap between tokens", False, 2.0, gap_evenness),
    Goal("bert-64", "requests/s", True, 2.0, against("bert-64", STATIC)),
    Goal("bert-64", "requests/s against its best order", True, 1.4, against_best_order),
    Goal("bert-8", "requests/s", True, 1.3, against("bert-8", STATIC)),
    Goal("marian-greedy", "tokens/s", True, 1.5, against("marian-greedy", STATIC)),
    Goal("marian-beam", "tokens/s", True, 1.5, against("marian-beam", STATIC)),
    Goal("gpt2-32", "HTTP+SSE over the engine alone", True, 0.8, http_over(OURS)),
    Goal("gpt2-32", "metering on over off", True, 0.97, http_over(UNMETERED)),
    Goal("gpt2-queue", "metering on over off", True, 0.97, http_over(UNMETERED, "gpt2-queue")),
)

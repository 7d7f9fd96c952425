"""What every engine under test is: it loads a checkpoint, runs a work, and tells what it produced and when."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.workloads import Work


class NotHosted(Exception):
    """This engine does not do this model, precision or machine; the message says why. The cell stays empty."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What a run gave, request by request, in the order of the work."""

    output_tokens: tuple[int, ...]
    """Tokens received. For encoders: 1 for each answer."""
    token_times_s: tuple[tuple[float, ...], ...] = ()
    """Of each request, when each of its tokens came, counted from the run's start. Empty where none are streamed."""


class Runner(Protocol):
    """An engine in this process, or one that it starts."""

    def load(self, folder: Path, *, model: str) -> str:
        """Make ready; returns a word on how the weights are held. Raises NotHosted."""
        ...

    def run(self, work: Work) -> Trace:
        """Do all of it. Raises NotHosted when this kind of work is not for this engine."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


MODULES = {
    "tollgate-engine": "tollgate_engine",
    "tollgate-http": "tollgate_http",
    "tollgate-unmetered": "tollgate_unmetered",
    "transformers": "transformers_generate",
    "continuous": "transformers_continuous",
    "ctranslate2": "ctranslate2_runner",
    "litserve": "litserve_runner",
}
SERVERS = frozenset({"tollgate-engine", "tollgate-http", "tollgate-unmetered", "litserve"})
"""They start processes of their own, which a pause would make believe that others have died."""
PRECISIONS = ("int8", "bf16", "fp32")


def split_name(name: str) -> tuple[str, str]:
    """`ctranslate2-int8` → (`ctranslate2`, `int8`). Raises ValueError for a name that is none."""
    kind, _, precision = name.rpartition("-")
    if kind not in MODULES or precision not in PRECISIONS:
        raise ValueError(
            f"there is no engine {name!r}; there are {', '.join(MODULES)}, each with -int8, -bf16 or -fp32"
        )
    return kind, precision


def make_runner(name: str) -> Runner:
    """The engine of that name, not yet loaded. Imports only what it needs."""
    kind, precision = split_name(name)
    try:
        module = importlib.import_module(f"benchmarks.runners.{MODULES[kind]}")
    except ImportError as missing:
        raise NotHosted(f"{missing.name} is not installed; `make bench` installs it") from missing
    return module.make(precision)


def check_counts(work: Work, trace: Trace) -> None:
    """Raises AssertionError naming the first request that did not receive what it asked for."""
    assert len(trace.output_tokens) == len(work.asks), f"{len(trace.output_tokens)} of {len(work.asks)} were answered"
    wanted: Sequence[int] = [ask.output_tokens or 1 for ask in work.asks]
    for place, (count, asked) in enumerate(zip(trace.output_tokens, wanted, strict=True)):
        assert count == asked, f"request {place} received {count} tokens, not the {asked} that it asked for"

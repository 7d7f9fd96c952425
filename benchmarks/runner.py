"""The same work on all engines in alternation (A B C A B C …), so that what disturbs the machine disturbs all."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.measure import Sample
from benchmarks.processes import Worker
from benchmarks.runners.runner import PRECISIONS, NotHosted
from benchmarks.workloads import make_work

OURS, HTTP, UNMETERED = "tollgate-engine", "tollgate-http", "tollgate-unmetered"
STATIC = "ctranslate2-int8"
LOADS = (0.5, 0.7, 0.9, 1.1)
LOAD_OF_THE_GOAL = 0.7
EVERY = ("tollgate-engine-int8", "tollgate-engine-bf16", "tollgate-engine-fp32", "ctranslate2-int8",
         "ctranslate2-fp32", "transformers-bf16", "transformers-fp32")  # fmt: skip
SOME = (f"{OURS}-best", STATIC, "transformers-bf16")
ENGINES: dict[str, tuple[str, ...]] = {
    "gpt2-1": EVERY,
    "gpt2-2": SOME,
    "gpt2-4": SOME,
    "gpt2-8": SOME,
    "gpt2-16": SOME,
    "gpt2-32": (*EVERY, f"{HTTP}-best", f"{UNMETERED}-best", "continuous-bf16", "litserve-bf16"),
    "gpt2-queue": (f"{OURS}-best", STATIC, f"{HTTP}-best", f"{UNMETERED}-best"),
    "gpt2-poisson": (f"{OURS}-best", STATIC),
    "bert-64": EVERY,
    "bert-64-sorted": ("ctranslate2-int8", "transformers-bf16"),
    "bert-64-alone": ("ctranslate2-int8", "transformers-bf16"),
    "bert-8": EVERY,
    "marian-greedy": EVERY,
    "marian-beam": EVERY,
}
"""Who does what. `-best` stands for the first precision that Tollgate hosts: int8, then bf16, then fp32."""


@dataclass(slots=True)
class Results:
    """Samples by work and engine; `gpt2-poisson@0.7` is that work at 70 % load."""

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict[str, dict[str, list[Sample]]])
    refusals: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    """Why a cell is empty."""
    held: dict[str, str] = field(default_factory=dict[str, str])
    """How each engine says that it holds the weights, by `engine model`."""
    rates: dict[str, float] = field(default_factory=dict[str, float])
    """Requests a second, by work."""

    def of(self, work: str, engine: str) -> list[Sample]:
        """Its rounds; empty where it was not measured."""
        return self.samples.get(work, {}).get(engine, [])

    def best(self, kind: str, work: str) -> str | None:
        """The first precision of ours that has rounds."""
        names = [f"{kind}-{precision}" for precision in PRECISIONS]
        return next((name for name in names if self.of(work, name)), None)


class Measurement:
    """Runs works on workers and keeps what came. `say` receives one line for each step, `keep` what there is so far."""

    def __init__(
        self, *, rounds: int, scale: str, size: str, engines: Sequence[str], say: Callable[[str], None],
        keep: Callable[[Results], object], loads: Sequence[float] = LOADS,
    ) -> None:  # fmt: skip
        self.results = Results()
        self._loads = loads
        self._keep = keep
        self._rounds = rounds
        self._scale = scale
        self._size = size
        self._engines = tuple(engines)
        self._say = say
        self._began_s = time.monotonic()
        self._workers: dict[str, Worker | None] = {}

    def measure(self, works: Sequence[str]) -> Results:
        """All of `works`, model by model."""
        for model in dict.fromkeys(make_work(name, self._scale).model for name in works):
            mine = [name for name in works if make_work(name, self._scale).model == model]
            try:
                for name in mine:
                    self._work(name, model)
            finally:
                self._close()
        return self.results

    def _work(self, name: str, model: str) -> None:
        workers = [worker for engine in ENGINES[name] if (worker := self._worker(engine, model, name)) is not None]
        for worker in list(workers):
            try:
                self._note(f"{name}: {worker.engine} warms up")
                worker.warm_up(name, self._scale)
            except NotHosted as why:
                self._refuse(name, worker.engine, why)
                workers.remove(worker)
        if make_work(name, self._scale).name == "gpt2-poisson":
            self._arrivals(name, workers)
        else:
            self._rounds_of(name, name, workers, None, self._rounds)

    def _arrivals(self, name: str, workers: list[Worker]) -> None:
        """First the capacity of each, all requests at once; then arrivals at shares of the least capacity."""
        self._rounds_of(name, name, workers, None, self._rounds)
        capacities = [
            statistics.median(sample.requests_per_s for sample in self.results.of(name, worker.engine))
            for worker in workers if self.results.of(name, worker.engine)
        ]  # fmt: skip
        for load in self._loads if capacities else ():
            rate = load * min(capacities)
            self.results.rates[f"{name}@{load}"] = rate
            rounds = self._rounds if load == LOAD_OF_THE_GOAL else 1
            self._rounds_of(name, f"{name}@{load}", workers, rate, rounds)

    def _rounds_of(self, name: str, key: str, workers: list[Worker], rate: float | None, rounds: int) -> None:
        for number in range(1, rounds + 1):
            for worker in list(workers):
                try:
                    sample = worker.round(name, self._scale, rate)
                except NotHosted as why:
                    self._refuse(key, worker.engine, why)
                    workers.remove(worker)
                    continue
                self.results.samples.setdefault(key, {}).setdefault(worker.engine, []).append(sample)
                unit = "requests/s" if not sample.output_tokens else "tokens/s"
                self._note(
                    f"{key}: round {number} of {rounds}, {worker.engine}: {sample.rate:.1f} {unit} "
                    f"in {sample.seconds:.1f} s"
                )
        self._keep(self.results)

    def _worker(self, engine: str, model: str, work: str) -> Worker | None:
        """The loaded worker of that name, started when it is needed first; None where it is not hosted."""
        if engine.endswith("-best"):
            kind = engine.removesuffix("-best")
            found = (self._worker(f"{kind}-{precision}", model, work) for precision in PRECISIONS)
            return next((worker for worker in found if worker is not None), None)
        if self._engines and not any(engine.startswith(wanted) for wanted in self._engines):
            return None
        if engine not in self._workers:
            self._note(f"{model}: loading {engine}")
            try:
                worker = Worker(engine, model=model, size=self._size)
            except NotHosted as why:
                self._workers[engine] = None
                self.results.held[f"{engine} {model}"] = f"not hosted: {why}"
            else:
                self._workers[engine] = worker
                self.results.held[f"{engine} {model}"] = worker.held
        found_worker = self._workers[engine]
        if found_worker is None:
            why = self.results.held[f"{engine} {model}"].removeprefix("not hosted: ")
            self._refuse(work, engine, NotHosted(why))
        return found_worker

    def _refuse(self, work: str, engine: str, why: NotHosted) -> None:
        self.results.refusals.setdefault(work, {})[engine] = str(why)
        self._note(f"{work}: {engine} not hosted: {why}")

    def _note(self, line: str) -> None:
        self._say(f"[{time.monotonic() - self._began_s:6.0f} s] {line}")

    def _close(self) -> None:
        for worker in self._workers.values():
            if worker is not None:
                worker.close()
        self._workers.clear()

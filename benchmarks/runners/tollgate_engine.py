"""Tollgate's engine through its client interface, without HTTP, keys or metering."""

import asyncio
from pathlib import Path

from app.clock import SystemClock
from app.engine.client import EngineClient
from app.engine.events import EncodedEvent, FailedEvent, TokenEvent
from app.engine.jobs import BeamSearch, DecodeJob, EncodeJob, Head, Job, ModelSpec, Precision, Sampling
from app.engine.settings import EngineSettings
from app.engine.transports.child import ChildEngine
from app.engine.transports.inline import InlineEngine
from app.errors import TollgateError
from benchmarks.runners.arrivals import Stopwatch
from benchmarks.runners.runner import NotHosted, Trace
from benchmarks.workloads import Ask, Work

HEADS = {"gpt2": Head.GENERATE, "bert": Head.CLASSIFY, "marian": Head.TRANSLATE}


class TollgateEngine:
    """See Runner."""

    def __init__(self, precision: str, *, is_inline: bool = False) -> None:
        self._precision = Precision(precision)
        self._is_inline = is_inline
        self._asyncio = asyncio.Runner()
        self._engine: EngineClient | None = None
        self._runs = 0

    def load(self, folder: Path, *, model: str) -> str:
        """See Runner.load."""
        spec = ModelSpec(id=model, folder=str(folder), head=HEADS[model], precision=self._precision)
        try:
            return self._asyncio.run(self._load(spec))
        except TollgateError as refused:
            raise NotHosted(refused.message) from refused

    async def _load(self, spec: ModelSpec) -> str:
        settings = EngineSettings.model_validate({"prefix_tokens": 0})  # rounds repeat their prompts: each must be read
        if self._is_inline:
            self._engine = InlineEngine(settings=settings, clock=SystemClock())
        else:
            self._engine = ChildEngine.start(settings, log_level="warning", log_format="text")
        loaded = await self._engine.load(spec)
        return f"{loaded.precision.value}, {loaded.memory_bytes / 2**20:.0f} MiB with its cache"

    def run(self, work: Work) -> Trace:
        """See Runner.run."""
        self._runs += 1
        return self._asyncio.run(self._run(work))

    async def _run(self, work: Work) -> Trace:
        watch, places = Stopwatch(work), asyncio.Semaphore(work.at_once if work.rate is None else len(work.asks))
        async with asyncio.TaskGroup() as group:
            for place, ask in enumerate(work.asks):
                group.create_task(self._follow(self._job(work, place, ask), place, watch, places))
        return watch.trace()

    def _job(self, work: Work, place: int, ask: Ask) -> Job:
        name = f"run-{self._runs}-{work.name}-{place}"
        if work.is_encoding:
            return EncodeJob(id=name, model=work.model, ids=ask.ids)
        search = BeamSearch(beams=work.beams) if work.beams > 1 else Sampling(temperature=0)
        return DecodeJob(id=name, model=work.model, ids=ask.ids, max_new_tokens=ask.output_tokens, search=search)

    async def _follow(self, job: Job, place: int, watch: Stopwatch, places: asyncio.Semaphore) -> None:
        assert self._engine is not None, "load comes before run. This is a bug."
        await watch.arrival(place)
        async with places if not isinstance(job, EncodeJob) else asyncio.Semaphore():
            async for event in self._engine.submit(job):
                match event:
                    case TokenEvent():
                        watch.received(place, len(event.ids))
                    case EncodedEvent():
                        watch.received(place, 1)
                    case FailedEvent():
                        raise event.error
                    case _:
                        pass

    def close(self) -> None:
        """See Runner.close."""
        if self._engine is not None:
            self._asyncio.run(self._engine.close())
        self._asyncio.close()


def make(precision: str) -> TollgateEngine:
    """See make_runner."""
    return TollgateEngine(precision)

"""Prints which kernels work compiles that `make install` has not: run by test_precompile.py in a process of its own."""

import asyncio
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from numba.core.registry import CPUDispatcher

from app.clock import SystemClock
from app.engine.compute import kernels, precompile
from app.engine.events import FailedEvent, FinishedEvent
from app.engine.jobs import BeamSearch, DecodeJob, EncodeJob, Head, Job, ModelSpec, Precision, Sampling
from app.engine.settings import EngineSettings
from app.engine.transports.inline import InlineEngine

SETTINGS = EngineSettings(slots=6, prefix_tokens=4, step_tokens=256)
SEARCHES = (
    Sampling(temperature=0), Sampling(temperature=0.8, top_p=0.9, seed=1), Sampling(top_k=5, repetition_penalty=1.2),
    Sampling(temperature=0.7, min_p=0.1, frequency_penalty=0.5), BeamSearch(beams=3),
)  # fmt: skip


def signatures() -> set[str]:
    """Of every kernel, with which types of arguments it was compiled or loaded."""
    modules = [import_module(f"{kernels.__name__}.{found.name}") for found in iter_modules(kernels.__path__)]
    return {
        f"{module.__name__}.{name}{signature}"
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, CPUDispatcher)
        for signature in value.signatures
    }


def jobs(head: Head) -> list[Job]:
    """Short and long, alone in their step or not, some of which begin like others."""
    if head is not Head.GENERATE and head is not Head.TRANSLATE:
        return [EncodeJob(id=f"{n}", model="x", ids=tuple(range(1, n + 1))) for n in (1, 2, 7, 30, 60)]
    found: list[Job] = []
    for search in SEARCHES:
        for length in (1, 2, 20, 50):
            ids = (*range(3, 3 + length), 0) if head is Head.TRANSLATE else tuple(range(1, 1 + length))
            asked = 2 if head is Head.GENERATE and length == 20 else None
            found.append(
                DecodeJob(
                    id=f"{len(found)}", model="x", ids=ids, max_new_tokens=8, search=search, logprobs=asked,
                    prompt_logprobs=asked,
                )
            )  # fmt: skip
    return found


async def work(folder: str, head: Head, precision: Precision) -> None:
    """Each job by itself, then all at once."""
    engine = InlineEngine(settings=SETTINGS, clock=SystemClock())
    try:
        await engine.load(ModelSpec(id="x", folder=folder, head=head, precision=precision))
        alone = [[job] for job in jobs(head)]
        for batch in [*alone, jobs(head)]:
            await asyncio.gather(*(finish(engine, job) for job in batch))
    finally:
        await engine.close()


async def finish(engine: InlineEngine, job: Job) -> None:
    last = [event async for event in engine.submit(job)][-1]
    assert not isinstance(last, FailedEvent), last
    assert isinstance(job, EncodeJob) or isinstance(last, FinishedEvent)


def main(words: Sequence[str]) -> None:
    """words: folder=head."""
    precompile.main()
    before = signatures()
    for word in words:
        folder, _, head = word.rpartition("=")
        for precision in (Precision.FP32, Precision.BF16, Precision.INT8):
            asyncio.run(work(folder, Head(head), precision))
            print(f"compiled for {Path(folder).name} in {precision.value}: {json.dumps(sorted(signatures() - before))}")
            before = signatures()


if __name__ == "__main__":
    main(sys.argv[1:])

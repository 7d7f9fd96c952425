"""Time to the first token of prompts that begin alike, with prefix reuse and without: `python -m benchmarks.prefix`."""

import asyncio
import statistics
import sys
import time
from random import Random

from app.clock import SystemClock
from app.engine.events import FinishedEvent, TokenEvent
from app.engine.jobs import DecodeJob, Head, ModelSpec, Precision, Sampling
from app.engine.settings import EngineSettings
from app.engine.transports.inline import InlineEngine
from benchmarks.checkpoints import checkpoint

SHARED, OWN, ROUNDS = 400, 20, 12
REUSE, NONE = "with reuse", "without"
Found = tuple[float, tuple[int, ...], tuple[float, ...], int]


async def ask(engine: InlineEngine, job: DecodeJob) -> Found:
    """Milliseconds to the first token; the tokens, their log-probabilities, and the tokens found in the cache."""
    began_s, first_s = time.perf_counter(), 0.0
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    cached = 0
    async for event in engine.submit(job):
        if isinstance(event, TokenEvent):
            first_s = first_s or time.perf_counter() - began_s
            ids, logprobs = ids + event.ids, logprobs + event.logprobs
        elif isinstance(event, FinishedEvent):
            cached = event.usage.cached_tokens
    return first_s * 1000, ids, logprobs, cached


async def main(precision: str, size: str) -> None:
    """One prompt after another, each on both engines in turn."""
    draw = Random(1)
    vocabulary = 50_000 if size == "published" else 390
    shared = SHARED if size == "published" else 60
    engines = {
        name: InlineEngine(settings=EngineSettings(slots=8, prefix_tokens=tokens), clock=SystemClock())
        for name, tokens in ((REUSE, 16), (NONE, 0))
    }
    spec = ModelSpec(
        id="gpt2", folder=str(checkpoint("gpt2", size)), head=Head.GENERATE, precision=Precision(precision)
    )
    for engine in engines.values():
        await engine.load(spec)
    stem = tuple(draw.randrange(vocabulary) for _ in range(shared))
    found: dict[str, list[Found]] = {name: [] for name in engines}
    for number in range(ROUNDS):
        ids = stem + tuple(draw.randrange(vocabulary) for _ in range(OWN))
        for name, engine in engines.items():
            search = Sampling(temperature=0)
            job = DecodeJob(id=f"{number}", model="gpt2", ids=ids, max_new_tokens=8, search=search, logprobs=0)
            found[name].append(await ask(engine, job))
    for name, engine in engines.items():
        times = [one[0] for one in found[name][1:]]
        print(
            f"{name}: median {statistics.median(times):.1f} ms to the first token "
            f"({min(times):.1f} to {max(times):.1f}), "
            f"{found[name][-1][3]} of {shared + OWN} tokens from the cache"
        )
        await engine.close()
    pairs = list(zip(found[REUSE], found[NONE], strict=True))
    print(f"equal tokens: {sum(a[1] == b[1] for a, b in pairs)} of {ROUNDS};", end=" ")
    print(f"equal log-probabilities, to the bit: {sum(a[2] == b[2] for a, b in pairs)} of {ROUNDS}")


if __name__ == "__main__":
    chosen = dict(enumerate(sys.argv[1:]))
    asyncio.run(main(chosen.get(0, "fp32"), chosen.get(1, "published")))

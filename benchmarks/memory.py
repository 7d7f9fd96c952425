"""What the processes hold in memory: after a load, against what the engine states, and over 10,000 requests.

    python -m benchmarks.memory                     # both; ends with 1 when a bound is passed
    python -m benchmarks.memory --requests 0        # the loads alone

The loads are those of the published sizes with random weights. The requests go to `tollgate serve` with the starters:
generation, a third of it left by its reader half way, labels, answers and translations, 32 at a time.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import httpx

from app.engine.jobs import ModelSpec, Precision
from app.engine.settings import EngineSettings
from app.engine.transports.child import ChildEngine
from benchmarks.checkpoints import checkpoint
from benchmarks.runners.served import Served, family, resident_bytes
from benchmarks.runners.tollgate_engine import HEADS
from benchmarks.texts import passages

MIB = 2**20
MARGIN_MIB = 128
"""What a load may add beyond what it states: compiled kernels, the libraries' pages, a step's buffers."""
WARM_SHARE = 0.1
"""Of the requests, after which nothing grows any more: each kind of step has run, and the journal has been used."""
GROWTH_MIB = 32
"""More than this between then and the end is a leak."""
AT_ONCE = 32
SORTS: tuple[str, ...] = ("generation", "left", "label", "answer", "translation")
WEIGHTS = (2, 1, 4, 2, 1)


def processes() -> dict[str, int]:
    """Ours by what they are: this one's children by the module that they run."""
    found: dict[str, int] = {}
    for process in family(os.getpid())[1:]:
        words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
        if "-m" in words:
            found["engine" if words[words.index("-m") + 1].startswith("app.engine") else "api"] = process
    return found


def resident_mib(process: int) -> int:
    return round(resident_bytes(process) / MIB)


async def load(model: str, precision: str) -> tuple[int, int, int]:
    """MiB of an engine's process before a model is loaded and after, and what the model is said to hold."""
    settings = EngineSettings.model_validate({"prefix_tokens": 0})
    engine = ChildEngine.start(settings, log_level="warning", log_format="text")
    try:
        spec = ModelSpec(id="tiny", folder=str(checkpoint("gpt2", "tiny")), head=HEADS["gpt2"])
        await engine.load(spec)  # so that its libraries and kernels are there before
        before = resident_mib(processes()["engine"])
        spec = ModelSpec(id=model, folder=str(checkpoint(model)), head=HEADS[model], precision=Precision(precision))
        loaded = await engine.load(spec)
        return before, resident_mib(processes()["engine"]), round(loaded.memory_bytes / MIB)
    finally:
        await engine.close()


async def loads(pairs: list[tuple[str, str]]) -> bool:
    """Print each load; whether all stay within the margin."""
    print("| model | before the load | after | grown by | stated: weights and cache |\n|---|---|---|---|---|")
    is_good = True
    for model, precision in pairs:
        before, after, stated = await load(model, precision)
        is_good &= after - before <= stated + MARGIN_MIB
        print(f"| {model} {precision} | {before} MiB | {after} MiB | {after - before} MiB | {stated} MiB |", flush=True)
    return is_good


class Crowd:
    """Clients that send requests of every sort, each as soon as the one before is answered."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._draw = Random(11)
        self._passages: list[dict[str, Any]] = passages()
        self.done: Counter[str] = Counter()

    async def send(self, count: int) -> None:
        """So many requests; none is in progress afterwards."""
        sorts: list[str] = self._draw.choices(SORTS, WEIGHTS, k=count)
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._customer(sorts))

    async def _customer(self, sorts: list[str]) -> None:
        while sorts:
            sort = sorts.pop()
            passage = self._draw.choice(self._passages)
            text = str(passage["text"])
            match sort:
                case "generation" | "left":
                    await self._generate(text[: self._draw.randint(20, 200)], is_left=sort == "left")
                case "label":
                    await self._ask("starter-sentiment", text[: self._draw.randint(20, 300)])
                case "answer":
                    asked = self._draw.choice(passage["questions"])["question"]
                    await self._ask("starter-qa", {"question": asked, "context": text})
                case _:
                    await self._ask("starter-en-pt", text.split(". ")[0])
            self.done[sort] += 1

    async def _ask(self, model: str, inputs: object) -> None:
        while (answer := await self._client.post(f"/models/{model}", json={"inputs": inputs})).status_code == 503:
            self.done["refused, and asked again"] += 1
            await asyncio.sleep(1)
        assert answer.status_code == 200, answer.text

    async def _generate(self, prompt: str, *, is_left: bool) -> None:
        body = {"model": "starter-stories", "prompt": prompt, "stream": True,
                "max_tokens": 150 if is_left else self._draw.randint(4, 32)}  # fmt: skip
        read = 0
        async with self._client.stream("POST", "/v1/completions", json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for line in answer.aiter_lines():
                read += line.startswith("data: {")
                if is_left and read >= 4:
                    break
        assert read >= 1, "a stream without an event"


def serve(requests: int, every: int) -> bool:
    """Print the processes' memory as the requests go by; whether it stays where it is."""
    with tempfile.TemporaryDirectory(prefix="tollgate-benchmark-") as home:
        env = {"TOLLGATE_HOME": home}
        made = [sys.executable, "-m", "app", "keys", "create", "--tenant", "bench", "--name", "bench", "--json"]
        key = json.loads(subprocess.run(made, env=os.environ | env, capture_output=True, check=True).stdout)["key"]
        server = Served(["app", "serve", "--host", "127.0.0.1"], env=env, ready="/startupz")
        try:
            return asyncio.run(follow(server.url, key, requests, every))
        finally:
            server.close()


async def follow(url: str, key: str, requests: int, every: int) -> bool:
    """The table, a row for each `every` requests."""
    print("\n| requests | api | engine |\n|---|---|---|")
    found: list[dict[str, int]] = []
    headers, limits = {"authorization": f"Bearer {key}"}, httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120, limits=limits) as client:
        crowd = Crowd(client)
        for done in range(0, requests + 1, every):
            if done:
                await crowd.send(every)
                await asyncio.sleep(1)  # what was left has been cancelled, what was written is on the disk
            found.append({name: resident_mib(process) for name, process in processes().items()})
            print(f"| {done:,} | {found[-1]['api']} MiB | {found[-1]['engine']} MiB |", flush=True)
    warm = found[max(1, round(WARM_SHARE * (len(found) - 1)))]
    grown = {name: found[-1][name] - warm[name] for name in warm}
    sorts = ", ".join(f"{count} {sort}" for sort, count in sorted(crowd.done.items()))
    print(f"\n{sorts}; since the first tenth the API has grown by {grown['api']} MiB, the engine by {grown['engine']}")
    return all(growth <= GROWTH_MIB for growth in grown.values())


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    made.add_argument("--loads", default="gpt2-int8,gpt2-fp32,bert-int8,marian-int8", help="by commas; '' for none")
    made.add_argument("--requests", type=int, default=10_000)
    made.add_argument("--every", type=int, default=1_000)
    chosen = made.parse_args()
    pairs = [
        (model, precision) for model, _, precision in (one.partition("-") for one in chosen.loads.split(",") if one)
    ]
    is_good = asyncio.run(loads(pairs)) if pairs else True
    if chosen.requests:
        is_good &= serve(chosen.requests, chosen.every)
    if not is_good:
        sys.exit(f"too much: a load may add {MARGIN_MIB} MiB to what it states, and the rest grow by {GROWTH_MIB} MiB")


if __name__ == "__main__":
    main()

"""LitServe doing the naive thing, in processes of its own, asked by as many clients as there may be at once."""

import asyncio
from pathlib import Path

import httpx

from benchmarks.runners.arrivals import Stopwatch
from benchmarks.runners.runner import NotHosted, Trace
from benchmarks.runners.served import Served
from benchmarks.runners.transformers_generate import DTYPES
from benchmarks.workloads import Ask, Work

TIMEOUT_S = 600.0


class LitServe:
    """See Runner."""

    def __init__(self, precision: str) -> None:
        self._precision = precision
        self._server: Served | None = None

    def load(self, folder: Path, *, model: str) -> str:
        """See Runner.load."""
        if model != "gpt2":
            raise NotHosted("the naive server is written for generation only")
        if self._precision not in DTYPES:
            raise NotHosted(f"transformers has no {self._precision} for the CPU")
        module = "benchmarks.runners.litserve_server"
        self._server = Served([module, str(folder), "--precision", self._precision], env={}, ready="/health")
        return f"{self._precision}, {self._server.memory_bytes() / 2**20:.0f} MiB resident"

    def run(self, work: Work) -> Trace:
        """See Runner.run."""
        return asyncio.run(self._run(work))

    async def _run(self, work: Work) -> Trace:
        assert self._server is not None, "load comes before run. This is a bug."
        watch, places = Stopwatch(work), asyncio.Semaphore(work.at_once if work.rate is None else len(work.asks))
        limits = httpx.Limits(max_connections=256)
        async with (
            httpx.AsyncClient(base_url=self._server.url, timeout=TIMEOUT_S, limits=limits) as client,
            asyncio.TaskGroup() as group,
        ):
            for place, ask in enumerate(work.asks):
                group.create_task(self._ask(client, ask, place, watch, places))
        return watch.trace()

    async def _ask(
        self, client: httpx.AsyncClient, ask: Ask, place: int, watch: Stopwatch, places: asyncio.Semaphore
    ) -> None:
        await watch.arrival(place)
        async with places:
            body = {"ids": list(ask.ids), "output_tokens": ask.output_tokens}
            answer = await client.post("/predict", json=body)
            answer.raise_for_status()
            watch.received(place, answer.json()["output_tokens"])

    def close(self) -> None:
        """See Runner.close."""
        if self._server is not None:
            self._server.close()


def make(precision: str) -> LitServe:
    """See make_runner."""
    return LitServe(precision)

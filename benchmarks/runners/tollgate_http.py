"""Tollgate as its customers meet it: the server in a process of its own, a key, prices, a budget, a stream a client."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from benchmarks.runners.arrivals import Stopwatch
from benchmarks.runners.runner import NotHosted, Trace
from benchmarks.runners.served import Served
from benchmarks.workloads import Ask, Work

CATALOGUE = """models:
  - {{id: {model}, task: {task}, family: {model}, licence: none, load: start, precision: {precision},
     source: {{folder: "{folder}"}}}}
"""
TASKS = {"gpt2": "text-generation"}
TIMEOUT_S = 600.0


class TollgateHttp:
    """See Runner."""

    def __init__(self, precision: str, *, command: str = "app") -> None:
        self._precision = precision
        self._command = command
        self._home = tempfile.TemporaryDirectory(prefix="tollgate-benchmark-")
        self._server: Served | None = None
        self._key = ""

    def load(self, folder: Path, *, model: str) -> str:
        """See Runner.load. Only generation takes token ids over HTTP."""
        if model not in TASKS:
            raise NotHosted("its HTTP routes take texts, which random weights have none of")
        home = Path(self._home.name)
        catalogue = home / "catalog.yaml"
        filled = CATALOGUE.format(model=model, task=TASKS[model], precision=self._precision, folder=folder)
        catalogue.write_text(filled, encoding="utf-8")
        env = {
            "TOLLGATE_HOME": str(home), "TOLLGATE_REGISTRY__CATALOGUE": str(catalogue),
            "TOLLGATE_ENGINE__PREFIX_TOKENS": "0",  # rounds repeat their prompts: each must be read
        }  # fmt: skip
        self._key = make_customer(env, model=model, task=TASKS[model])
        self._server = Served([self._command, "serve", "--host", "127.0.0.1"], env=env, ready="/livez")
        asyncio.run(self._wait_for_model(model))
        return f"{self._precision}, {self._server.memory_bytes() / 2**20:.0f} MiB resident"

    async def _wait_for_model(self, model: str) -> None:
        """One token for one token: waits for the model, and tells what the server says when it refuses it."""
        body = {"model": model, "prompt": [1], "max_tokens": 1}
        async with self._client() as client:
            for _ in range(60):
                answer = await client.post("/v1/completions", json=body)
                if answer.status_code == 200:
                    return
                if answer.status_code != 503 or answer.json()["error"]["code"] != "model_loading":
                    break
                await asyncio.sleep(1)
        raise NotHosted(f"the server answers {answer.status_code}: {answer.json()['error']['message']}")

    def _client(self) -> httpx.AsyncClient:
        assert self._server is not None, "load comes before run. This is a bug."
        headers = {"authorization": f"Bearer {self._key}"}
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)
        return httpx.AsyncClient(base_url=self._server.url, headers=headers, timeout=TIMEOUT_S, limits=limits)

    def run(self, work: Work) -> Trace:
        """See Runner.run."""
        return asyncio.run(self._run(work))

    async def _run(self, work: Work) -> Trace:
        watch, places = Stopwatch(work), asyncio.Semaphore(work.at_once if work.rate is None else len(work.asks))
        async with self._client() as client, asyncio.TaskGroup() as group:
            followed = [
                group.create_task(self._follow(client, work, ask, place, watch, places))
                for place, ask in enumerate(work.asks)
            ]
        return Trace(tuple(task.result() for task in followed), watch.trace().token_times_s)

    async def _follow(
        self, client: httpx.AsyncClient, work: Work, ask: Ask, place: int, watch: Stopwatch, places: asyncio.Semaphore
    ) -> int:
        """One client. Returns the tokens that the server has charged for."""
        body: dict[str, Any] = {
            "model": work.model, "prompt": list(ask.ids), "max_tokens": ask.output_tokens, "temperature": 0,
            "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        await watch.arrival(place)
        charged = 0
        async with places, client.stream("POST", "/v1/completions", json=body) as answer:
            if answer.status_code != 200:
                raise RuntimeError(f"the server answers {answer.status_code}: {(await answer.aread())[:300]!r}")
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line[6:])
                if chunk["choices"] and chunk["choices"][0]["text"]:
                    watch.received(place, 1)
                elif chunk.get("usage"):
                    charged = chunk["usage"]["completion_tokens"]
        return charged

    def close(self) -> None:
        """See Runner.close."""
        if self._server is not None:
            self._server.close()
        self._home.cleanup()


def make_customer(env: dict[str, str], *, model: str, task: str) -> str:
    """A key of a tenant with a balance, a monthly budget and prices, made on the command line as operators do."""
    tenant, sold = ("--tenant", "bench"), ("--model", model, "--task", task, "--per-million", "0.15")

    def command(*words: str) -> str:
        command = [sys.executable, "-m", "app", *words, "--json"]
        return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=True).stdout

    key = json.loads(command("keys", "create", *tenant, "--name", "bench"))["key"]
    for meter in ("input_token", "output_token"):
        command("prices", "set", *sold, "--meter", meter)
    command("budgets", "topup", *tenant, "--amount", "1000")
    command("budgets", "set", *tenant, "--monthly", "1000")
    return key


def make(precision: str) -> TollgateHttp:
    """See make_runner."""
    return TollgateHttp(precision)

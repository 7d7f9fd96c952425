"""Mixed customers: streams, whole answers, batches of texts, and hang-ups, each counting what it received itself."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

TEXT: dict[str, Any] = {"model": "tiny-gpt2", "prompt": [5, 6, 7], "max_tokens": 60, "ignore_eos": True, "logprobs": 0}
LABELS: dict[str, Any] = {
    "model": "tiny-bert-classifier",
    "input": ["hello world", "where do i live?", "one two three"],
}
INPUT_TOKENS = 3
KINDS = ("stream", "whole", "batch", "hang-up")
RETRYABLE = (
    "engine_lost", "draining", "server_is_overloaded", "model_loading", "model_unavailable", "unavailable",
    "storage_unavailable",
)  # fmt: skip


@dataclass(slots=True)
class Call:
    """One request, as its customer saw it."""

    kind: str
    began_s: float
    request_id: str | None = None
    status: int | None = None
    tokens: int = 0
    chunk_max: int = 1
    is_done: bool = False
    is_hung_up: bool = False
    is_cut: bool = False
    """The connection ended in the middle of an answer."""
    error: str | None = None
    """The code of an error that the server told, or the class of a broken connection."""
    ended_s: float = 0.0

    @property
    def is_failed(self) -> bool:
        """Whether the customer got less than was asked for."""
        return not self.is_done and not self.is_hung_up

    @property
    def is_retryable(self) -> bool:
        """Whether the failure tells a customer's client to try again: 503, a code that says so, or a cut connection."""
        return self.is_cut or self.status == 503 or self.error in RETRYABLE


@dataclass
class Crowd:
    """All customers and their calls."""

    url: str
    key: str
    count: int
    pause_s: float = 0.0
    """How long each customer rests after a request, at most; half of it on average."""
    calls: list[Call] = field(default_factory=list[Call])
    is_over: bool = False

    @property
    def failed(self) -> list[Call]:
        """The calls that failed."""
        return [call for call in self.calls if call.is_failed and call.ended_s]

    @property
    def done(self) -> list[Call]:
        """The calls that got all they asked for."""
        return [call for call in self.calls if call.is_done]

    def told(self) -> str:
        """How all went, in a line."""
        kinds = Counter(call.kind for call in self.done)
        ways = Counter(f"{call.kind} {call.status} {call.error}" for call in self.failed)
        hung_up = sum(call.is_hung_up for call in self.calls)
        return f"{len(self.calls)} requests, done {dict(kinds)}, hung up {hung_up}, failed {dict(ways)}"

    async def customer(self, number: int) -> None:
        """One request after another, on connections that are kept, until it is over."""
        chance = random.Random(number)
        headers = {"authorization": f"Bearer {self.key}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60, trust_env=False) as client:
            while not self.is_over:
                call = Call(chance.choice(KINDS), time.monotonic())
                self.calls.append(call)
                try:
                    await self.ask(client, call, chance)
                except httpx.TransportError as error:
                    call.is_cut, call.error = call.status is not None, type(error).__name__
                call.ended_s = time.monotonic()
                await asyncio.sleep(chance.uniform(0, self.pause_s))

    async def ask(self, client: httpx.AsyncClient, call: Call, chance: random.Random) -> None:
        """One request of the call's kind. Raises httpx.TransportError."""
        if call.kind == "batch":
            answer = await whole_answer(client, call, "/v1/classifications", LABELS)
            call.is_done = answer.status_code == 200 and len(answer.json()["data"]) == len(LABELS["input"])
        elif call.kind == "whole":
            answer = await whole_answer(client, call, "/v1/completions", TEXT)
            if answer.status_code == 200:
                call.tokens = len(answer.json()["choices"][0]["logprobs"]["tokens"])
                call.is_done = call.tokens == TEXT["max_tokens"]
        else:
            await self.stream(client, call, leave_after=chance.randrange(1, 40) if call.kind == "hang-up" else None)

    async def stream(self, client: httpx.AsyncClient, call: Call, *, leave_after: int | None) -> None:
        """Read a stream to its end, or hang up after so many tokens."""
        async with client.stream("POST", "/v1/completions", json=TEXT | {"stream": True}) as answer:
            if answer.status_code != 200:
                await answer.aread()
                note_answer(call, answer)
                return
            call.status, call.request_id = answer.status_code, answer.headers.get("x-request-id")
            async for line in answer.aiter_lines():
                note_line(call, line)
                if leave_after is not None and call.tokens >= leave_after:
                    call.is_hung_up = True
                    return
        call.is_cut |= not call.is_done and call.error is None


async def whole_answer(client: httpx.AsyncClient, call: Call, path: str, body: dict[str, Any]) -> httpx.Response:
    """The answer to a request that is not streamed; its status is known though it may end before its body is whole."""
    async with client.stream("POST", path, json=body) as answer:
        call.status = answer.status_code
        await answer.aread()
    note_answer(call, answer)
    return answer


def note_answer(call: Call, answer: httpx.Response) -> None:
    """The status, the id, and the error's code if there is one."""
    call.status, call.request_id = answer.status_code, answer.headers.get("x-request-id")
    if answer.status_code >= 400:
        try:
            call.error = str(answer.json()["error"]["code"])
        except (ValueError, KeyError, TypeError):
            call.error = f"not an envelope: {answer.text[:80]!r}"


def note_line(call: Call, line: str) -> None:
    """Add a line of a stream."""
    if line == "data: [DONE]":
        call.is_done = call.tokens == TEXT["max_tokens"] and call.error is None
    elif line.startswith("data: {"):
        event = json.loads(line[6:])
        if "error" in event:
            call.error = str(event["error"]["code"])
        for choice in event.get("choices", ()):
            got = len((choice["logprobs"] or {"tokens": []})["tokens"])
            call.tokens += got
            call.chunk_max = max(call.chunk_max, got)


@asynccontextmanager
async def crowd_at(url: str, key: str, count: int, *, pause_s: float = 0.0) -> AsyncGenerator[Crowd]:
    """Customers who ask all the while; on leaving, each finishes what it has begun."""
    crowd = Crowd(url, key, count, pause_s)
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(crowd.customer(number))
        try:
            while len(crowd.done) < count // 2:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            yield crowd
        finally:
            crowd.is_over = True

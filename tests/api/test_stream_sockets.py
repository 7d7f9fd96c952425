"""Streams on real sockets: what leaves when, who hears a hang-up, and how far a slow reader is waited for."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response

from app.api.stream import SseResponse, event

FRAME = event(b"x" * 32_768)
FRAMES_IN_SOCKETS_MAX = 400
"""What the kernel and uvicorn hold of one connection: a few megabytes; 13 of them."""
WAIT_S = 20.0
STALLED_S = 2.0
LOOK_S = 0.2


@dataclass
class Source:
    """Frames, and what became of whoever makes them."""

    endless: bool = False
    made: int = 0
    more: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def frames(self) -> AsyncIterator[bytes]:
        try:
            while True:
                self.made += 1
                yield FRAME if self.endless else event(b"%d" % self.made)
                if not self.endless:
                    await self.more.wait()
                    self.more.clear()
        finally:
            self.ended.set()


@asynccontextmanager
async def serving(source: Source, *, keep_alive_s: float = 10, stalled_s: float = 10) -> AsyncGenerator[int]:
    """A server with one stream, behind two kinds of middleware. Yields its port."""
    app = FastAPI()

    @app.get("/stream")
    async def stream() -> Response:  # pyright: ignore[reportUnusedFunction]
        return SseResponse(
            source.frames, on_error=lambda error: event(str(error).encode()), keep_alive_s=keep_alive_s,
            stalled_s=stalled_s, on_refusal=lambda error: PlainTextResponse(str(error)), headers={},
        )  # fmt: skip

    @app.middleware("http")
    async def another(request: Request, call_next: Any) -> Response:  # pyright: ignore[reportUnusedFunction]
        return await call_next(request)

    class Plain:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    app.add_middleware(Plain)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await running


@asynccontextmanager
async def opened(port: int) -> AsyncGenerator[httpx.Response]:
    """The stream, as a client reads it; leaving hangs up."""
    async with httpx.AsyncClient() as client, client.stream("GET", f"http://127.0.0.1:{port}/stream") as answer:
        yield answer


async def test_the_first_event_leaves_before_there_is_a_second_and_no_proxy_holds_it() -> None:
    source = Source()
    async with serving(source) as port, opened(port) as answer:
        lines = answer.aiter_lines()
        async with asyncio.timeout(WAIT_S):
            assert await anext(lines) == "data: 1"
        assert source.made == 1
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["content-type"].startswith("text/event-stream")
        source.more.set()
        assert [await anext(lines), await anext(lines)] == ["", "data: 2"]


async def test_silence_is_broken_by_comments() -> None:
    async with serving(Source(), keep_alive_s=0.05) as port, opened(port) as answer, asyncio.timeout(WAIT_S):
        lines = answer.aiter_lines()
        found = [await anext(lines) for _ in range(6)]
        assert found == ["data: 1", "", ": keep-alive", "", ": keep-alive", ""]


async def test_a_hang_up_is_heard_behind_middleware() -> None:
    for endless in (False, True):
        source = Source(endless=endless)
        async with serving(source) as port:
            async with opened(port) as answer:
                await anext(answer.aiter_bytes())
            async with asyncio.timeout(WAIT_S):
                await source.ended.wait()
            made = source.made
            await asyncio.sleep(0.05)
            assert source.made == made


async def test_a_reader_that_reads_nothing_is_not_buffered_for_and_is_given_up() -> None:
    source = Source(endless=True)
    async with serving(source, stalled_s=STALLED_S) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        made = 0
        while not made or source.made != made:
            made = source.made
            await asyncio.sleep(LOOK_S)
        assert made <= FRAMES_IN_SOCKETS_MAX
        assert not source.ended.is_set(), "it is waited for"
        async with asyncio.timeout(WAIT_S):
            await source.ended.wait()
        assert source.made == made
        writer.close()
        del reader

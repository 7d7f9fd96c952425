"""A response that owns its answer's scope: sends events as they come, hears the hang-up, and never goes silent."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any, cast

import msgspec
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

log = logging.getLogger(__name__)
KEEP_ALIVE = b": keep-alive\n\n"
STALLED_S = 60.0
"""How long a client may leave what was sent unread. Until then its row waits; no more than a frame is buffered."""
STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The answer, or its server-sent events.", "content": {"text/event-stream": {}}}
}
"""For the OpenAPI document of a route that may stream."""
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
LINE_ENDS = tuple((chr(code).encode(), f"\\u{code:04x}".encode()) for code in (0x85, 0x2028, 0x2029))
"""What JSON lets stand as it is, and what some clients (httpx's `aiter_lines`) take for the end of a line."""


def event(data: bytes) -> bytes:
    """One server-sent event; `data` is JSON on one line."""
    for end, escaped in LINE_ENDS:
        data = data.replace(end, escaped)
    return b"data: %b\n\n" % data


def json_event(found: Any) -> bytes:
    """One server-sent event of what JSON can hold."""
    return event(msgspec.json.encode(found))


class Line:
    """Where a stream's pieces leave, one at a time, and since when it has been silent, or stuck."""

    def __init__(self, send: Send) -> None:
        self.has_begun = False
        self.since_s = 0.0
        self._send = send
        self._sending = asyncio.Lock()

    @property
    def is_stuck(self) -> bool:
        """Whether a piece waits for the client to read earlier ones."""
        return self._sending.locked()

    async def put(self, piece: bytes, *, is_last: bool = False) -> None:
        """Send one."""
        async with self._sending:
            self.since_s = asyncio.get_running_loop().time()
            await self._send({"type": "http.response.body", "body": piece, "more_body": not is_last})


class SseResponse(Response):
    """Streams `frames()`; a client that hangs up cancels it at its next await, and its scopes clean up in this task.

    The first frame is awaited before the headers are sent, so that a request that cannot run is refused with its own
    status. Errors after that are told by `on_error` as the last event. A client that reads nothing for `stalled_s` is
    treated as one that hung up. Frames run, and leave, in one task from begin to end; one timer beside it looks after
    silence and stalls, so that a frame costs none.
    """

    media_type = "text/event-stream"

    def __init__(
        self, frames: Callable[[], AsyncIterator[bytes]], *, on_error: Callable[[Exception], bytes],
        on_refusal: Callable[[Exception], Response], keep_alive_s: float, headers: dict[str, str],
        stalled_s: float = STALLED_S,
    ) -> None:  # fmt: skip
        super().__init__(headers=HEADERS | headers)
        del self.headers["content-length"]
        self._frames = frames
        self._on_error = on_error
        self._on_refusal = on_refusal
        self._keep_alive_s = keep_alive_s
        self._stalled_s = stalled_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        line = Line(send)
        body = asyncio.create_task(self._stream(scope, receive, send, line))
        listener = asyncio.create_task(hung_up(receive))
        try:
            ended: set[asyncio.Task[None]] = set()
            while not ended and await self._is_heard(line):
                ended, _ = await asyncio.wait(
                    (body, listener), timeout=self._pause_s(line), return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            listener.cancel()
            if not body.done():
                body.cancel()
            await asyncio.gather(body, listener, return_exceptions=True)
        if not body.cancelled() and (error := body.exception()) is not None:
            raise error

    async def _stream(self, scope: Scope, receive: Receive, send: Send, line: Line) -> None:
        frames = self._frames()
        assert isinstance(frames, AsyncGenerator), "Frames are a generator. This is a bug."
        try:
            async with aclosing(cast("AsyncGenerator[bytes]", frames)) as opened:
                async for frame in opened:
                    try:
                        if not line.has_begun:
                            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                            line.has_begun = True
                        await line.put(frame)
                        await asyncio.sleep(0)
                    except asyncio.CancelledError as cancelled:
                        with suppress(StopAsyncIteration):
                            await opened.athrow(cancelled)  # where they have a deadline, it may be that: they know
                        raise
        except Exception as error:
            if not line.has_begun:
                await self._on_refusal(error)(scope, receive, send)
                return
            await line.put(self._on_error(error))
        await line.put(b"", is_last=True)

    def _due_s(self, line: Line) -> float:
        """How long until something must be said, or the client is given up."""
        limit_s = self._stalled_s if line.is_stuck else self._keep_alive_s
        return line.since_s + limit_s - asyncio.get_running_loop().time()

    def _pause_s(self, line: Line) -> float:
        shortest_s = min(self._keep_alive_s, self._stalled_s)
        return max(0.0, min(self._due_s(line), shortest_s)) if line.has_begun else shortest_s

    async def _is_heard(self, line: Line) -> bool:
        """Break a silence; False when the client has left what was sent unread for too long."""
        if not line.has_begun or self._due_s(line) > 0:
            return True
        if not line.is_stuck:
            try:
                async with asyncio.timeout(self._stalled_s):
                    await line.put(KEEP_ALIVE)
            except TimeoutError:
                pass
            else:
                return True
        log.info("a stream ends: its client read nothing for %.0f s", self._stalled_s)
        return False


async def hung_up(receive: Receive) -> None:
    """Returns when the client is gone."""
    while True:
        message: Message | dict[str, Any] = await receive()
        if message["type"] == "http.disconnect":
            return

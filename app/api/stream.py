"""A response that owns its answer's scope: sends events as they come, hears the hang-up, and never goes silent."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, cast

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
LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
"""What JSON lets stand as it is, and what some clients (httpx's `aiter_lines`) take for the end of a line."""


def event(data: str) -> bytes:
    """One server-sent event; `data` is JSON on one line."""
    return f"data: {data.translate(LINE_ENDS)}\n\n".encode()


class SseResponse(Response):
    """Streams `frames()`; a client that hangs up cancels it at its next await, and its scopes clean up in this task.

    `first` is awaited before the headers are sent, so that a request that cannot run is refused with its own status.
    Errors after that are told by `on_error` as the last event. A client that reads nothing for `stalled_s` is treated
    as one that hung up.
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
        body = asyncio.create_task(self._stream(scope, receive, send))
        listener = asyncio.create_task(hung_up(receive))
        try:
            await asyncio.wait((body, listener), return_when=asyncio.FIRST_COMPLETED)
        finally:
            listener.cancel()
            if not body.done():
                body.cancel()
            await asyncio.gather(body, listener, return_exceptions=True)
        if not body.cancelled() and (error := body.exception()) is not None:
            raise error

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        frames = self._frames()
        has_begun = False
        try:
            async with aclosing(paced(frames, self._keep_alive_s)) as pieces:
                async for frame in pieces:
                    if not has_begun:
                        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                        has_begun = True
                    if not await self._is_read(send, frame):
                        return
                    await asyncio.sleep(0)
        except Exception as error:
            if not has_begun:
                await self._on_refusal(error)(scope, receive, send)
                return
            await send({"type": "http.response.body", "body": self._on_error(error), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _is_read(self, send: Send, frame: bytes) -> bool:
        """Send a frame; False when the client has left earlier ones unread for too long."""
        try:
            async with asyncio.timeout(self._stalled_s):
                await send({"type": "http.response.body", "body": frame, "more_body": True})
        except TimeoutError:
            log.info("a stream ends: its client read nothing for %.0f s", self._stalled_s)
            return False
        return True


async def paced(frames: AsyncIterator[bytes], keep_alive_s: float) -> AsyncGenerator[bytes]:
    """The frames, and a comment after each silence. The frames run in one task of their own from begin to end.

    Whoever leaves early closes this, and so the frames: the hang-up may fall between two of them, where they wait in a
    `yield` and hear of no cancellation, and their scopes would stay open until the garbage is collected.
    """
    assert isinstance(frames, AsyncGenerator), "Frames are a generator. This is a bug."
    queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(maxsize=1)

    async def produce() -> None:
        try:
            async with aclosing(cast("AsyncGenerator[bytes]", frames)) as opened:
                async for frame in opened:
                    await queue.put(frame)
        except Exception as error:
            await queue.put(error)
        else:
            await queue.put(None)

    producer = asyncio.create_task(produce())
    has_begun = False
    try:
        while True:
            try:
                # wait_for would swallow a cancellation that comes together with a frame, as it does in a busy stream
                async with asyncio.timeout(keep_alive_s if has_begun else None):
                    found = await queue.get()
            except TimeoutError:
                yield KEEP_ALIVE
                continue
            if isinstance(found, Exception):
                raise found
            if found is None:
                return
            has_begun = True
            yield found
    finally:
        producer.cancel()
        await asyncio.gather(producer, return_exceptions=True)


async def hung_up(receive: Receive) -> None:
    """Returns when the client is gone."""
    while True:
        message: Message | dict[str, Any] = await receive()
        if message["type"] == "http.disconnect":
            return

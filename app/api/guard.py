"""What no request gets past, before any route is asked: header sizes, slow senders, too many connections.

uvicorn's protocol has none of these limits, and a middleware comes too late: a request whose headers never end never
reaches one. So the protocol itself is narrowed.
"""

import json
from asyncio import TimerHandle, Transport
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.api.joined import JoinedWrites
from app.api.settings import ApiSettings


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a connection may do."""

    connections_max: int
    header_bytes_max: int
    headers_max: int
    header_s: float
    body_s: float


class GuardedProtocol(HttpToolsProtocol):
    """Refuses with a status and closes. `bounds` is set by `guarded`."""

    bounds: ClassVar[Bounds]
    _timer: TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = False
    _is_refused = False

    def connection_made(self, transport: Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See asyncio.Protocol."""
        super().connection_made(JoinedWrites(transport))
        if len(self.connections) > self.bounds.connections_max:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections; try again, or ask another replica")
        else:
            self._give(self.bounds.header_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol. What the parser holds of an unfinished header counts too."""
        if self._is_refused:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._timer is not None and self._is_in_head and self._head_bytes > self.bounds.header_bytes_max:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are larger than this server accepts")

    def on_message_begin(self) -> None:
        """See HttpToolsProtocol."""
        self._is_in_head = True
        self._give(self.bounds.header_s)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See HttpToolsProtocol. What comes after this in the same data is of the body, or of the next request."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._is_in_head, self._head_bytes = False, 0
        if len(self.headers) > self.bounds.headers_max or size > self.bounds.header_bytes_max:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "there are more headers than this server accepts")
            return
        self._give(self.bounds.body_s)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """See HttpToolsProtocol."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """See HttpToolsProtocol."""
        self._disarm()
        if not self._is_refused:
            super().on_message_complete()

    def _give(self, seconds: float) -> None:
        """So long for what comes next."""
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        cycle = cast("RequestResponseCycle | None", self.cycle)
        is_unasked = not self._is_in_head and (cycle is None or cycle.response_started)
        if is_unasked:  # it never began a request, or has its answer
            self.transport.close()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request came too slowly")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer in the one envelope, and close."""
        self._is_refused = True
        self._disarm()
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": status.name.lower()}
        body = json.dumps({"error": error}).encode()
        retry = "retry-after: 1\r\n" if status is HTTPStatus.SERVICE_UNAVAILABLE else ""
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n{retry}"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def guarded(settings: ApiSettings) -> type[GuardedProtocol]:
    """The protocol with the settings' bounds."""
    bounds = Bounds(
        connections_max=settings.connections_max, header_bytes_max=settings.header_bytes_max,
        headers_max=settings.headers_max, header_s=settings.header_timeout_s, body_s=settings.body_timeout_s,
    )  # fmt: skip
    return cast("type[GuardedProtocol]", type("BoundedProtocol", (GuardedProtocol,), {"bounds": bounds}))

"""A client's connection to one life of the engine."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

import msgspec

from app.engine.transports.wire import Frames, FromEngine, ToEngine, framed

CREDENTIALS = struct.Struct("3i")
"""Linux's ucred: process, user, group."""


class Link(asyncio.Protocol):
    """One connection to one life of the engine."""

    def __init__(self, receive: Callable[[FromEngine], None], lost: Callable[["Link"], None]) -> None:
        self.ended = asyncio.Event()
        self.has_spoken = True
        """Since this was last set to False."""
        self.is_answered = False
        """Whether anything ever came. A dying engine's socket may still take a connection, and never say a word."""
        self._decoder = msgspec.msgpack.Decoder(FromEngine)
        self._frames = Frames()
        self._receive = receive
        self._lost = lost
        self._transport: asyncio.WriteTransport | None = None
        self._unsent: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's does not derive from it

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._transport = None
        self._unsent.clear()
        self._lost(self)
        self.ended.set()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self.has_spoken = self.is_answered = True
        for body in self._frames.feed(data):
            self._receive(self._decoder.decode(body))

    def send(self, message: ToEngine) -> None:
        """Write one message. Raises OverflowError for a number that 64 bits do not hold.

        What is sent in one turn of the event loop goes in one piece, at the turn's end: jobs that begin together then
        reach the engine together, and the first of them does not begin a step alone.
        """
        found = framed(message)
        if self._transport is None:
            return
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(found)

    def _flush(self) -> None:
        if self._transport is not None and self._unsent:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    @property
    def peer(self) -> int | None:
        """The id of the process at the other end, where the system tells it."""
        held = None if self._transport is None else self._transport.get_extra_info("socket")
        if held is None or not hasattr(socket, "SO_PEERCRED"):
            return None
        found: bytes = held.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        return int(CREDENTIALS.unpack(found)[0])

    def abort(self) -> None:
        """Let go at once."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Let go, once what was sent is written."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

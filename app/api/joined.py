"""A connection's transport that writes once a turn of the event loop: uvicorn writes an answer's head and body apart.

uvloop gives each write to the system at once, and the client's process is woken by each.
"""

import asyncio
from typing import Any

HELD_BYTES_MAX = 2**16
"""Beyond this nothing waits for the turn's end, so that a slow client is noticed while an answer is being made."""


class JoinedWrites(asyncio.Transport):
    """The transport `to`, whose writes of one turn go in one piece, in their order. Closing writes what is held."""

    def __init__(self, to: asyncio.Transport) -> None:
        super().__init__()
        self._to = to
        self._loop = asyncio.get_running_loop()
        self._held: list[bytes | bytearray | memoryview] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See asyncio.WriteTransport."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)
        self._size += len(data)
        if self._size > HELD_BYTES_MAX:
            self._flush()

    def close(self) -> None:
        """See asyncio.BaseTransport."""
        self._flush()
        self._to.close()

    def abort(self) -> None:
        """See asyncio.WriteTransport."""
        self._held.clear()
        self._to.abort()

    def is_closing(self) -> bool:
        """See asyncio.BaseTransport."""
        return self._to.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio.BaseTransport."""
        return self._to.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See asyncio.BaseTransport."""
        self._to.set_protocol(protocol)

    def pause_reading(self) -> None:
        """See asyncio.ReadTransport."""
        self._to.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio.ReadTransport."""
        self._to.resume_reading()

    def _flush(self) -> None:
        held, self._held, self._size = self._held, [], 0
        if held and not self._to.is_closing():
            self._to.write(held[0] if len(held) == 1 else b"".join(held))

"""What the engine's client writes to its socket, and when."""

import asyncio

import msgspec
import pytest

from app.engine.transports.link import Link
from app.engine.transports.wire import CancelJob, Frames, ToEngine

DECODER = msgspec.msgpack.Decoder(ToEngine)


class Written(asyncio.WriteTransport):
    """Keeps what is written, a piece at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[list[ToEngine]] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.pieces.append([DECODER.decode(body) for body in Frames().feed(bytes(data))])

    def close(self) -> None:
        self.is_closed = True


def linked() -> tuple[Link, Written]:
    link, written = Link(lambda message: None, lambda lost: None), Written()
    link.connection_made(written)
    return link, written


@pytest.mark.asyncio
async def test_what_is_sent_in_one_turn_goes_in_one_piece_and_in_its_order() -> None:
    link, written = linked()
    for handle in (1, 2, 3):
        link.send(CancelJob(handle))
    await asyncio.sleep(0)
    link.send(CancelJob(4))
    await asyncio.sleep(0)
    assert written.pieces == [[CancelJob(1), CancelJob(2), CancelJob(3)], [CancelJob(4)]]


@pytest.mark.asyncio
async def test_closing_writes_what_was_sent_before_and_a_lost_link_forgets_it() -> None:
    link, written = linked()
    link.send(CancelJob(1))
    link.close()
    assert written.pieces == [[CancelJob(1)]] and written.is_closed
    link, written = linked()
    link.send(CancelJob(1))
    link.connection_lost(None)
    await asyncio.sleep(0)
    link.send(CancelJob(2))
    await asyncio.sleep(0)
    assert not written.pieces

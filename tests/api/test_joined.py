"""What reaches the system of an answer, and when."""

import asyncio

from app.api.joined import HELD_BYTES_MAX, JoinedWrites


class Socket(asyncio.Transport):
    """Keeps what is written, a piece at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.pieces.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True


async def test_head_and_body_of_one_turn_are_one_piece_and_the_next_turns_another() -> None:
    socket = Socket()
    joined = JoinedWrites(socket)
    joined.write(b"head")
    joined.write(b"body")
    assert not socket.pieces
    await asyncio.sleep(0)
    joined.write(b"more")
    await asyncio.sleep(0)
    assert socket.pieces == [b"headbody", b"more"]


async def test_closing_writes_what_is_held_and_what_was_aborted_or_lost_is_forgotten() -> None:
    socket = Socket()
    joined = JoinedWrites(socket)
    joined.write(b"last")
    joined.close()
    assert socket.pieces == [b"last"] and joined.is_closing()
    aborted, lost = Socket(), Socket()
    for other in (aborted, lost):
        joined = JoinedWrites(other)
        joined.write(b"never read")
        if other is aborted:
            joined.abort()
        else:
            other.close()  # by its peer
        await asyncio.sleep(0)
        assert not other.pieces


async def test_a_large_body_does_not_wait_so_that_its_reader_can_be_waited_for() -> None:
    socket = Socket()
    joined = JoinedWrites(socket)
    joined.write(b"head")
    joined.write(b"x" * HELD_BYTES_MAX)
    assert [len(piece) for piece in socket.pieces] == [4 + HELD_BYTES_MAX]
    await asyncio.sleep(0)
    assert len(socket.pieces) == 1

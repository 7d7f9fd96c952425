"""The streamed response: when its client hangs up, its frames' scopes are left at once, in the task they began in."""

import asyncio
import gc
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import Message

from app.api.stream import SseResponse, event


@pytest.fixture
def _no_collector() -> Iterator[None]:
    """So that nothing is closed by accident."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("blocked_at", [1, 2, 5])
async def test_a_hang_up_while_a_piece_is_being_sent_leaves_the_scopes_of_the_frames(blocked_at: int) -> None:
    tasks: list[Any] = []
    sent = 0
    is_sending = asyncio.Event()

    async def frames() -> AsyncGenerator[bytes]:
        tasks.append(asyncio.current_task())
        try:
            while True:
                yield b"data: x\n\n"
        finally:
            await asyncio.sleep(0)
            tasks.append(asyncio.current_task())

    async def send(message: Message) -> None:
        nonlocal sent
        sent += message["type"] == "http.response.body"
        if sent == blocked_at:
            is_sending.set()
            await asyncio.Event().wait()

    async def receive() -> Message:
        await is_sending.wait()
        return {"type": "http.disconnect"}

    response = SseResponse(
        frames, on_error=lambda _: b"", on_refusal=lambda _: Response(), keep_alive_s=5.0, headers={}
    )  # fmt: skip
    await asyncio.wait_for(response({"type": "http"}, receive, send), 60)
    assert len(tasks) == 2, "the scopes stayed open"
    assert tasks[0] is tasks[1]


def test_an_event_is_one_line_to_clients_that_split_at_every_line_separator() -> None:
    text = json.dumps({"text": "a\u2028b\u2029c\u0085d"}, ensure_ascii=False)
    lines = event(text.encode()).decode().splitlines()
    assert lines[1:] == [""]
    assert json.loads(lines[0].removeprefix("data: ")) == json.loads(text)


async def test_a_deadline_that_passes_while_a_piece_is_being_sent_is_told_as_the_last_event() -> None:
    """It was the frames' own: they turn it into the error that it is, wherever the task was when it struck."""
    sent: list[bytes] = []
    is_free = asyncio.Event()
    deadline = asyncio.timeout(None)

    async def frames() -> AsyncGenerator[bytes]:
        try:
            async with deadline:
                yield b"one"
                yield b"two"
        except TimeoutError as cause:
            raise ValueError("late") from cause

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            sent.append(message["body"])
            if len(sent) == 2:
                deadline.reschedule(asyncio.get_running_loop().time())
                await is_free.wait()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    response = SseResponse(
        frames, on_error=lambda error: str(error).encode(), on_refusal=lambda _: Response(), keep_alive_s=5.0,
        headers={},
    )  # fmt: skip
    await asyncio.wait_for(response({"type": "http"}, receive, send), 60)
    assert sent == [b"one", b"two", b"late", b""]


async def test_comments_and_pieces_leave_one_after_the_other_and_nothing_after_the_end() -> None:
    sent: list[tuple[bytes, bool]] = []
    is_within = False

    async def frames() -> AsyncGenerator[bytes]:
        for _ in range(20):
            await asyncio.sleep(0.002)
            yield b"x"

    async def send(message: Message) -> None:
        nonlocal is_within
        assert not is_within, "two at once"
        is_within = True
        await asyncio.sleep(0.003)
        is_within = False
        if message["type"] == "http.response.body":
            sent.append((message["body"], message["more_body"]))

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    response = SseResponse(
        frames, on_error=lambda _: b"", on_refusal=lambda _: Response(), keep_alive_s=0.001, headers={}
    )  # fmt: skip
    await asyncio.wait_for(response({"type": "http"}, receive, send), 60)
    assert [piece for piece, _ in sent].count(b"x") == 20
    assert b": keep-alive\n\n" in [piece for piece, _ in sent]
    assert sent[-1] == (b"", False)
    assert all(is_more for _, is_more in sent[:-1])

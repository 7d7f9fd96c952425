"""A client that hangs up before its JSON answer ends the work for it, and nothing else."""

import asyncio
from typing import Any

import pytest
from fastapi import Request

from app.api.disconnect import ClientGone, unless_hung_up
from app.errors import EngineLost


class Client:
    """Hangs up when told."""

    def __init__(self) -> None:
        self.hangs_up = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.hangs_up.wait()
        return {"type": "http.disconnect"}

    @property
    def request(self) -> Request:
        return Request({"type": "http", "headers": []}, self.receive)


class Work:
    """Takes until it is let go, and tidies up."""

    def __init__(self, *, fails: Exception | None = None) -> None:
        self.may_end = asyncio.Event()
        self.fails = fails
        self.is_tidy = False

    async def run(self) -> str:
        try:
            await self.may_end.wait()
            if self.fails is not None:
                raise self.fails
            return "done"
        finally:
            await asyncio.sleep(0)
            self.is_tidy = True


async def test_the_result_is_given_and_a_later_hang_up_disturbs_nobody() -> None:
    client, work = Client(), Work()
    work.may_end.set()
    assert await unless_hung_up(client.request, work.run()) == "done"
    client.hangs_up.set()
    for _ in range(3):
        await asyncio.sleep(0)
    found = asyncio.current_task()
    assert found is not None and not found.cancelling()


async def test_a_hang_up_cancels_the_work_and_waits_until_it_has_tidied_up() -> None:
    client, work = Client(), Work()
    asyncio.get_running_loop().call_soon(client.hangs_up.set)
    with pytest.raises(ClientGone):
        await unless_hung_up(client.request, work.run())
    found = asyncio.current_task()
    assert work.is_tidy and found is not None and not found.cancelling()
    await asyncio.sleep(0)


async def test_work_that_answers_its_cancelling_with_another_error_still_has_no_reader() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as cancelled:
            raise EngineLost from cancelled
        return ""

    client = Client()
    asyncio.get_running_loop().call_soon(client.hangs_up.set)
    with pytest.raises(ClientGone):
        await unless_hung_up(client.request, stubborn())


async def test_what_the_work_fails_with_is_raised() -> None:
    client, work = Client(), Work(fails=EngineLost())
    work.may_end.set()
    with pytest.raises(EngineLost):
        await unless_hung_up(client.request, work.run())


async def test_a_caller_that_is_cancelled_by_somebody_else_stays_cancelled() -> None:
    client, work = Client(), Work()
    waiting = asyncio.create_task(unless_hung_up(client.request, work.run()))
    await asyncio.sleep(0)
    client.hangs_up.set()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert work.is_tidy

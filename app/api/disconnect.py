"""The same for JSON answers: uvicorn does not cancel a handler when its client hangs up, so the two are raced."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

from app.api.stream import hung_up

T = TypeVar("T")


class ClientGone(Exception):
    """Nobody is there to read the answer."""


async def unless_hung_up(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled (and awaited) when the client hangs up first. Raises ClientGone then.

    The body must have been read before.
    """
    working = asyncio.ensure_future(work)
    listener = asyncio.create_task(hung_up(request.receive))
    try:
        await asyncio.wait((working, listener), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        listener.cancel()
        if not working.done():
            working.cancel()
        await asyncio.gather(working, listener, return_exceptions=True)

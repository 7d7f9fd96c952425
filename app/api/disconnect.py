"""The same for JSON answers: uvicorn does not cancel a handler when its client hangs up, so somebody has to listen."""

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

    The body must have been read before. The work runs in the caller's own task, so that a refusal costs none.
    """
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task. This is a bug."
    is_gone = is_over = False

    async def listen() -> None:
        nonlocal is_gone
        await hung_up(request.receive)
        if not is_over:
            is_gone = True
            task.cancel()

    listener = asyncio.create_task(listen())
    try:
        found = await work
    except asyncio.CancelledError:
        if not is_gone or task.uncancel() > 0:  # somebody else wants the task to end
            raise
    except Exception:
        if not is_gone:
            raise
        task.uncancel()
    else:
        if not is_gone:
            return found
        task.uncancel()
    finally:
        is_over = True
        listener.cancel()
    raise ClientGone

"""Answers that go out whole: a request's results, in the order of its inputs, and its receipt."""

from typing import Any

from app.admission.authenticate import Principal
from app.metering.ledger import Receipt
from app.serving import Answer, Serving
from app.tasks.task import Task


async def gathered(answer: Answer[Any, Any]) -> tuple[list[Any], Receipt]:
    """What comes of an open request; it is settled then."""
    results = [event async for event in answer.events()]
    receipt = await answer.settle()
    return sorted(results, key=lambda result: result.index), receipt


async def folded(
    serving: Serving, task: Task[Any, Any, Any], asked: Any, *, model: str, principal: Principal, request_id: str,
    route: str,
) -> tuple[list[Any], Receipt]:  # fmt: skip
    """Open a request, and gather."""
    opened = serving.open(task, asked, model=model, principal=principal, request_id=request_id, route=route)
    async with opened as answer:
        return await gathered(answer)

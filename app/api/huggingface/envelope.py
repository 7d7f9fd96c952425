"""What the three dialects share: `{"error", "error_type"}`, the headers with counts and times, and a request's run."""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.admission.authenticate import Principal
from app.api.aliases import model_named
from app.api.disconnect import unless_hung_up
from app.api.errors import answer_of
from app.api.folding import gathered
from app.api.numbers import numbers_response
from app.api.receipts import cost_headers
from app.api.stream import json_event
from app.errors import (
    DeadlineExceeded,
    EngineLost,
    EngineOverloaded,
    InternalError,
    Kind,
    ModelLoading,
    RateLimited,
    TollgateError,
    UnsupportedParameter,
)  # fmt: skip
from app.metering.ledger import Receipt
from app.registry.model import TaskName
from app.serving import Answer, Serving
from app.tasks.task import Prepared, Task

UNPROCESSABLE = 422
TYPES = {Kind.INVALID: "validation", Kind.TOO_LARGE: "validation", Kind.MISMATCH: "validation"}
"""What clients know besides: generation, incomplete_generation, overloaded. Other refusals have no type, because
huggingface_hub takes any that it does not know for a failed generation, and would hide the status."""
LISTED_MAX = 2048
"""What a body may list at most; a model's own limit is tighter, and told by /info as `max_client_batch_size`."""


def type_of(error: TollgateError) -> str | None:
    """TGI's `error_type`, where it has one."""
    if isinstance(error, EngineOverloaded | RateLimited):
        return "overloaded"
    if isinstance(error, EngineLost):
        return "incomplete_generation"
    if isinstance(error, InternalError | DeadlineExceeded):
        return "generation"
    return TYPES.get(error.kind)


def error_json(error: Exception, *, is_capital: bool = False, prefix: str = "") -> dict[str, Any]:
    """The envelope. TEI writes its types with a capital; TGI begins what it says of a bad request with a prefix."""
    known = error if isinstance(error, TollgateError) else InternalError()
    message: str = answer_of(known).body["error"]["message"]
    found = type_of(known)
    body: dict[str, Any] = {"error": (prefix if found == "validation" else "") + message}
    if found is not None:
        body["error_type"] = found.capitalize() if is_capital else found
    if isinstance(known, ModelLoading):
        body["estimated_time"] = float(known.retry_after_s or 1)
    return body


def refusal(error: Exception, *, is_capital: bool = False, prefix: str = "") -> JSONResponse:
    """An error as an answer: the statuses are everybody's, but a bad body is 422 here."""
    answer = answer_of(error)
    status = UNPROCESSABLE if answer.status == 400 else answer.status
    return JSONResponse(error_json(error, is_capital=is_capital, prefix=prefix), status, answer.headers)


def last_event(error: Exception) -> bytes:
    """An error in the middle of a stream."""
    return json_event(error_json(error))


@dataclass(slots=True, kw_only=True)
class Call:
    """A request of these dialects: who asks, what for, and when it came."""

    request: Request
    principal: Principal
    serving: Serving
    request_id: str
    route: str
    began_s: float = field(default_factory=time.perf_counter)
    admitted_s: float = 0.0

    def default_model(self, name: str | None, *tasks: TaskName) -> str:
        """The model of that name, or the catalogue's first that does one of `tasks`. Raises ModelNotFound."""
        for task in tasks[:-1]:
            if name is None and any(task in place.model.tasks for place in self.serving.residency.places):
                return self._named(None, task)
        return self._named(name, tasks[-1])

    def _named(self, name: str | None, task: TaskName) -> str:
        aliases = frozenset(self.request.app.state.settings.api.model_aliases)
        return model_named(name, task, residency=self.serving.residency, principal=self.principal, aliases=aliases)

    @asynccontextmanager
    async def opened(
        self, task: Task[Any, Any, Any], asked: Any, *, model: str, is_streaming: bool = False
    ) -> AsyncGenerator[Answer[Any, Any]]:
        """The road, with the moment noted at which the request was let in."""
        async with self.serving.open(
            task, asked, model=model, principal=self.principal, request_id=self.request_id, route=self.route,
            is_streaming=is_streaming,
        ) as answer:  # fmt: skip
            self.admitted_s = time.perf_counter()
            yield answer

    async def _whole(self, task: Task[Any, Any, Any], asked: Any, model: str) -> tuple[list[Any], Receipt, Prepared]:
        async with self.opened(task, asked, model=model) as answer:
            results, receipt = await gathered(answer)
        return results, receipt, answer.prepared

    async def run(self, task: Task[Any, Any, Any], asked: Any, model: str) -> "Ran":
        """All results in the order of the inputs."""
        results, receipt, prepared = await unless_hung_up(self.request, self._whole(task, asked, model))
        return Ran(results=results, headers=self.headers(receipt, prepared, model), prepared=prepared)

    def headers(self, receipt: Receipt, prepared: Prepared, model: str) -> dict[str, str]:
        """What was counted and how long it took, under the names of TGI and TEI; times in whole milliseconds."""
        now_s = time.perf_counter()
        resident = self.serving.residency.find(model).resident
        inference_ms = (now_s - self.admitted_s) * 1000
        return cost_headers(receipt) | {
            "x-compute-type": "cpu" if resident is None else resident.loaded.device.partition(":")[0],
            "x-compute-time": f"{now_s - self.began_s:.6f}", "x-compute-characters": str(prepared.characters),
            "x-compute-tokens": str(receipt.input_tokens), "x-total-time": str(round((now_s - self.began_s) * 1000)),
            "x-validation-time": str(round((self.admitted_s - self.began_s) * 1000)),
            "x-inference-time": str(round(inference_ms)),
            "x-time-per-token": str(round(inference_ms / max(1, receipt.output_tokens))),
            "x-prompt-tokens": str(receipt.input_tokens), "x-generated-tokens": str(receipt.output_tokens),
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A request that is done."""

    results: list[Any]
    headers: dict[str, str]
    prepared: Prepared

    def answer(self, body: Any, **more: str) -> Response:
        """`body` with the headers."""
        return numbers_response(body, self.headers | more)


def refuse_given(what: str, **given: Any) -> None:
    """Raises UnsupportedParameter for the first of these fields that was sent and says something."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise UnsupportedParameter(f"{name} is not supported by {what}; leave it out", field=name)

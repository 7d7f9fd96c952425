"""text-generation-inference's routes: POST /, /generate and /generate_stream, GET /info.

Like TGI the text holds the stop sequence that ended it, and `/` begins with the prompt unless told not to. Unlike TGI
log-probabilities are the model's own, before temperature and cuts; there are no watermarks, grammars and adapters.
"""

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app import __version__
from app.api.body import read_body
from app.api.context import Caller, RequestId, Rooms
from app.api.dialect import route_in
from app.api.disconnect import unless_hung_up
from app.api.document import body_schema
from app.api.huggingface.envelope import Call, last_event, refusal
from app.api.huggingface.tgi_bodies import (
    BEST_OF_MAX,
    STOPS_MAX,
    CompatBody,
    GenerateBody,
    Parameters,
    request_of,
)
from app.api.stream import STREAMED, SseResponse, json_event
from app.engine.events import FinishReason
from app.errors import EngineLost
from app.registry.model import TaskName
from app.registry.residency import Place
from app.serving import Answer
from app.tasks.generation import Generation, PromptScores, TextDelta, TextDone, TokenScore

PREFIX = "Input validation error: "


def refused(error: Exception) -> Response:
    """TGI's own words before what is wrong with a body."""
    return refusal(error, prefix=PREFIX)


@dataclass(slots=True)
class Folded:
    """One continuation as it grows."""

    text: str = ""
    prefill: list[TokenScore] = field(default_factory=list[TokenScore])
    scores: list[TokenScore] = field(default_factory=list[TokenScore])
    done: TextDone | None = None

    def take(self, found: PromptScores | TextDelta | TextDone) -> None:
        """The next event; the text ends with its stop sequence."""
        match found:
            case PromptScores():
                self.prefill += found.scores
            case TextDelta():
                self.text += found.text
                self.scores += found.scores
            case TextDone():
                self.text += found.stop or ""
                self.done = found

    @property
    def mean_logprob(self) -> float:
        """By which `best_of` chooses."""
        return sum(score.logprob or 0.0 for score in self.scores) / max(1, len(self.scores))


def reason_of(done: TextDone | None) -> str:
    """TGI's word. A row that its server ended has no sound end: raises EngineLost."""
    if done is None or (done.reason is FinishReason.CANCELLED and done.cause is None):
        raise EngineLost("The request was ended by the server.")
    if done.reason is FinishReason.STOP:
        return "eos_token" if done.stop is None else "stop_sequence"
    return "length"


def token_json(score: TokenScore, eos_ids: frozenset[int], text: str | None = None) -> dict[str, Any]:
    """A token; one that ends the text is special and shows its name."""
    is_special = score.token_id in eos_ids
    shown = score.text if text is None or is_special else text
    return {"id": score.token_id, "text": shown, "logprob": score.logprob, "special": is_special}


def top_json(score: TokenScore, eos_ids: frozenset[int]) -> list[dict[str, Any]]:
    """The most probable tokens in its place."""
    return [
        {"id": token_id, "text": text, "logprob": logprob, "special": token_id in eos_ids}
        for token_id, (text, logprob) in zip(score.top_ids, score.top, strict=True)
    ]


def sequence_json(one: Folded, asked: Parameters, seed: int | None, eos_ids: frozenset[int]) -> dict[str, Any]:
    """The details of one continuation."""
    return {
        "finish_reason": reason_of(one.done), "generated_tokens": len(one.scores), "seed": seed,
        "prefill": [{"id": s.token_id, "text": s.text, "logprob": s.logprob} for s in one.prefill],
        "tokens": [token_json(score, eos_ids) for score in one.scores],
        "top_tokens": [top_json(score, eos_ids) for score in one.scores] if asked.top_n_tokens else None,
    }  # fmt: skip


class Generated:
    """One request of this dialect on its way."""

    def __init__(
        self, call: Call, model: str, prompts: tuple[str, ...], asked: Parameters, *, is_streaming: bool,
        is_full: bool,
    ) -> None:  # fmt: skip
        self._call = call
        self._model = model
        self._asked = asked
        self._request = request_of(prompts, asked, is_streaming=is_streaming)
        self._is_streaming = is_streaming
        self._is_full = is_full if asked.return_full_text is None else asked.return_full_text

    def _open(self) -> AbstractAsyncContextManager[Answer[Any, Any]]:
        return self._call.opened(Generation(), self._request, model=self._model, is_streaming=self._is_streaming)

    def _lead(self, prompt: int) -> str:
        text = self._request.prompts[prompt]
        return text if self._is_full and isinstance(text, str) else ""

    async def whole(self) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """Each prompt's answer, and the headers."""
        choices = self._request.choices
        found: list[Folded] = [Folded() for _ in range(len(self._request.prompts) * choices)]
        async with self._open() as answer:
            async for one in answer.events():
                index: int = one.index
                found[index].take(one)
            eos_ids = answer.prepared.eos_ids
            shown = [
                self._answer(place, found[place * choices : (place + 1) * choices], eos_ids)
                for place in range(len(self._request.prompts))
            ]
            receipt = await answer.settle()
        return shown, self._call.headers(receipt, answer.prepared, self._model)

    def _answer(self, place: int, drawn: list[Folded], eos_ids: frozenset[int]) -> dict[str, Any]:
        drawn = sorted(drawn, key=lambda one: -one.mean_logprob) if len(drawn) > 1 else drawn
        lead, seed = self._lead(place), self._request.sampling.seed
        reason_of(drawn[0].done)
        shown: dict[str, Any] = {"generated_text": lead + drawn[0].text}
        if not self._asked.details:
            return shown
        details = sequence_json(drawn[0], self._asked, seed, eos_ids)
        if len(drawn) > 1:
            details["best_of_sequences"] = [
                {"generated_text": lead + other.text} | sequence_json(other, self._asked, seed, eos_ids)
                for other in drawn[1:]
            ]
        return shown | {"details": details}

    async def frames(self) -> AsyncIterator[bytes]:
        """An event a token; the last one waits for the end, to tell the whole text. It leaves when all is settled."""
        one, held, index = Folded(), "", 0
        async with self._open() as answer:
            async for found in answer.events():
                one.take(found)
                if isinstance(found, TextDelta):
                    count = len(found.scores) - found.is_last
                    for score, piece in zip(found.scores[:count], found.pieces[:count], strict=True):
                        index += 1
                        yield self._token(score, held + piece, index, answer)
                        held = ""
                    held += "".join(found.pieces[count:]) if found.scores else found.text
                elif isinstance(found, TextDone):
                    reason = reason_of(found)
                    receipt = await answer.settle()
                    details = {
                        "finish_reason": reason, "generated_tokens": receipt.output_tokens,
                        "input_length": receipt.input_tokens, "seed": self._request.sampling.seed,
                    }  # fmt: skip
                    last = {"generated_text": self._lead(0) + one.text, "details": details}
                    text = held + (found.stop or "")
                    yield self._token(one.scores[-1], text, receipt.output_tokens, answer, last)

    def _token(
        self, score: TokenScore, text: str, index: int, answer: Answer[Any, Any], last: dict[str, Any] | None = None
    ) -> bytes:
        eos_ids = answer.prepared.eos_ids
        shown: dict[str, Any] = {"index": index, "token": token_json(score, eos_ids, text)}
        if self._asked.top_n_tokens:
            shown["top_tokens"] = top_json(score, eos_ids)
        return json_event(shown | (last or {"generated_text": None, "details": None}))


def streamed(call: Call, generated: Generated) -> SseResponse:
    """The stream as an answer."""
    return SseResponse(
        generated.frames, on_error=last_event, on_refusal=refused, headers={"x-request-id": call.request_id},
        keep_alive_s=call.request.app.state.settings.api.keep_alive_s,
    )  # fmt: skip


async def compat(call: Call, model: str, body: CompatBody) -> Response:
    """What `/` and `/models/{id}` answer: a list, a list of lists for several prompts, or a stream."""
    prompts = (body.inputs,) if isinstance(body.inputs, str) else tuple(body.inputs)
    is_streaming = body.stream and len(prompts) == 1
    generated = Generated(call, model, prompts, body.parameters, is_streaming=is_streaming, is_full=True)
    if is_streaming:
        return streamed(call, generated)
    shown, headers = await unless_hung_up(call.request, generated.whole())
    found = shown if isinstance(body.inputs, str) else [[one] for one in shown]
    return Response(json.dumps(found, ensure_ascii=False), headers=headers, media_type="application/json")


router = APIRouter(tags=["huggingface"], route_class=route_in(refused))


@router.post("/", openapi_extra=body_schema(CompatBody), responses=STREAMED, summary="Continue a text (TGI)")
async def root(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> Response:
    """A list with the whole text, or a stream of tokens, of the default generation model."""
    call = Call(request=request, principal=principal, serving=serving, request_id=request_id, route="/")
    body = await read_body(request, CompatBody)
    return await compat(call, call.default_model(body.model, TaskName.GENERATION), body)


@router.post("/generate", openapi_extra=body_schema(GenerateBody), summary="Continue a text (TGI)")
async def generate(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> Response:
    """The new text, with details if they are wanted."""
    call = Call(request=request, principal=principal, serving=serving, request_id=request_id, route="/generate")
    body = await read_body(request, GenerateBody)
    model = call.default_model(body.model, TaskName.GENERATION)
    generated = Generated(call, model, (body.inputs,), body.parameters, is_streaming=False, is_full=False)
    shown, headers = await unless_hung_up(request, generated.whole())
    return Response(json.dumps(shown[0], ensure_ascii=False), headers=headers, media_type="application/json")


@router.post(
    "/generate_stream",
    openapi_extra=body_schema(GenerateBody),
    responses=STREAMED,
    summary="Continue a text, streamed (TGI)",
)
async def generate_stream(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> Response:
    """An event a token; the last one holds the whole text."""
    call = Call(request=request, principal=principal, serving=serving, request_id=request_id, route="/generate_stream")
    body = await read_body(request, GenerateBody)
    model = call.default_model(body.model, TaskName.GENERATION)
    return streamed(call, Generated(call, model, (body.inputs,), body.parameters, is_streaming=True, is_full=False))


def info_json(place: Place) -> dict[str, Any]:
    """What TGI and TEI tell of a model; null where nothing is known before it is loaded."""
    model, resident = place.model, place.resident
    positions = None if resident is None else resident.loaded.positions_max
    return {
        "model_id": model.id, "model_sha": getattr(model.source, "revision", None),
        "model_pipeline_tag": model.tasks[0].value,
        "model_dtype": model.precision.value if resident is None else resident.loaded.precision.value,
        "model_device_type": None if resident is None else resident.loaded.device, "tasks": list(model.tasks),
        "max_concurrent_requests": None, "max_best_of": BEST_OF_MAX, "max_stop_sequences": STOPS_MAX,
        "max_input_tokens": positions, "max_input_length": positions, "max_total_tokens": positions,
        "validation_workers": 1, "max_client_batch_size": model.limits.batch_inputs_max, "router": "tollgate",
        "version": __version__, "sha": None, "docker_label": None,
    }  # fmt: skip


@router.get("/info", summary="Describe the default model (TGI, TEI)")
async def info(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> dict[str, Any]:
    """The default generation model, or the first one there is."""
    call = Call(request=request, principal=principal, serving=serving, request_id=request_id, route="/info")
    tasks = (TaskName.GENERATION, TaskName.EMBEDDING, TaskName.CLASSIFICATION)
    return info_json(serving.residency.find(call.default_model(None, *tasks)))

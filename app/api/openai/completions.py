"""OpenAI's completions, JSON and SSE, as their clients send and read them."""

import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.admission.authenticate import Principal
from app.api.body import read_body
from app.api.context import Caller, RequestId, Rooms
from app.api.disconnect import unless_hung_up
from app.api.errors import answer_of
from app.api.native import schema
from app.api.receipts import cost_headers
from app.api.stream import SseResponse, event
from app.engine.events import FinishReason
from app.engine.jobs import Sampling
from app.errors import EngineLost, InvalidRequest, UnsupportedParameter
from app.metering.ledger import Receipt
from app.serving import Serving
from app.tasks.generation import (
    Generation,
    GenerationRequest,
    PreparedGeneration,
    Prompt,
    PromptScores,
    TextDelta,
    TextDone,
    TokenScore,
)
from app.text.truncation import Truncate

ROUTE = "/v1/completions"
STOPS_MAX = 4
Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class StreamOptions(BaseModel):
    """What else a stream tells."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class CompletionBody(BaseModel):
    """A prompt to continue. Fields that are not named here are ignored, as OpenAI's clients expect."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"model": "starter-stories", "prompt": "Once upon a time", "max_tokens": 40}]},
    )

    model: str = Field(description="Which model; GET /v1/models lists them.")
    prompt: str | Ids | Annotated[list[str] | list[Ids], Field(min_length=1)] = Field(
        description="A text, token ids, or a list of either."
    )
    max_tokens: int | None = Field(
        default=16, ge=0, le=1_000_000, description="At most so many new tokens; 0 with echo."
    )
    temperature: float | None = Field(default=1.0, ge=0, le=2, description="0 always takes the most probable token.")
    top_p: float | None = Field(default=1.0, gt=0, le=1, description="Draw from the most probable tokens up to this.")
    top_k: int | None = Field(default=0, ge=-1, le=1_000_000, description="Draw from so many tokens; 0 from all.")
    n: int | None = Field(default=1, ge=1, le=16, description="Continuations of each prompt.")
    best_of: int | None = Field(default=None, ge=1, le=16, description="Only as n.")
    stream: bool | None = Field(default=False, description="Send text as it comes, as server-sent events.")
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = Field(default=None, description="Up to four texts that end a continuation.")
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63, description="The same seed draws the same text.")
    logprobs: int | None = Field(default=None, ge=0, le=5, description="Report so many most probable tokens.")
    echo: bool | None = Field(default=False, description="Begin with the prompt.")
    suffix: str | None = None
    presence_penalty: float | None = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=0.0, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=1.0, gt=0, le=10, description="Above 1 avoids repeating.")
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(default=None, max_length=1024)
    ignore_eos: bool | None = False
    truncate: Truncate = Field(default=Truncate.ERROR, description="What to do with a prompt that is too long.")


def request_of(body: CompletionBody) -> GenerationRequest:
    """The body in our words. Raises UnsupportedParameter or InvalidRequest naming the field."""
    if body.suffix:
        raise UnsupportedParameter("suffix is not supported by these models; leave it out", field="suffix")
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise UnsupportedParameter("best_of is only supported when it equals n", field="best_of")
    if body.max_tokens == 0 and not body.echo:
        raise InvalidRequest("max_tokens is at least 1 unless echo is set", field="max_tokens")
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if len(stops) > STOPS_MAX or any(not stop for stop in stops):
        raise InvalidRequest(f"stop takes one to {STOPS_MAX} texts, none of them empty", field="stop")
    try:
        bias = tuple((int(token), value) for token, value in (body.logit_bias or {}).items())
    except ValueError as cause:
        raise InvalidRequest("logit_bias maps token ids to numbers", field="logit_bias") from cause
    seed = body.seed
    sampling = Sampling(
        temperature=or_default(body.temperature, 1.0), top_p=or_default(body.top_p, 1.0),
        top_k=max(0, body.top_k or 0), repetition_penalty=or_default(body.repetition_penalty, 1.0),
        presence_penalty=body.presence_penalty or 0.0, frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=bias, seed=None if seed is None else seed % 2**63,
    )  # fmt: skip
    return GenerationRequest(
        prompts=prompts_of(body), output_tokens_max=body.max_tokens, sampling=sampling, stops=stops,
        choices=body.n or 1, logprobs=body.logprobs,
        prompt_logprobs=body.logprobs if body.echo else None, ignore_eos=bool(body.ignore_eos), truncate=body.truncate,
    )  # fmt: skip


def or_default(value: float | None, default: float) -> float:
    """A null is as good as nothing."""
    return default if value is None else value


def prompts_of(body: CompletionBody) -> tuple[Prompt, ...]:
    """The four forms of a prompt as one."""
    prompt = body.prompt
    if isinstance(prompt, str):
        return (prompt,)
    if isinstance(prompt[0], int):
        return (tuple(token for token in prompt if isinstance(token, int)),)
    return tuple(one if isinstance(one, str) else tuple(one) for one in prompt if not isinstance(one, int))


class Choice:
    """One continuation as it grows; its logprobs in OpenAI's form."""

    def __init__(self, index: int, text: str) -> None:
        self.index = index
        self.text = text
        self.scores: list[TokenScore] = []
        self.done: TextDone | None = None

    def as_json(self, *, has_logprobs: bool) -> dict[str, Any]:
        """The finished choice."""
        logprobs = logprobs_json(self.scores, 0) if has_logprobs else None
        return choice_json(self.index, self.text, reason_of(self.done), logprobs) | cause_json(self.done)


def choice_json(index: int, text: str, finish_reason: str | None, logprobs: dict[str, Any] | None) -> dict[str, Any]:
    """A choice on the wire."""
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def cause_json(done: TextDone | None) -> dict[str, str]:
    """Why a text ends before its length, when it is the budget's doing."""
    return {} if done is None or done.cause is None else {"cause": done.cause}


def reason_of(done: TextDone | None) -> str | None:
    """OpenAI's word. A row that was cancelled by somebody else has no sound end: raises EngineLost."""
    if done is not None and done.reason is FinishReason.CANCELLED:
        raise EngineLost("The request was ended by the server.")
    return None if done is None else done.reason.value


def logprobs_json(scores: list[TokenScore], offset: int) -> dict[str, Any]:
    """OpenAI's completions logprobs: parallel lists over tokens. The chosen token is always among its `top`.

    Of several ids with the same text the most probable one counts: the largest number in `top_logprobs` is the best's.
    """
    offsets: list[int] = []
    for score in scores:
        offsets.append(offset)
        offset += len(score.text)
    return {
        "tokens": [score.text for score in scores],
        "token_logprobs": [score.logprob for score in scores],
        "top_logprobs": [top_json(score) for score in scores],
        "text_offset": offsets,
    }


def top_json(score: TokenScore) -> dict[str, float] | None:
    """The most probable tokens and the chosen one; null for a prompt's first token."""
    return None if score.logprob is None else {score.text: score.logprob} | dict(reversed(score.top))


def usage_json(receipt: Receipt) -> dict[str, Any]:
    """OpenAI's usage, and what it cost."""
    return {
        "prompt_tokens": receipt.input_tokens,
        "completion_tokens": receipt.output_tokens,
        "total_tokens": receipt.input_tokens + receipt.output_tokens,
        "cost_nano": receipt.cost_nano,
        "currency": receipt.currency,
    } | ({} if receipt.balance_nano is None else {"balance_nano": receipt.balance_nano})


class Completion:
    """One request for completions on its way."""

    def __init__(self, serving: Serving, body: CompletionBody, principal: Principal, request_id: str) -> None:
        self._serving = serving
        self._body = body
        self._asked = request_of(body)
        self._principal = principal
        self._id = request_id
        self._head = {
            "id": "cmpl-" + request_id, "object": "text_completion", "created": int(time.time()), "model": body.model,
        }  # fmt: skip

    def _open(self):
        return self._serving.open(
            Generation(), self._asked, model=self._body.model, principal=self._principal, request_id=self._id,
            route=ROUTE, is_streaming=bool(self._body.stream),
        )  # fmt: skip

    def _echo(self, index: int, prepared: PreparedGeneration) -> str:
        if not self._body.echo:
            return ""
        prompt = self._asked.prompts[index // self._asked.choices]
        return prompt if isinstance(prompt, str) else prepared.tokenizer.decode(prompt)

    async def whole(self) -> JSONResponse:
        """The answer as one JSON object."""
        count = len(self._asked.prompts) * self._asked.choices
        async with self._open() as answer:
            choices = [Choice(index, self._echo(index, answer.prepared)) for index in range(count)]
            async for found in answer.events():
                choice = choices[found.index]
                if isinstance(found, PromptScores):
                    choice.scores += found.scores
                elif isinstance(found, TextDelta):
                    choice.text += found.text
                    choice.scores += found.scores
                else:
                    choice.done = found
            has_logprobs = self._asked.logprobs is not None
            shown = [choice.as_json(has_logprobs=has_logprobs) for choice in choices]
            receipt = await answer.settle()
        return JSONResponse(
            self._head | {"choices": shown, "usage": usage_json(receipt)}, headers=cost_headers(receipt)
        )

    async def frames(self) -> AsyncIterator[bytes]:
        """The answer as server-sent events. The entry is committed before the last chunk leaves."""
        offsets: dict[int, int] = {}
        ended = 0
        count = len(self._asked.prompts) * self._asked.choices
        async with self._open() as answer:
            if self._body.echo:
                for index in range(count):
                    yield self._chunk([choice_json(index, self._echo(index, answer.prepared), None, None)])
            async for found in answer.events():
                if not isinstance(found, TextDone):
                    offset = offsets.get(found.index, 0)
                    offsets[found.index] = offset + sum(len(score.text) for score in found.scores)
                    logprobs = logprobs_json(list(found.scores), offset) if found.scores else None
                    text = found.text if isinstance(found, TextDelta) else ""
                    yield self._chunk([choice_json(found.index, text, None, logprobs)])
                    continue
                ended += 1
                last = choice_json(found.index, "", reason_of(found), None) | cause_json(found)
                if ended < count:
                    yield self._chunk([last])
                    continue
                receipt = await answer.settle()
                yield self._chunk([last])
                if self._body.stream_options is not None and self._body.stream_options.include_usage:
                    yield event(json.dumps(self._head | {"choices": [], "usage": usage_json(receipt)}))
        yield event("[DONE]")

    def _chunk(self, choices: list[dict[str, Any]]) -> bytes:
        return event(json.dumps(self._head | {"choices": choices}, ensure_ascii=False))


def refusal(error: Exception) -> Response:
    """An error before the first byte, with its status."""
    answer = answer_of(error)
    return JSONResponse(answer.body, answer.status, answer.headers)


def last_event(error: Exception) -> bytes:
    """An error in the middle of a stream: the openai client raises it, others see why the text ends."""
    return event(json.dumps(answer_of(error).body))


router = APIRouter(prefix="/v1", tags=["openai"])


@router.post("/completions", openapi_extra=schema(CompletionBody), summary="Continue a text")
async def completions(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> Response:
    """Text that continues the prompt: whole, or streamed as it comes."""
    body = await read_body(request, CompletionBody)
    completion = Completion(serving, body, principal, request_id)
    if body.stream:
        return SseResponse(
            completion.frames, on_error=last_event, on_refusal=refusal, headers={"x-request-id": request_id},
            keep_alive_s=request.app.state.settings.api.keep_alive_s,
        )  # fmt: skip
    return await unless_hung_up(request, completion.whole())

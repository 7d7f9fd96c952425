"""A generation on its way to a client, whole or streamed: the same loop for completions and chat, which dress it."""

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app.admission.authenticate import Principal
from app.api.disconnect import unless_hung_up
from app.api.openai.envelope import DONE, cost_json, counts_json, fingerprint, last_event, refusal, usage_json
from app.api.openai.sampling import SamplingBody, StreamOptions
from app.api.receipts import cost_headers
from app.api.stream import SseResponse, json_event
from app.engine.events import FinishReason
from app.errors import EngineLost
from app.metering.ledger import Receipt
from app.serving import Answer, Serving
from app.tasks.generation import (
    Generation,
    GenerationRequest,
    PreparedGeneration,
    PromptScores,
    TextDelta,
    TextDone,
    TokenScore,
)  # fmt: skip

B = TypeVar("B", bound=SamplingBody)


class Growing:
    """One choice as it grows."""

    def __init__(self, index: int, prompt_ids: tuple[int, ...], echo: str) -> None:
        self.index = index
        self.prompt_ids = prompt_ids
        self.echo = echo
        self.text = ""
        self.ids: list[int] = []
        self.prompt_scores: list[TokenScore] = []
        self.scores: list[TokenScore] = []
        self.shown = 0
        """Characters whose tokens' log-probabilities have left, in a stream."""
        self.done: TextDone | None = None

    @property
    def finish_reason(self) -> str | None:
        """OpenAI's word. A row that was cancelled by somebody else has no sound end: raises EngineLost."""
        if self.done is not None and self.done.reason is FinishReason.CANCELLED:
            raise EngineLost("The request was ended by the server.")
        return None if self.done is None else self.done.reason.value

    def end_json(self) -> dict[str, Any]:
        """What stopped the text, as vLLM tells it, and why it is short when the budget or the caller ended it."""
        if self.done is None:
            return {}
        stop = self.done.stop if self.done.stop is not None else self.done.stop_id
        return {"stop_reason": stop} | ({} if self.done.cause is None else {"cause": self.done.cause})

    @property
    def mean_logprob(self) -> float:
        """By which the best of several is chosen: the log-probability of a token, on average."""
        known = [score.logprob for score in self.scores if score.logprob is not None]
        return sum(known) / max(1, len(known))


@dataclass(slots=True, kw_only=True)
class Generating(ABC, Generic[B]):
    """One request; a dialect says what its objects look like."""

    ROUTE: ClassVar[str]
    OBJECT: ClassVar[str]
    CHUNK: ClassVar[str]
    PREFIX: ClassVar[str]

    serving: Serving
    body: B
    asked: GenerationRequest
    model: str
    principal: Principal
    request_id: str
    returned: int
    """Choices of each prompt that are shown: the best of those asked for."""
    streams_prompt: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    _fingerprint: str = field(default="", init=False)

    @property
    def is_streaming(self) -> bool:
        """Whether text is to leave as it comes."""
        return bool(self.body.stream)

    @property
    def tells_ids(self) -> bool:
        """Whether the ids of prompt and text are to be told."""
        return bool(self.body.return_token_ids)

    @property
    def options(self) -> StreamOptions:
        """What else a stream tells."""
        return self.body.stream_options or StreamOptions()

    @abstractmethod
    def whole_json(self, choice: Growing) -> dict[str, Any]:
        """A finished choice."""

    @abstractmethod
    def opening(self, choice: Growing) -> dict[str, Any] | None:
        """The choice of its first chunk, before any text; None for no such chunk."""

    @abstractmethod
    def piece(self, choice: Growing, text: str, scores: Sequence[TokenScore]) -> dict[str, Any]:
        """The choice of a chunk with new text."""

    @abstractmethod
    def ending(self, choice: Growing) -> dict[str, Any]:
        """The choice of its last chunk."""

    def echo(self, index: int, prepared: PreparedGeneration) -> str:
        """What a choice's text begins with."""
        return ""

    def _open(self):
        return self.serving.open(
            Generation(), self.asked, model=self.model, principal=self.principal, request_id=self.request_id,
            route=self.ROUTE, is_streaming=self.is_streaming,
        )  # fmt: skip

    def _head(self, kind: str) -> dict[str, Any]:
        """What all of its objects begin with."""
        if not self._fingerprint:
            self._fingerprint = fingerprint(self.serving.residency.find(self.model).model)
        return {
            "id": self.PREFIX + self.request_id, "object": kind, "created": self.created, "model": self.model,
            "system_fingerprint": self._fingerprint,
        }  # fmt: skip

    def _choices(self, prepared: PreparedGeneration) -> list[Growing]:
        return [Growing(index, job.ids, self.echo(index, prepared)) for index, job in enumerate(prepared.jobs)]

    def _best(self, choices: list[Growing]) -> list[Growing]:
        """Of each prompt's choices those that are shown, numbered anew."""
        made, shown = self.asked.choices, self.returned
        if made == shown:
            return choices
        kept: list[Growing] = []
        for start in range(0, len(choices), made):
            group = sorted(choices[start : start + made], key=lambda choice: -choice.mean_logprob)
            kept += group[:shown]
        for index, choice in enumerate(kept):
            choice.index = index
        return kept

    async def whole(self) -> JSONResponse:
        """The answer as one JSON object."""
        async with self._open() as answer:
            choices = self._choices(answer.prepared)
            async for found in answer.events():
                choice = choices[found.index]
                match found:
                    case PromptScores():
                        choice.prompt_scores += found.scores
                    case TextDelta():
                        choice.text += found.text
                        choice.scores += found.scores
                        choice.ids += found.ids
                    case TextDone():
                        choice.done = found
            shown = [self.whole_json(choice) | self._ids_json(choice) for choice in self._best(choices)]
            receipt = await answer.settle()
            usage = usage_json(receipt, cached_tokens=answer.cached_tokens)
        return JSONResponse(self._head(self.OBJECT) | {"choices": shown, "usage": usage}, headers=cost_headers(receipt))

    def _ids_json(self, choice: Growing) -> dict[str, Any]:
        return {"prompt_token_ids": choice.prompt_ids, "token_ids": choice.ids} if self.tells_ids else {}

    async def frames(self) -> AsyncIterator[bytes]:
        """The answer as server-sent events. The entry is committed before the last chunk leaves."""
        async with self._open() as answer:
            choices = self._choices(answer.prepared)
            if not self.streams_prompt:
                for choice in choices:
                    if (first := self.opening(choice)) is not None:
                        yield self._chunk([first | self._first_ids(choice)], answer)
            ended, receipt = 0, None
            async for found in answer.events():
                choice = choices[found.index]
                match found:
                    case PromptScores():
                        choice.prompt_scores += found.scores
                        if len(choice.prompt_scores) == len(choice.prompt_ids):
                            first = self.opening(choice) or {}
                            yield self._chunk([first | self._first_ids(choice)], answer)
                    case TextDelta():
                        if found.text or found.scores or (self.tells_ids and found.ids):
                            new = self.piece(choice, found.text, found.scores)
                            more = {"token_ids": found.ids} if self.tells_ids else {}
                            yield self._chunk([new | more], answer)
                    case TextDone():
                        choice.done = found
                        ended += 1
                        last = self.ending(choice)
                        if ended == len(choices):
                            receipt = await answer.settle()
                        yield self._chunk([last], answer, receipt)
            if receipt is not None and self.options.include_usage:
                usage = usage_json(receipt, cached_tokens=answer.cached_tokens)
                yield json_event(self._head(self.CHUNK) | {"choices": [], "usage": usage})
        yield DONE

    def _first_ids(self, choice: Growing) -> dict[str, Any]:
        return {"prompt_token_ids": choice.prompt_ids} if self.tells_ids else {}

    def _chunk(
        self, choices: list[dict[str, Any]], answer: Answer[Any, PreparedGeneration], receipt: Receipt | None = None
    ) -> bytes:
        chunk = self._head(self.CHUNK) | {"choices": choices}
        if self.options.continuous_usage_stats:
            prepared = answer.prepared
            counts = counts_json(prepared.input_tokens, prepared.delivered_tokens, answer.cached_tokens)
            chunk["usage"] = counts if receipt is None else counts | cost_json(receipt)
        elif self.options.include_usage:
            chunk["usage"] = None
        return json_event(chunk)

    async def respond(self, request: Request) -> Response:
        """Whole, or streamed as it comes."""
        if not self.is_streaming:
            return await unless_hung_up(request, self.whole())
        return SseResponse(
            self.frames, on_error=last_event, on_refusal=refusal, headers={"x-request-id": self.request_id},
            keep_alive_s=request.app.state.settings.api.keep_alive_s,
        )  # fmt: skip

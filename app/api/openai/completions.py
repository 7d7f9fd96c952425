"""POST /v1/completions: prompts continued, JSON and SSE, as the clients of OpenAI and vLLM and lm-eval send them."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field
from starlette.responses import Response

from app.api.body import read_body
from app.api.context import Caller, RequestId, Rooms
from app.api.document import body_schema
from app.api.openai.envelope import model_of
from app.api.openai.generating import Generating, Growing
from app.api.openai.sampling import TOKENS_MAX, SamplingBody, request_of
from app.api.stream import STREAMED
from app.engine.jobs import BeamSearch
from app.errors import InvalidRequest, UnsupportedParameter
from app.registry.model import TaskName
from app.tasks.generation import GenerationRequest, PreparedGeneration, TokenScore
from app.tasks.prompts import Prompt

LOGPROBS_MAX = 20
OUTPUT_TOKENS = 16
MINUS_INFINITY = -9999.0
"""JSON has no infinity; vLLM writes this."""
Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class CompletionBody(SamplingBody):
    """A prompt to continue. Fields that are not named here are ignored, as OpenAI's clients expect."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"model": "starter-stories", "prompt": "Once upon a time", "max_tokens": 40}]},
    )

    prompt: str | Ids | Annotated[list[str] | list[Ids], Field(min_length=1)] | None = Field(
        default=None,
        description="A text, token ids, or a list of either; null lets the model begin by itself. Ids are read as they "
        "are, with nothing added.",
    )
    max_tokens: int | None = Field(
        default=OUTPUT_TOKENS, ge=0, le=TOKENS_MAX, description="At most so many new tokens; 0 only reads the prompt."
    )
    best_of: int | None = Field(default=None, ge=1, le=20, description="Make so many and show the n most probable.")
    logprobs: int | None = Field(default=None, ge=0, le=LOGPROBS_MAX, description="Report so many probable tokens.")
    prompt_logprobs: int | None = Field(default=None, ge=0, le=LOGPROBS_MAX, description="The same of the prompt.")
    echo: bool | None = Field(default=False, description="Begin with the prompt.")
    suffix: str | None = None
    add_special_tokens: bool | None = True
    return_tokens_as_token_ids: bool | None = Field(default=False, description="Write tokens as token_id:<id>.")
    use_beam_search: bool | None = Field(default=False, description="Search with best_of beams instead of drawing.")
    length_penalty: float | None = Field(default=1.0, ge=-5, le=5, description="Above 1 favours longer texts (beams).")


def generation_of(body: CompletionBody) -> GenerationRequest:
    """The body in our words. Raises UnsupportedParameter or InvalidRequest naming the field."""
    n, best_of = body.n or 1, body.best_of
    if body.suffix:
        raise UnsupportedParameter("suffix is not supported by these models; leave it out", field="suffix")
    if best_of is not None and best_of < n:
        raise InvalidRequest(f"best_of is {best_of}, but n of them are shown and n is {n}", field="best_of")
    if best_of is not None and best_of > n and body.stream:
        raise InvalidRequest("best_of cannot be streamed: the best is known when all are done", field="best_of")
    if body.max_tokens == 0 and not body.echo and body.prompt_logprobs is None:
        raise InvalidRequest("max_tokens is at least 1 unless echo or prompt_logprobs is set", field="max_tokens")
    if body.prompt_logprobs is not None and body.stream:
        raise InvalidRequest("prompt_logprobs cannot be streamed; use echo with logprobs", field="prompt_logprobs")
    wanted = OUTPUT_TOKENS if body.max_tokens is None else body.max_tokens
    asked = request_of(body, prompts_of(body), wanted)
    of_prompt = [body.logprobs if body.echo else None, body.prompt_logprobs]
    asked = dataclasses.replace(
        asked, logprobs=body.logprobs, adds_special=body.add_special_tokens is not False,
        prompt_logprobs=max((count for count in of_prompt if count is not None), default=None),
    )  # fmt: skip
    if body.use_beam_search:
        return dataclasses.replace(asked, beams=beams_of(body))
    if best_of is not None and best_of > n:
        return dataclasses.replace(asked, choices=best_of, logprobs=body.logprobs or 0)
    return asked


def beams_of(body: CompletionBody) -> BeamSearch:
    """The search. Raises UnsupportedParameter for what goes only with drawing."""
    if (body.n or 1) > 1:
        raise UnsupportedParameter("use_beam_search shows the best text only; n must be 1", field="n")
    if body.logprobs is not None:
        raise UnsupportedParameter("use_beam_search tells no logprobs; leave one of them out", field="logprobs")
    penalty = 1.0 if body.length_penalty is None else body.length_penalty
    return BeamSearch(beams=body.best_of or 1, length_penalty=penalty)


def prompts_of(body: CompletionBody) -> tuple[Prompt, ...]:
    """The forms of a prompt as one."""
    prompt = body.prompt
    if prompt is None or isinstance(prompt, str):
        return (prompt,)
    if isinstance(prompt[0], int):
        return (tuple(token for token in prompt if isinstance(token, int)),)
    return tuple(one if isinstance(one, str) else tuple(one) for one in prompt if not isinstance(one, int))


class Completion(Generating[CompletionBody]):
    """OpenAI's text_completion."""

    ROUTE = "/v1/completions"
    OBJECT = CHUNK = "text_completion"
    PREFIX = "cmpl-"

    def echo(self, index: int, prepared: PreparedGeneration) -> str:
        """The prompt as read: the caller's own text unless it was cut."""
        if not self.body.echo:
            return ""
        place = index // self.asked.choices
        prompt = prepared.prompts[place]
        if isinstance(prompt, str) and not prepared.is_truncated[place]:
            return prompt
        return prepared.tokenizer.decode(prepared.jobs[index].ids, keeps_special=True)

    def whole_json(self, choice: Growing) -> dict[str, Any]:
        """See Generating."""
        scores = [*choice.prompt_scores, *choice.scores] if self.body.echo else choice.scores
        found = self._choice(choice, choice.echo + choice.text, self._logprobs(scores, 0)) | choice.end_json()
        if self.body.prompt_logprobs is not None:
            found["prompt_logprobs"] = [prompt_json(one, self.body.prompt_logprobs) for one in choice.prompt_scores]
        return found

    def opening(self, choice: Growing) -> dict[str, Any] | None:
        """The prompt, where it is to be echoed."""
        if not self.body.echo:
            return None
        return self.piece(choice, choice.echo, choice.prompt_scores)

    def piece(self, choice: Growing, text: str, scores: Sequence[TokenScore]) -> dict[str, Any]:
        """See Generating."""
        logprobs = self._logprobs(scores, choice.shown) if scores else None
        choice.shown += sum(score.width for score in scores)
        return self._choice(choice, text, logprobs)

    def ending(self, choice: Growing) -> dict[str, Any]:
        """See Generating."""
        return self._choice(choice, "", None) | choice.end_json()

    def _choice(self, choice: Growing, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        return {"index": choice.index, "text": text, "logprobs": logprobs, "finish_reason": choice.finish_reason}

    def _logprobs(self, scores: Sequence[TokenScore], offset: int) -> dict[str, Any] | None:
        """OpenAI's parallel lists over tokens, `offset` characters after the text's beginning."""
        if self.body.logprobs is None:
            return None
        by_id, offsets = bool(self.body.return_tokens_as_token_ids), list[int]()
        for score in scores:
            offsets.append(offset)
            offset += score.width
        return {
            "tokens": [token_text(score.text, score.token_id, by_id=by_id) for score in scores],
            "token_logprobs": [finite(score.logprob) for score in scores],
            "top_logprobs": [top_json(score, self.body.logprobs, by_id=by_id) for score in scores],
            "text_offset": offsets,
        }


def finite(logprob: float | None) -> float | None:
    """A number that JSON has."""
    return logprob if logprob is None else max(logprob, MINUS_INFINITY)


def token_text(text: str, token_id: int, *, by_id: bool) -> str:
    """A token in a list of log-probabilities."""
    return f"token_id:{token_id}" if by_id else text


def top_json(score: TokenScore, count: int, *, by_id: bool) -> dict[str, float] | None:
    """The `count` most probable tokens and the chosen one; null for a prompt's first token.

    Of several ids with the same text the most probable one counts: the largest number is the best token's.
    """
    if score.logprob is None:
        return None
    listed: Iterable[tuple[int, tuple[str, float]]] = zip(score.top_ids[:count], score.top, strict=False)
    found: dict[str, float] = {}
    for token_id, (text, logprob) in [*listed, (score.token_id, (score.text, score.logprob))]:
        found.setdefault(token_text(text, token_id, by_id=by_id), max(logprob, MINUS_INFINITY))
    return found


def prompt_json(score: TokenScore, count: int) -> dict[str, dict[str, Any]] | None:
    """vLLM's form of a prompt's token: by id, the most probable ones and the one that stands there."""
    if score.logprob is None:
        return None
    found: dict[str, dict[str, Any]] = {}
    for rank, (token_id, (text, logprob)) in enumerate(zip(score.top_ids[:count], score.top, strict=False), 1):
        found[str(token_id)] = {"logprob": logprob, "rank": rank, "decoded_token": text}
    own = {"logprob": finite(score.logprob), "rank": None, "decoded_token": score.text}
    return found if str(score.token_id) in found else found | {str(score.token_id): own}


router = APIRouter(prefix="/v1", tags=["openai"])


@router.post("/completions", openapi_extra=body_schema(CompletionBody), responses=STREAMED, summary="Continue a text")
async def completions(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> Response:
    """Text that continues the prompt: whole, or streamed as it comes."""
    body = await read_body(request, CompletionBody)
    completion = Completion(
        serving=serving, body=body, asked=generation_of(body), principal=principal, request_id=request_id,
        returned=body.n or 1,
        model=model_of(request, body.model, TaskName.GENERATION, serving=serving, principal=principal),
        streams_prompt=bool(body.echo) and body.logprobs is not None,
    )  # fmt: skip
    return await completion.respond(request)

"""The fields that completions and chat share, OpenAI's and those of vLLM that clients send, and what they mean here."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.engine.jobs import Sampling
from app.errors import InvalidRequest
from app.tasks.generation import GenerationRequest
from app.tasks.prompts import Prompt
from app.text.truncation import Truncate

STOPS_MAX = 32
STOP_LENGTH_MAX = 1000
TOKENS_MAX = 1_000_000
TokenId = Annotated[int, Field(ge=0)]


class StreamOptions(BaseModel):
    """What else a stream tells."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = Field(default=False, description="A last chunk with the usage.")
    continuous_usage_stats: bool | None = Field(default=False, description="The usage so far on every chunk.")


class SamplingBody(BaseModel):
    """How text is drawn and where it ends. Fields that are not named are ignored, as OpenAI's clients expect."""

    model_config = ConfigDict(extra="ignore")

    model: str = Field(description="Which model; GET /v1/models lists them.")
    n: int | None = Field(default=1, ge=1, le=128, description="Continuations of each prompt.")
    stream: bool | None = Field(default=False, description="Send text as it comes, as server-sent events.")
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=1.0, ge=0, le=2, description="0 always takes the most probable token.")
    top_p: float | None = Field(default=1.0, ge=0, le=1, description="Draw from the most probable tokens up to this.")
    top_k: int | None = Field(default=0, ge=-1, le=TOKENS_MAX, description="Draw from so many tokens; 0 from all.")
    min_p: float | None = Field(default=0.0, ge=0, le=1, description="Draw from tokens this near to the best's share.")
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63, description="The same seed draws the same text.")
    presence_penalty: float | None = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=0.0, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=1.0, gt=0, le=10, description="Above 1 avoids repeating.")
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(default=None, max_length=1024)
    allowed_token_ids: list[TokenId] | None = Field(default=None, min_length=1, description="Only these are drawn.")
    bad_words: list[str] | None = Field(default=None, max_length=256, description="Words that are never written.")
    stop: str | list[str] | None = Field(default=None, description=f"Up to {STOPS_MAX} texts that end it.")
    stop_token_ids: list[TokenId] | None = Field(default=None, max_length=256)
    include_stop_str_in_output: bool | None = Field(default=False, description="Show the stop that ended the text.")
    ignore_eos: bool | None = Field(default=False, description="Go on past the model's own end.")
    min_tokens: int | None = Field(default=0, ge=0, le=TOKENS_MAX, description="Do not stop before.")
    skip_special_tokens: bool | None = True
    truncate_prompt_tokens: int | None = Field(
        default=None, ge=-1, description="Read the last so many tokens of the prompt; -1: as many as fit."
    )
    truncate: Truncate = Field(default=Truncate.ERROR, description="What to do with a prompt that is too long.")
    return_token_ids: bool | None = Field(default=False, description="Tell the ids of prompt and text.")
    user: str | None = Field(default=None, description="Accepted and not kept.")


def or_default(value: float | None, default: float) -> float:
    """A null is as good as nothing."""
    return default if value is None else value


def sampling_of(body: SamplingBody) -> Sampling:
    """How to draw. Raises InvalidRequest naming the field."""
    try:
        bias = tuple((int(token), value) for token, value in (body.logit_bias or {}).items())
    except ValueError as cause:
        raise InvalidRequest("logit_bias maps token ids to numbers", field="logit_bias") from cause
    return Sampling(
        temperature=or_default(body.temperature, 1.0), top_p=or_default(body.top_p, 1.0),
        top_k=max(0, body.top_k or 0), min_p=body.min_p or 0.0,
        repetition_penalty=or_default(body.repetition_penalty, 1.0),
        presence_penalty=body.presence_penalty or 0.0, frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=bias, allowed_ids=tuple(body.allowed_token_ids or ()), min_tokens=body.min_tokens or 0,
        seed=None if body.seed is None else body.seed % 2**63,
    )  # fmt: skip


def stops_of(body: SamplingBody) -> tuple[str, ...]:
    """The texts that end it. Raises InvalidRequest."""
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if len(stops) > STOPS_MAX or any(not 0 < len(stop) <= STOP_LENGTH_MAX for stop in stops):
        raise InvalidRequest(
            f"stop takes up to {STOPS_MAX} texts of 1 to {STOP_LENGTH_MAX} characters each", field="stop"
        )
    return stops


def request_of(body: SamplingBody, prompts: tuple[Prompt, ...], output_tokens_max: int | None) -> GenerationRequest:
    """The shared fields in our words. Raises InvalidRequest naming the field."""
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("stream_options is only for stream: true", field="stream_options")
    if any(not word.strip() or len(word) > STOP_LENGTH_MAX for word in body.bad_words or ()):
        raise InvalidRequest("bad_words takes words that are not empty", field="bad_words")
    kept = body.truncate_prompt_tokens
    if kept == 0:
        raise InvalidRequest("truncate_prompt_tokens is at least 1, or -1 for as many as fit", field="prompt")
    return GenerationRequest(
        prompts=prompts, output_tokens_max=output_tokens_max, sampling=sampling_of(body), stops=stops_of(body),
        stop_ids=tuple(body.stop_token_ids or ()), shows_stop=bool(body.include_stop_str_in_output),
        shows_special=body.skip_special_tokens is False, bad_words=tuple(body.bad_words or ()),
        choices=body.n or 1, ignore_eos=bool(body.ignore_eos),
        truncate=body.truncate if kept is None else Truncate.LEFT,
        prompt_tokens_max=None if kept is None or kept < 0 else kept,
    )  # fmt: skip

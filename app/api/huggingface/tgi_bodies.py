"""Bodies of TGI: what may be asked of a generation, and that in our words."""

import secrets
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.huggingface.envelope import LISTED_MAX, refuse_given
from app.engine.jobs import Sampling
from app.errors import InvalidRequest
from app.tasks.generation import GenerationRequest
from app.text.truncation import Truncate

STOPS_MAX = 16
BEST_OF_MAX = 16
TOP_TOKENS_MAX = 20
SEED_BITS = 63


class Parameters(BaseModel):
    """How to continue. A parameter that is not named here is ignored, and the answer names it: `typical_p` is one,
    which LangChain always sends.
    """

    model_config = ConfigDict(extra="ignore")

    max_new_tokens: int | None = Field(None, ge=1, le=1_000_000, description="null: all that fits the model.")
    do_sample: bool | None = Field(None, description="Draw the tokens; any of the next three asks for it too.")
    temperature: float | None = Field(None, gt=0, le=100)
    top_k: int | None = Field(None, ge=1, le=1_000_000)
    top_p: float | None = Field(None, gt=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=0, lt=2**64)
    stop: list[Annotated[str, Field(min_length=1)]] | None = Field(None, max_length=STOPS_MAX)
    truncate: int | None = Field(None, ge=1, description="Read only the prompt's last tokens, so many.")
    best_of: int | None = Field(None, ge=1, le=BEST_OF_MAX, description="Draw so many, give the most probable.")
    return_full_text: bool | None = Field(None, description="Begin with the prompt.")
    details: bool | None = None
    decoder_input_details: bool | None = Field(None, description="The prompt's tokens too, with details.")
    top_n_tokens: int | None = Field(None, ge=0, le=TOP_TOKENS_MAX)
    watermark: bool | None = Field(None, description="Not supported.")
    grammar: dict[str, Any] | None = Field(None, description="Not supported.")
    adapter_id: str | None = Field(None, description="Not supported.")


class Asked(BaseModel):
    """What both bodies have."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"inputs": "Once upon a time", "parameters": {"max_new_tokens": 20}}]},
    )

    parameters: Parameters = Field(default_factory=lambda: Parameters.model_validate({}))
    model: str | None = Field(None, description="Which model; the catalogue's first if it is left out.")


class GenerateBody(Asked):
    """A text to continue."""

    inputs: str = Field(description="The prompt.")


class CompatBody(Asked):
    """The same, or several texts; streamed if so asked."""

    inputs: str | Annotated[list[str], Field(min_length=1, max_length=LISTED_MAX)] = Field(
        description="The prompt, or a list of them."
    )
    stream: bool = False


def refuse_unsupported(asked: Parameters, *, is_streaming: bool) -> None:
    """Raises UnsupportedParameter or InvalidRequest, in TGI's words where it has some."""
    refuse_given("these models", watermark=asked.watermark, grammar=asked.grammar, adapter_id=asked.adapter_id)
    if (asked.best_of or 1) > 1:
        if is_streaming:
            raise InvalidRequest("`best_of` must be 1 when streaming tokens", field="best_of")
        if not is_sampled(asked):
            raise InvalidRequest("you must use sampling when `best_of` is > 1", field="best_of")
        if asked.seed is not None:
            raise InvalidRequest("`seed` must not be set when `best_of` > 1", field="seed")
    if asked.decoder_input_details and is_streaming:
        raise InvalidRequest("`decoder_input_details` == true is not supported when streaming tokens")


def is_sampled(asked: Parameters) -> bool:
    """Whether tokens are drawn; else always the most probable one is taken."""
    return bool(asked.do_sample) or any(value is not None for value in (asked.temperature, asked.top_k, asked.top_p))


def request_of(prompts: tuple[str, ...], asked: Parameters, *, is_streaming: bool) -> GenerationRequest:
    """The body in our words. A seed is made where none is given, so that it can be told."""
    refuse_unsupported(asked, is_streaming=is_streaming)
    has_scores = is_streaming or asked.details or (asked.best_of or 1) > 1
    seed = secrets.randbits(SEED_BITS) if asked.seed is None else asked.seed
    if seed >= 2**SEED_BITS:
        raise InvalidRequest(f"seed must be less than 2**{SEED_BITS}", field="seed")
    sampling = Sampling(
        temperature=(asked.temperature or 1.0) if is_sampled(asked) else 0.0, top_k=asked.top_k or 0,
        top_p=asked.top_p or 1.0, repetition_penalty=asked.repetition_penalty or 1.0,
        frequency_penalty=asked.frequency_penalty or 0.0, seed=seed if is_sampled(asked) else None,
    )  # fmt: skip
    return GenerationRequest(
        prompts=prompts, output_tokens_max=asked.max_new_tokens, sampling=sampling, stops=tuple(asked.stop or ()),
        choices=asked.best_of or 1, logprobs=(asked.top_n_tokens or 0) if has_scores else None,
        prompt_logprobs=0 if asked.decoder_input_details and asked.details else None,
        truncate=Truncate.ERROR if asked.truncate is None else Truncate.LEFT, prompt_tokens_max=asked.truncate,
    )  # fmt: skip

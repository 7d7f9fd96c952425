"""What the engine is asked to do: plain, frozen, serialisable messages. No torch, no text."""

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec


class Head(StrEnum):
    """What a model's outputs mean; it decides the class that reads the checkpoint."""

    GENERATE = "generate"
    """A causal decoder (GPT2LMHeadModel): token ids continue token ids."""
    TRANSLATE = "translate"
    """An encoder-decoder (MarianMTModel): source ids become target ids."""
    CLASSIFY = "classify"
    """An encoder with a label head (BertForSequenceClassification)."""
    ANSWER = "answer"
    """An encoder with start and end scores (BertForQuestionAnswering)."""
    UNMASK = "unmask"
    """An encoder that guesses hidden tokens (BertForMaskedLM)."""
    TAG = "tag"
    """An encoder with a label for every token (BertForTokenClassification)."""
    EMBED = "embed"
    """An encoder alone (BertModel), its outputs pooled into one vector a row."""


class Pooling(StrEnum):
    """How the outputs of a row's tokens become one vector (sentence-transformers' names)."""

    CLS = "cls"
    MAX = "max"
    MEAN = "mean"
    MEAN_SQRT_LEN = "mean_sqrt_len_tokens"
    WEIGHTED_MEAN = "weightedmean"
    """The mean, each token weighted by its place, the first by 1."""
    LAST = "lasttoken"


class Precision(StrEnum):
    """How weights and activations are held; `auto` picks the fastest within the published accuracy."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A verified checkpoint folder, ready to be loaded."""

    id: str
    folder: str
    """A Hugging Face folder: config.json and *.safetensors."""
    head: Head
    precision: Precision = Precision.AUTO
    allow_pickle: bool = False
    """Read pytorch_model.bin, as plain tensors only, where there are no safetensors."""
    pooling: tuple[Pooling, ...] = (Pooling.MEAN,)
    """EMBED only; the vectors of several are put one after another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is drawn: penalties, bias, temperature, top-k, top-p, in transformers' order."""

    temperature: float = 1.0
    """0 means greedy: the most probable token, ties to the lowest id."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches p; 1 keeps all."""
    min_p: float = 0.0
    """Keep tokens at least this share as probable as the most probable one (Nguyen 2024); 0 keeps all."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative scores of tokens seen in prompt or output (Keskar 2019); 1 is off."""
    presence_penalty: float = 0.0
    """Subtracted once from the score of each token already in the output (OpenAI)."""
    frequency_penalty: float = 0.0
    """Subtracted per occurrence in the output (OpenAI)."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """(token id, added score) pairs."""
    allowed_ids: tuple[int, ...] = ()
    """Only these tokens may be drawn; empty allows all."""
    banned_runs: tuple[tuple[int, ...], ...] = ()
    """Runs of tokens that are never completed: the last of one is banned wherever the output ends in the others."""
    min_tokens: int = 0
    """No stop token may be drawn before there are so many."""
    seed: int | None = None
    """Seeds the row's own generator, so that company in the batch never changes the draw; None draws a fresh seed."""


class BeamSearch(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Beam search as transformers' generate does it (`num_beams`, `length_penalty`, `early_stopping`).

    On the wire it is an array and `Sampling` an object: a job's `search` needs no tag to be told apart.
    """

    beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool = False
    returned: int = 1
    """Report so many of the hypotheses found, best first: the last event brings those after the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeJob:
    """Produce tokens, one at a time, after `ids` (GPT-2) or from the source `ids` (Marian)."""

    id: str
    model: str
    ids: tuple[int, ...]
    """Prompt ids, or the source's ids with their end-of-sentence. Never empty."""
    max_new_tokens: int
    """0 reads a prompt only (GPT-2). Prompt plus output fits the model's positions: the engine checks it again."""
    search: Sampling | BeamSearch = field(default_factory=Sampling)
    stop_ids: frozenset[int] = frozenset()
    """A token of these ends the row with `stop`; it is counted and emitted as the last id. Usually the model's eos."""
    logprobs: int | None = None
    """Report the log-probability of each token and of this many most probable ones; None reports none."""
    prompt_logprobs: int | None = None
    """The same of the prompt's tokens (GPT-2), all but the first, which nothing foretells."""
    is_whole: bool = False
    """Its reader shows nothing before its end: its tokens, all but the first, may come late and many together."""
    tenant: str = ""
    weight: float = 1.0
    deadline_s: float | None = None
    """On the engine's monotonic clock; a job still waiting then fails with DeadlineExceeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeJob:
    """Read `ids` once and report the head's scores."""

    id: str
    model: str
    ids: tuple[int, ...]
    type_ids: tuple[int, ...] = ()
    """Segment ids, as long as `ids`; empty means all zero."""
    places: tuple[int, ...] = ()
    """UNMASK: which of `ids` are to be guessed."""
    guesses: int = 0
    """UNMASK: so many of the most probable tokens for each place."""
    targets: tuple[int, ...] = ()
    """UNMASK: if not empty, only these tokens are guessed; their probabilities stay those among all tokens."""
    tenant: str = ""
    weight: float = 1.0
    deadline_s: float | None = None


Job = DecodeJob | EncodeJob
READ_COST = 0.125
"""A prompt's token, in tokens produced: prompts are read many tokens a step."""


def cost_of(job: Job) -> float:
    """How much work a job may be, in tokens produced (encoders: tokens read). A measure of waiting, not of money."""
    if isinstance(job, EncodeJob):
        return float(len(job.ids))
    rows = job.search.beams if isinstance(job.search, BeamSearch) else 1
    return READ_COST * len(job.ids) + rows * job.max_new_tokens

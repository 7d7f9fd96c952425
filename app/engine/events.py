"""What the engine says of a job: plain, frozen messages. Exactly one terminal event per job, and it is the last."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain

from app.errors import TollgateError


class FinishReason(StrEnum):
    """Why a job ended without failing."""

    STOP = "stop"
    LENGTH = "length"
    DONE = "done"
    """An encode job has given its scores."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class JobUsage:
    """Tokens that the engine read and produced for a job; a cancelled job counts what was done until then."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Of the input, what an earlier job of the tenant had left in the cache."""

    def and_of(self, other: "JobUsage") -> "JobUsage":
        """Both together."""
        return JobUsage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class JobTimes:
    """How long a job was in each of the engine's hands, in seconds."""

    queue_s: float
    """In line."""
    prefill_s: float
    """From then to its first token, or to its scores."""
    decode_s: float
    """From its first token to its last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEvent:
    """New tokens of a decode job, in order. Beam search reports all of them at once, at the end."""

    job_id: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    """One per id when the job asked for them, else empty."""
    top: tuple[tuple[tuple[int, float], ...], ...] = ()
    """Per id, the (token id, logprob) pairs of the most probable tokens, best first; empty unless asked for."""

    def and_then(self, later: "TokenEvent") -> "TokenEvent":
        """Both as one."""
        return joined((self, later))


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptEvent:
    """Log-probabilities of the next tokens of a decode job's own prompt, in order from its second token on.

    They come as the prompt is read, a chunk at a time, before any new token.
    """

    job_id: str
    logprobs: tuple[float, ...]
    top: tuple[tuple[tuple[int, float], ...], ...]
    """Per token, as in TokenEvent; a token that is among the most probable ones has the very same number there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedEvent:
    """The scores of an encode job, or its guesses."""

    job_id: str
    scores: tuple[tuple[float, ...], ...]
    """CLASSIFY: one row of (labels,) logits. ANSWER: two rows of (positions,) logits, start and end.

    TAG: a row of (labels,) logits for each position. EMBED: one row, the pooled vector. UNMASK: empty.
    """
    top: tuple[tuple[tuple[int, float], ...], ...] = ()
    """UNMASK: for each place the (token id, logprob) pairs of the most probable tokens, best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedEvent:
    """Terminal: the job ended."""

    job_id: str
    reason: FinishReason
    usage: JobUsage
    others: tuple[tuple[int, ...], ...] = ()
    """Beam search: the hypotheses after the best, best first, as many as the job asked for."""
    times: JobTimes | None = field(default=None, compare=False)
    """None when the engine is no longer there to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedEvent:
    """Terminal: the job failed; what it used until then is the customer's only if tokens were delivered."""

    job_id: str
    error: TollgateError
    usage: JobUsage = JobUsage()
    times: JobTimes | None = field(default=None, compare=False)


Event = TokenEvent | PromptEvent | EncodedEvent | FinishedEvent | FailedEvent


def together(events: Sequence[Event]) -> list[Event]:
    """The same events, the tokens of a job that follow each other as one; each job's order stays."""
    found: list[Event | list[TokenEvent]] = []
    runs: dict[str, list[TokenEvent]] = {}
    for event in events:
        if not isinstance(event, TokenEvent):
            runs.pop(event.job_id, None)
            found.append(event)
        elif (run := runs.get(event.job_id)) is not None:
            run.append(event)
        else:
            runs[event.job_id] = run = [event]
            found.append(run)
    return [joined(one) if isinstance(one, list) else one for one in found]


def joined(run: Sequence[TokenEvent]) -> TokenEvent:
    """The tokens of one job as one event."""
    if len(run) == 1:
        return run[0]
    return TokenEvent(
        job_id=run[0].job_id, ids=tuple(chain.from_iterable(one.ids for one in run)),
        logprobs=tuple(chain.from_iterable(one.logprobs for one in run)),
        top=tuple(chain.from_iterable(one.top for one in run)),
    )  # fmt: skip

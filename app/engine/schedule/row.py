"""A decode job on its way through the engine: how much of it has been fed and produced. No tensors."""

from dataclasses import dataclass, field
from enum import StrEnum

from app.engine.events import JobUsage
from app.engine.jobs import BeamSearch, DecodeJob


class Phase(StrEnum):
    """Where a row stands."""

    WAITING = "waiting"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    FINISHED = "finished"


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """Owned by the loop; it alone changes it."""

    job: DecodeJob
    prompt: tuple[int, ...]
    """What the decoder reads before it produces: the job's ids (GPT-2) or the start token (Marian)."""
    slots: tuple[int, ...] = ()
    """Places in the cache, one per beam; empty while waiting."""
    produced: list[int] = field(default_factory=list[int])
    others: tuple[tuple[int, ...], ...] = ()
    """Beam search: the hypotheses after the best that the job asked for, once it is done."""
    fed: int = 0
    """Tokens of prompt + produced whose keys are in the cache."""
    reused: int = 0
    """Of these, tokens of the prompt that an earlier row had fed."""
    phase: Phase = Phase.WAITING

    @property
    def slots_needed(self) -> int:
        """How many places in the cache the row takes."""
        return self.job.search.beams if isinstance(self.job.search, BeamSearch) else 1

    @property
    def unfed(self) -> int:
        """Tokens that the next steps must feed before a new one can be drawn."""
        return len(self.prompt) + len(self.produced) - self.fed

    @property
    def left(self) -> int:
        """Tokens that it may still produce."""
        return self.job.max_new_tokens - len(self.produced)

    @property
    def usage(self) -> JobUsage:
        """What the row read and produced so far."""
        read = 0 if self.phase is Phase.WAITING else len(self.job.ids)
        produced = len(self.produced) + sum(map(len, self.others))
        return JobUsage(input_tokens=read, output_tokens=produced, cached_tokens=self.reused)

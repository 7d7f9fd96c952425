"""The one interface to an engine, whichever transport carries it; tests/contracts/ is its definition."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from app.engine.events import Event
from app.engine.jobs import Job, ModelSpec, Precision
from app.observability.distribution import Distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """What loading a checkpoint taught."""

    id: str
    memory_bytes: int
    """Weights as held, plus the model's preallocated cache."""
    positions_max: int
    """How many tokens one row may span: prompt plus output (GPT-2), source or target each (Marian), input (BERT)."""
    precision: Precision
    """Never AUTO."""
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStats:
    """What a loaded model does, and what its steps were like since it was loaded."""

    model: str
    running: int
    waiting: int
    kv_usage: float
    """Share of its cache slots in use, 0 to 1; 0 for an encoder, which has none."""
    step_seconds: Distribution
    step_rows: Distribution
    step_tokens: Distribution
    prompt_tokens: int = 0
    """Of the prompts of all rows so far."""
    reused_tokens: int = 0
    """Of these, the ones whose keys and values were in a slot already."""
    waiting_cost: float = 0.0
    """Work of the line, as jobs.cost_of measures it."""
    speed: float = 0.0
    """Work that the lane ended a second when a line last stood; 0 while that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """A snapshot for metrics and readiness."""

    running: int
    waiting: int
    loaded: tuple[str, ...]
    is_alive: bool
    steps: int = 0
    padding_tokens: int = 0
    kv_usage: float = 0.0
    """Share of cache slots in use, 0 to 1."""
    lanes: tuple[LaneStats, ...] = ()
    step_s: float = 0.0
    """How long the engine has been over its present step; 0 while it waits for work or loads a model."""
    losses: int = 0
    """How often the engine's process was lost, as far as this client knows."""
    resident_bytes: int = 0
    """Memory of the engine's process; 0 when it has none of its own."""


def nobody_asks(model_id: str, reason: str) -> None:
    """What `EngineClient.on_gone` is at first."""


class EngineClient(Protocol):
    """Runs jobs on loaded models. Safe for many tasks of one event loop."""

    on_gone: Callable[[str, str], None]
    """Called with a model's id and the reason when an engine that began anew could not load it again."""

    def submit(self, job: Job) -> AsyncIterator[Event]:
        """Start `job` and yield its events as they come; the last is a FinishedEvent or a FailedEvent.

        Nothing raises for a bad job: an unknown model, a too long prompt or a full queue is a FailedEvent, at once.
        The job starts when this is called, not when the iterator is first awaited.
        """
        ...

    async def cancel(self, job_id: str) -> None:
        """Ask for the job's end; its row leaves before the next step and its iterator ends in CANCELLED. Idempotent."""
        ...

    async def load(self, spec: ModelSpec) -> LoadedModel:
        """Read a checkpoint. Raises VerificationFailed or SourceError (unreadable, unknown type), naming the file."""
        ...

    async def unload(self, model_id: str) -> None:
        """Forget a model; jobs still on it fail with ModelUnavailable. Idempotent."""
        ...

    def stats(self) -> EngineStats:
        """How busy the engine is, without waiting."""
        ...

    async def close(self) -> None:
        """Stop: open jobs fail with EngineLost, threads and memory are given back. Idempotent."""
        ...

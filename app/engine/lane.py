"""A loaded model with its line of waiting jobs: what decoders and encoders have in common, and whom they refuse."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

from app.clock import Clock
from app.engine.client import LaneStats
from app.engine.compute.decode import Decoder
from app.engine.compute.encoded import refusal_of as refusal_to_encode
from app.engine.compute.models import Resident
from app.engine.events import Event, FailedEvent, FinishedEvent, FinishReason, JobUsage
from app.engine.jobs import BeamSearch, DecodeJob, Job, Sampling, cost_of
from app.engine.schedule.waiting import Waiting
from app.engine.settings import EngineSettings
from app.engine.tally import Tally
from app.errors import ContextLengthExceeded, DeadlineExceeded, EngineOverloaded, InvalidRequest, TollgateError


class Lane(ABC):
    """One model's work. The loop's thread alone uses it."""

    def __init__(
        self, *, resident: Resident, settings: EngineSettings, clock: Clock, emit: Callable[[Event], None]
    ) -> None:
        self.resident = resident
        self.waiting = Waiting(jobs_max=settings.queue_jobs)
        self.tally = Tally()
        self._settings = settings
        self._clock = clock
        self._emit = emit

    @property
    def running(self) -> int:
        """Rows that have begun and not ended."""
        return 0

    @property
    def kv_usage(self) -> float:
        """Share of the cache's slots in use, 0 to 1."""
        return 0.0

    @property
    def flushes_ahead(self) -> bool:
        """Whether the next step will hand over this one's events by itself."""
        return False

    @property
    def stats(self) -> LaneStats:
        """A snapshot; may be taken on another thread than the loop's."""
        return LaneStats(
            model=self.resident.loaded.id, running=self.running, waiting=len(self.waiting), kv_usage=self.kv_usage,
            step_seconds=self.tally.seconds.snapshot, step_rows=self.tally.rows.snapshot,
            step_tokens=self.tally.tokens.snapshot, waiting_cost=self.tally.waiting_cost, speed=self.tally.pace.speed,
        )  # fmt: skip

    @abstractmethod
    def step(self) -> bool:
        """One step; False when there was nothing to do."""

    def admit(self, job: Job) -> None:
        """Put `job` into the line, or refuse it at once."""
        refusal = EngineOverloaded() if self.waiting.is_full else refusal_of(job, self.resident)
        if refusal is not None:
            self._emit(FailedEvent(job_id=job.id, error=refusal))
        else:
            self.waiting.add(job)
            self.tally.arrive(job.id, self._clock.monotonic_s(), cost_of(job))

    def cancel(self, job_id: str) -> None:
        """End a job that waits or runs here; nothing for others."""
        if self.waiting.remove(job_id) is not None:
            self._leave(FinishedEvent(job_id=job_id, reason=FinishReason.CANCELLED, usage=JobUsage()))

    def expire(self) -> None:
        """Fail the jobs whose deadline has passed while they waited."""
        for job in self.waiting.take_expired(self._clock.monotonic_s()):
            self._leave(FailedEvent(job_id=job.id, error=DeadlineExceeded()))

    def drop(self, error: TollgateError) -> None:
        """Fail every job: the model goes."""
        for job in self.waiting:
            self._leave(FailedEvent(job_id=job.id, error=error))

    def _leave(self, event: FinishedEvent | FailedEvent) -> None:
        """A job's last event, with its times."""
        self._emit(replace(event, times=self.tally.leave(event.job_id, self._clock.monotonic_s())))


def refusal_of(job: Job, resident: Resident) -> TollgateError | None:
    """Why this model cannot run `job`; None when it can."""
    if isinstance(job, DecodeJob) != isinstance(resident.model, Decoder):
        return InvalidRequest(f"{job.model} does not run this kind of job")
    if not job.ids or not all(0 <= i < resident.vocabulary for i in job.ids):
        return InvalidRequest("a token id lies outside the model's vocabulary, or there are none")
    longest, positions_max = len(job.ids), resident.loaded.positions_max
    if isinstance(job, DecodeJob):
        assert isinstance(resident.model, Decoder), "checked above. This is a bug."
        refusal = refusal_to_decode(job, resident, resident.model)
    else:
        refusal = refusal_to_encode(job, resident.vocabulary)
    if refusal is not None:
        return refusal
    if isinstance(job, DecodeJob) and isinstance(resident.model, Decoder):
        longest = max(longest, len(resident.model.prompt_of(job.ids)) + job.max_new_tokens - 1)
    if longest > positions_max:
        return ContextLengthExceeded(f"{longest} positions are needed and {job.model} has {positions_max}")
    return None


def refusal_to_decode(job: DecodeJob, resident: Resident, decoder: Decoder) -> TollgateError | None:
    """What no decoder could do, or this one cannot."""
    if job.max_new_tokens < (0 if decoder.reads_prompts else 1):
        return InvalidRequest("max_new_tokens must be at least 1, or 0 to read a prompt only")
    if job.prompt_logprobs is not None and not decoder.reads_prompts:
        return InvalidRequest(f"{job.model} has no scores for its source; leave prompt_logprobs out")
    if isinstance(job.search, BeamSearch) and not 1 <= job.search.beams <= decoder.slots:
        return InvalidRequest(f"beams must lie between 1 and {decoder.slots}")
    if isinstance(job.search, Sampling) and any(
        not 0 <= token < resident.vocabulary for token, _ in job.search.logit_bias
    ):
        return InvalidRequest(
            f"logit_bias names a token outside the vocabulary; ids lie between 0 and {resident.vocabulary - 1}",
            field="logit_bias",
        )
    return None

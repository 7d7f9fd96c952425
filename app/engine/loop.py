"""The loop: takes messages, plans a step, runs and applies it, emits events. One thread; no asyncio, no text."""

import logging
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue

import torch

from app.clock import Clock
from app.engine.client import EngineStats, LoadedModel
from app.engine.compute.beams import Beams
from app.engine.compute.decode import Decoder, Feed
from app.engine.compute.encoded import event_of, refusal_of
from app.engine.compute.kernels import set_threads
from app.engine.compute.models import Resident, load_model
from app.engine.compute.sampling import Sampler, draw
from app.engine.compute.warm import warm
from app.engine.events import Event, FailedEvent, FinishedEvent, FinishReason, JobUsage, TokenEvent
from app.engine.jobs import BeamSearch, DecodeJob, EncodeJob, Job, ModelSpec, Sampling
from app.engine.lane import Lane
from app.engine.messages import Cancel, Close, Load, Message, Pause, Submit, Unload
from app.engine.schedule.plan import StepPlan, pack_by_length, plan_step
from app.engine.schedule.row import Phase, Row
from app.engine.schedule.waiting import Waiting
from app.engine.settings import EngineSettings
from app.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineLost,
    EngineOverloaded,
    InternalError,
    InvalidRequest,
    ModelUnavailable,
    TollgateError,
)  # fmt: skip

log = logging.getLogger(__name__)


class EngineLoop:
    """Owns the models, the rows and the step. `emit_batch` receives a step's events at once, on the loop's thread."""

    def __init__(self, *, settings: EngineSettings, clock: Clock, emit_batch: Callable[[list[Event]], None]) -> None:
        self.inbox: SimpleQueue[Message] = SimpleQueue()
        self._settings = settings
        self._clock = clock
        self._emit_batch = emit_batch
        self._events: list[Event] = []
        self._emit = self._events.append
        self._lanes: dict[str, Lane] = {}
        self._paused: set[str] = set()
        self._steps = 0
        self._is_open = True

    def run(self) -> None:
        """Work until a Close message; then fail what is open with EngineLost."""
        if self._settings.threads:
            set_threads(self._settings.threads)
        with torch.inference_mode():
            while self._is_open:
                self._receive(is_idle=not self._step())
        for name in list(self._lanes):
            self._drop_lane(name, EngineLost())
        self._flush()

    def _flush(self) -> None:
        """Hand over what has been emitted since the last time."""
        if self._events:
            batch = self._events.copy()
            self._events.clear()
            self._emit_batch(batch)

    def stats(self) -> EngineStats:
        """A snapshot; read from another thread, so it may be one step old."""
        lanes = [lane.stats for lane in list(self._lanes.values())]
        decoders = sum(isinstance(lane.resident.model, Decoder) for lane in list(self._lanes.values()))
        return EngineStats(
            running=sum(lane.running for lane in lanes),
            waiting=sum(lane.waiting for lane in lanes),
            loaded=tuple(lane.model for lane in lanes),
            is_alive=self._is_open,
            steps=self._steps,
            kv_usage=sum(lane.kv_usage for lane in lanes) / decoders if decoders else 0.0,
            lanes=tuple(lanes),
        )

    def _receive(self, *, is_idle: bool) -> None:
        try:
            message = self.inbox.get(block=is_idle, timeout=0.05 if is_idle and self._has_deadline() else None)
            while True:
                self._handle(message)
                message = self.inbox.get_nowait()
        except Empty:
            self._flush()

    def _has_deadline(self) -> bool:
        return any(len(lane.waiting) for lane in self._lanes.values())

    def _handle(self, message: Message) -> None:
        match message:
            case Submit(job):
                self._admit(job)
            case Cancel(job_id):
                self._cancel(job_id)
            case Load(spec, reply):
                reply(self._load(spec))
            case Unload(model):
                self._drop_lane(model, ModelUnavailable("The model was unloaded while it worked on this; try again."))
            case Pause(job_id, is_paused):
                is_seated = any(row.job.id == job_id for lane in self._lanes.values() for row in lane.rows)
                (self._paused.add if is_paused and is_seated else self._paused.discard)(job_id)
            case Close():
                self._is_open = False

    def _load(self, spec: ModelSpec) -> LoadedModel | TollgateError:
        try:
            resident = load_model(spec, slots=self._settings.slots, device=self._settings.device)
            warm(resident)
        except TollgateError as refused:
            return refused
        except Exception:
            log.exception("loading %s failed", spec.id)
            return ModelUnavailable()
        self._drop_lane(spec.id, ModelUnavailable())
        self._lanes[spec.id] = Lane(resident=resident, waiting=Waiting(jobs_max=self._settings.queue_jobs))
        return resident.loaded

    def _admit(self, job: Job) -> None:
        lane = self._lanes.get(job.model)
        refusal = ModelUnavailable() if lane is None else self._refusal(job, lane)
        if refusal is not None or lane is None:
            self._emit(FailedEvent(job_id=job.id, error=refusal or ModelUnavailable()))
        else:
            lane.waiting.add(job)
            lane.tally.arrive(job.id, self._clock.monotonic_s())

    def _refusal(self, job: Job, lane: Lane) -> TollgateError | None:
        resident, positions_max = lane.resident, lane.resident.loaded.positions_max
        if isinstance(job, DecodeJob) != isinstance(resident.model, Decoder):
            return InvalidRequest(f"{job.model} does not run this kind of job")
        if not job.ids or not all(0 <= i < resident.vocabulary for i in job.ids):
            return InvalidRequest("a token id lies outside the model's vocabulary, or there are none")
        if lane.waiting.is_full:
            return EngineOverloaded()
        longest = len(job.ids)
        if isinstance(job, EncodeJob) and (refusal := refusal_of(job, resident.vocabulary)) is not None:
            return refusal
        if isinstance(job, DecodeJob):
            assert isinstance(resident.model, Decoder), "checked above. This is a bug."
            if job.max_new_tokens < 1:
                return InvalidRequest("max_new_tokens must be at least 1")
            if isinstance(job.search, BeamSearch) and not 1 <= job.search.beams <= resident.model.slots:
                return InvalidRequest(f"beams must lie between 1 and {resident.model.slots}")
            if isinstance(job.search, Sampling) and any(
                not 0 <= token < resident.vocabulary for token, _ in job.search.logit_bias
            ):
                return InvalidRequest(
                    f"logit_bias names a token outside the vocabulary; ids lie between 0 and {resident.vocabulary - 1}",
                    field="logit_bias",
                )
            longest = max(longest, len(resident.model.prompt_of(job.ids)) + job.max_new_tokens - 1)
        if longest > positions_max:
            return ContextLengthExceeded(f"{longest} positions are needed and {job.model} has {positions_max}")
        return None

    def _cancel(self, job_id: str) -> None:
        for lane in self._lanes.values():
            if lane.waiting.remove(job_id) is not None:
                self._leave(lane, FinishedEvent(job_id=job_id, reason=FinishReason.CANCELLED, usage=JobUsage()))
            for row in [row for row in lane.rows if row.job.id == job_id]:
                self._end(lane, row, FinishedEvent(job_id=job_id, reason=FinishReason.CANCELLED, usage=row.usage))

    def _drop_lane(self, name: str, error: TollgateError) -> None:
        lane = self._lanes.pop(name, None)
        if lane is None:
            return
        for job in lane.waiting:
            self._leave(lane, FailedEvent(job_id=job.id, error=error))
        for row in list(lane.rows):
            self._end(lane, row, FailedEvent(job_id=row.job.id, error=error, usage=row.usage))

    def _step(self) -> bool:
        """One step of every lane; False when there was nothing to do."""
        now_s = self._clock.monotonic_s()
        has_worked = False
        for lane in list(self._lanes.values()):
            for job in lane.waiting.take_expired(now_s):
                self._leave(lane, FailedEvent(job_id=job.id, error=DeadlineExceeded()))
            if isinstance(lane.resident.model, Decoder):
                has_worked |= self._step_decoder(lane, lane.resident.model)
            else:
                has_worked |= self._step_encoder(lane)
            self._flush()
        self._steps += has_worked
        return has_worked

    def _step_encoder(self, lane: Lane) -> bool:
        jobs: list[EncodeJob] = []
        left = self._settings.encode_tokens
        while (job := lane.waiting.take(lambda job: not jobs or len(job.ids) <= left)) is not None:  # noqa: B023
            assert isinstance(job, EncodeJob), "an encoder's line holds encode jobs. This is a bug."
            jobs.append(job)
            left -= len(job.ids)
            lane.waiting.charge(job.tenant, job.weight, len(job.ids))
            lane.tally.seat(job.id, self._clock.monotonic_s())
        for batch in pack_by_length([len(job.ids) for job in jobs], tokens_max=self._settings.encode_tokens):
            self._encode(lane, [jobs[index] for index in batch])
        return bool(jobs)

    def _encode(self, lane: Lane, jobs: list[EncodeJob]) -> None:
        model = lane.resident.model
        assert not isinstance(model, Decoder), "only encoders encode. This is a bug."
        device = torch.device(lane.resident.loaded.device)
        ids = torch.tensor([i for job in jobs for i in job.ids], device=device)
        types = torch.tensor([i for job in jobs for i in job.type_ids or (0,) * len(job.ids)], device=device)
        began_s = self._clock.monotonic_s()
        try:
            scores = model.forward(ids, types, [len(job.ids) for job in jobs], [job.places for job in jobs])
        except Exception:
            log.exception("a batch of %d rows failed on %s", len(jobs), lane.resident.loaded.id)
            if len(jobs) > 1:
                for job in jobs:
                    self._encode(lane, [job])
            else:
                self._leave(lane, FailedEvent(job_id=jobs[0].id, error=InternalError()))
            return
        lane.tally.step(rows=len(jobs), tokens=len(ids), seconds=self._clock.monotonic_s() - began_s)
        for job, found in zip(jobs, scores, strict=True):
            if not bool(torch.isfinite(found).all()):
                self._leave(lane, FailedEvent(job_id=job.id, error=InternalError()))
                continue
            self._emit(event_of(job, found))
            usage = JobUsage(input_tokens=len(job.ids))
            self._leave(lane, FinishedEvent(job_id=job.id, reason=FinishReason.DONE, usage=usage))

    def _step_decoder(self, lane: Lane, decoder: Decoder) -> bool:
        self._seat(lane, decoder)
        plan = plan_step([r for r in lane.rows if r.job.id not in self._paused], step_tokens=self._settings.step_tokens)
        if not plan:
            return False
        began_s = self._clock.monotonic_s()
        try:
            logits = decoder.step([feed for step in plan for feed in feeds_of(step.row, step.count, lane.choosers)])
        except Exception:
            log.exception("a step of %d rows failed on %s", len(plan), lane.resident.loaded.id)
            for step in plan:
                self._fail(lane, step.row)
            return True
        self._apply(lane, decoder, plan, logits)
        tokens = sum(step.count for step in plan)
        lane.tally.step(rows=len(plan), tokens=tokens, seconds=self._clock.monotonic_s() - began_s)
        return True

    def _seat(self, lane: Lane, decoder: Decoder) -> None:
        """Give slots to waiting jobs in fair order while there are any."""
        seated: list[Row] = []
        while True:
            free = len(decoder.slots_free)
            job = lane.waiting.take(lambda job: slots_needed(job) <= free)  # noqa: B023
            if job is None:
                break
            assert isinstance(job, DecodeJob), "a decoder's line holds decode jobs. This is a bug."
            row = Row(job=job, prompt=decoder.prompt_of(job.ids))
            row.slots = tuple(decoder.slots_free.pop() for _ in range(row.slots_needed))
            row.phase = Phase.PREFILLING
            lane.choosers[job.id] = self._chooser(lane.resident, job)
            lane.waiting.charge(job.tenant, job.weight, len(job.ids))
            lane.tally.seat(job.id, self._clock.monotonic_s())
            seated.append(row)
        lane.rows.extend(seated)
        try:
            decoder.read_sources([(row.slots, row.job.ids) for row in seated])
        except Exception:
            log.exception("reading %d sources failed on %s", len(seated), lane.resident.loaded.id)
            for row in seated:
                self._fail(lane, row)

    def _chooser(self, resident: Resident, job: DecodeJob) -> Sampler | Beams:
        if isinstance(job.search, BeamSearch):
            return Beams(
                search=job.search, tokens_max=job.max_new_tokens, stop_ids=job.stop_ids, banned=resident.banned,
                forced_last_id=resident.forced_last_id,
            )  # fmt: skip
        return Sampler(job.search, job.ids, logprobs=job.logprobs, banned=resident.banned)

    def _apply(self, lane: Lane, decoder: Decoder, plan: StepPlan, logits: torch.Tensor) -> None:
        """Advance each row that has fed all it had: sampled rows together, then each row's beams."""
        place = 0
        sampled: list[tuple[Row, int]] = []
        searched: list[tuple[Row, Beams, torch.Tensor]] = []
        for step in plan:
            row, chooser = step.row, lane.choosers[step.row.job.id]
            count = len(row.slots) if isinstance(chooser, Beams) and row.phase is Phase.DECODING else 1
            if step.completes:
                row.phase = Phase.DECODING
                if isinstance(chooser, Beams):
                    searched.append((row, chooser, logits[place : place + count]))
                else:
                    sampled.append((row, place))
            place += count
            row.fed += step.count
        if sampled:
            self._draw(lane, [row for row, _ in sampled], logits[[place for _, place in sampled]])
        for row, beams, scores in searched:
            try:
                self._advance_beams(lane, decoder, row, beams, scores)
            except Exception:
                log.exception("a row failed on %s", lane.resident.loaded.id)
                self._fail(lane, row)

    def _draw(self, lane: Lane, rows: list[Row], scores: torch.Tensor) -> None:
        """The next token of each of `rows`, from scores (rows, vocabulary)."""
        samplers: list[Sampler] = []
        for row in rows:
            chooser = lane.choosers[row.job.id]
            assert isinstance(chooser, Sampler), "rows with beams advance by themselves. This is a bug."
            samplers.append(chooser)
        is_last = [len(row.produced) + 1 == row.job.max_new_tokens for row in rows]
        now_s = self._clock.monotonic_s()
        drawn = draw(samplers, scores, [lane.resident.forced_last_id if last else None for last in is_last])
        for row, token, last in zip(rows, drawn, is_last, strict=True):
            if token is None:
                log.error("job %s on %s ends: its scores are not finite", row.job.id, lane.resident.loaded.id)
                self._fail(lane, row)
                continue
            row.produced.append(token.id)
            lane.tally.produce(row.job.id, now_s)
            lane.waiting.charge(row.job.tenant, row.job.weight, 1)
            self._emit(
                TokenEvent(
                    job_id=row.job.id,
                    ids=(token.id,),
                    logprobs=(token.logprob,) if token.logprob is not None else (),
                    top=(token.top,) if token.logprob is not None else (),
                )
            )
            if token.id in row.job.stop_ids:
                self._finish(lane, row, FinishReason.STOP)
            elif last:
                self._finish(lane, row, FinishReason.LENGTH)

    def _advance_beams(self, lane: Lane, decoder: Decoder, row: Row, beams: Beams, scores: torch.Tensor) -> None:
        lane.tally.produce(row.job.id, self._clock.monotonic_s())
        parents = beams.advance(scores)
        lane.waiting.charge(row.job.tenant, row.job.weight, len(row.slots))
        if beams.is_done:
            row.produced = list(beams.best)
            self._emit(TokenEvent(job_id=row.job.id, ids=tuple(row.produced)))
            has_stopped = bool(row.produced) and row.produced[-1] in row.job.stop_ids
            self._finish(lane, row, FinishReason.STOP if has_stopped else FinishReason.LENGTH)
            return
        row.produced = beams.sequences[0]
        moved = [(row.slots[parent], slot) for parent, slot in zip(parents, row.slots, strict=True)
                 if row.slots[parent] != slot]  # fmt: skip
        if moved:
            decoder.cache.copy_slots([source for source, _ in moved], [target for _, target in moved], row.fed)

    def _finish(self, lane: Lane, row: Row, reason: FinishReason) -> None:
        self._end(lane, row, FinishedEvent(job_id=row.job.id, reason=reason, usage=row.usage))

    def _fail(self, lane: Lane, row: Row) -> None:
        if row in lane.rows:
            self._end(lane, row, FailedEvent(job_id=row.job.id, error=InternalError(), usage=row.usage))

    def _end(self, lane: Lane, row: Row, event: FinishedEvent | FailedEvent) -> None:
        row.phase = Phase.FINISHED
        lane.rows.remove(row)
        lane.choosers.pop(row.job.id, None)
        self._paused.discard(row.job.id)
        if isinstance(lane.resident.model, Decoder):
            lane.resident.model.slots_free.extend(row.slots)
        self._leave(lane, event)

    def _leave(self, lane: Lane, event: FinishedEvent | FailedEvent) -> None:
        """A job's last event, with its times."""
        self._emit(replace(event, times=lane.tally.leave(event.job_id, self._clock.monotonic_s())))


def slots_needed(job: Job) -> int:
    """Cache places that a job takes: one, or one a beam."""
    return job.search.beams if isinstance(job, DecodeJob) and isinstance(job.search, BeamSearch) else 1


def feeds_of(row: Row, count: int, choosers: dict[str, Sampler | Beams]) -> list[Feed]:
    """What a planned step feeds: the next `count` tokens of the row, or the last token of each of its beams."""
    chooser = choosers[row.job.id]
    if isinstance(chooser, Beams) and row.phase is Phase.DECODING:
        return [Feed(s, row.fed, (tokens[-1],)) for s, tokens in zip(row.slots, chooser.sequences, strict=True)]
    tokens = (*row.prompt, *row.produced)
    return [Feed(row.slots[0], row.fed, tokens[row.fed : row.fed + count])]

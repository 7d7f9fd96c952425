"""The decoders' steps: rows are seated in slots, fed as planned, and advance by the tokens that they draw."""

import logging
from collections.abc import Callable
from dataclasses import replace

import torch

from app.clock import Clock
from app.engine.client import LaneStats
from app.engine.compute.beams import Beams, Candidate, inherit, search
from app.engine.compute.choice import Scores
from app.engine.compute.decode import Decoder, Feed
from app.engine.compute.models import Resident
from app.engine.compute.prompts import score_prompt
from app.engine.compute.sampling import Sampler, draw
from app.engine.events import Event, FailedEvent, FinishedEvent, FinishReason, PromptEvent, TokenEvent
from app.engine.jobs import BeamSearch, DecodeJob, Job
from app.engine.lane import Lane
from app.engine.schedule.plan import StepPlan, plan_step
from app.engine.schedule.row import Phase, Row
from app.engine.schedule.slots import SlotPool
from app.engine.settings import EngineSettings
from app.errors import InternalError, TollgateError

DEFAULT_TOKENS = {"cpu": 512, "cuda": 8192}
"""Of a step."""
log = logging.getLogger(__name__)


class DecodeLane(Lane):
    """A decoder, its line and its rows."""

    def __init__(
        self, *, resident: Resident, decoder: Decoder, settings: EngineSettings, clock: Clock,
        emit: Callable[[Event], None], flush: Callable[[], None],
    ) -> None:  # fmt: skip
        super().__init__(resident=resident, settings=settings, clock=clock, emit=emit)
        self.decoder = decoder
        self._flush = flush
        self._step_tokens = DEFAULT_TOKENS[torch.device(resident.loaded.device).type]
        self._pool = SlotPool(decoder.slots, shared_tokens_min=settings.prefix_tokens)
        self._rows: list[Row] = []
        self._choosers: dict[str, Sampler | Beams] = {}
        self._paused: set[str] = set()
        self._prompt_tokens = 0
        self._reused_tokens = 0

    @property
    def running(self) -> int:
        """See Lane.running."""
        return len(self._rows)

    @property
    def kv_usage(self) -> float:
        """See Lane.kv_usage."""
        return 1 - self._pool.free_count / self._pool.size

    @property
    def flushes_ahead(self) -> bool:
        """See Lane.flushes_ahead. A device that works by itself does so beside the messages."""
        return self.decoder.runs_ahead and bool(self._rows)

    @property
    def stats(self) -> LaneStats:
        """See Lane.stats."""
        return replace(super().stats, prompt_tokens=self._prompt_tokens, reused_tokens=self._reused_tokens)

    def cancel(self, job_id: str) -> None:
        """See Lane.cancel."""
        super().cancel(job_id)
        for row in [row for row in self._rows if row.job.id == job_id]:
            self._finish(row, FinishReason.CANCELLED)

    def pause(self, job_id: str, *, is_paused: bool) -> None:
        """A slow reader's row keeps its slots and is fed nothing until it resumes."""
        is_seated = any(row.job.id == job_id for row in self._rows)
        (self._paused.add if is_paused and is_seated else self._paused.discard)(job_id)

    def drop(self, error: TollgateError) -> None:
        """See Lane.drop."""
        super().drop(error)
        for row in list(self._rows):
            self._end(row, FailedEvent(job_id=row.job.id, error=error, usage=row.usage))

    def step(self) -> bool:
        """See Lane.step."""
        self._seat()
        rows = [row for row in self._rows if row.job.id not in self._paused]
        plan = plan_step(rows, step_tokens=self._settings.step_tokens or self._step_tokens)
        if not plan:
            return False
        began_s = self._clock.monotonic_s()
        try:
            feeds = [feed for step in plan for feed in feeds_of(step.row, step.count, self._choosers)]
            hidden, scores = self.decoder.step(feeds)
        except Exception:
            log.exception("a step of %d rows failed on %s", len(plan), self.resident.loaded.id)
            for step in plan:
                self._fail(step.row)
            return True
        if self.decoder.runs_ahead:
            self._flush()  # what the last step found goes out while the device works
        self._score_prompts(plan, hidden)
        self._apply(plan, scores)
        tokens = sum(step.count for step in plan)
        now_s = self._clock.monotonic_s()
        self.tally.step(rows=len(plan), tokens=tokens, seconds=now_s - began_s)
        self.tally.pace.step(now_s, is_backlogged=bool(self.waiting))
        return True

    def _seat(self) -> None:
        """Give slots to waiting jobs in fair order while there are any."""
        seated: list[Row] = []
        while True:
            free = self._pool.free_count
            job = self.waiting.take(lambda job: slots_needed(job) <= free)  # noqa: B023
            if job is None:
                break
            assert isinstance(job, DecodeJob), "a decoder's line holds decode jobs. This is a bug."
            row = self._row(job)
            self._choosers[job.id] = self._chooser(job)
            self.waiting.charge(job.tenant, job.weight, len(job.ids) - row.reused)
            self.tally.seat(job.id, self._clock.monotonic_s())
            seated.append(row)
        self._rows.extend(seated)
        try:
            self.decoder.read_sources([(row.slots, row.job.ids) for row in seated])
        except Exception:
            log.exception("reading %d sources failed on %s", len(seated), self.resident.loaded.id)
            for row in seated:
                self._fail(row)

    def _row(self, job: DecodeJob) -> Row:
        """A row in its slots, with what its prompt shares with one that a slot still holds."""
        row = Row(job=job, prompt=self.decoder.prompt_of(job.ids))
        reusable = 0 if job.prompt_logprobs is not None else len(row.prompt) - 1
        seat = self._pool.take(row.slots_needed, job.tenant, row.prompt, reusable=reusable)
        if seat.source is not None:
            self.decoder.cache.copy_slots([seat.source], [seat.slots[0]], seat.reused)
        self._pool.note(seat.slots[0], seat.reused)
        self._prompt_tokens += len(row.prompt)
        self._reused_tokens += seat.reused
        row.slots, row.fed, row.reused, row.phase = seat.slots, seat.reused, seat.reused, Phase.PREFILLING
        return row

    def _chooser(self, job: DecodeJob) -> Sampler | Beams:
        resident = self.resident
        if isinstance(job.search, BeamSearch):
            return Beams(
                search=job.search, tokens_max=job.max_new_tokens, stop_ids=job.stop_ids, banned=resident.banned,
                forced_last_id=resident.forced_last_id,
            )  # fmt: skip
        return Sampler(job.search, job.ids, logprobs=job.logprobs, banned=resident.banned, stop_ids=job.stop_ids)

    def _score_prompts(self, plan: StepPlan, hidden: torch.Tensor) -> None:
        """Report the log-probabilities of the prompt tokens that the fed ones foretell, where a job asks for them."""
        place = 0
        for step in plan:
            row, top = step.row, step.row.job.prompt_logprobs
            is_prompt = row.phase is Phase.PREFILLING
            if is_prompt and top is not None:
                targets = row.prompt[row.fed + 1 : row.fed + step.count + 1]
                try:
                    found = score_prompt(self.decoder, hidden[place : place + len(targets)], targets, top=top)
                except Exception:
                    log.exception("a prompt could not be scored on %s", row.job.model)
                    self._fail(row)
                else:
                    if targets:
                        self._emit(PromptEvent(job_id=row.job.id, logprobs=found.logprobs, top=found.top))
            place += step.count if is_prompt else len(row.slots)

    def _apply(self, plan: StepPlan, scores: Scores) -> None:
        """Advance each row that has fed all it had: sampled rows together, then each row's beams."""
        place = 0
        sampled: list[tuple[Row, int]] = []
        searched: list[tuple[Row, Beams]] = []
        hypotheses: list[int] = []
        for step in plan:
            row = step.row
            count = len(row.slots) if row.phase is Phase.DECODING else 1
            if row.phase is Phase.FINISHED:  # its prompt could not be scored
                place += count
                continue
            chooser = self._choosers[row.job.id]
            if step.completes:
                row.phase = Phase.DECODING
                if row.job.max_new_tokens == 0:
                    self._finish(row, FinishReason.LENGTH)
                elif isinstance(chooser, Beams):
                    searched.append((row, chooser))
                    hypotheses.extend(range(place, place + count))
                else:
                    sampled.append((row, place))
            place += count
            row.fed += step.count
        if sampled:
            self._draw([row for row, _ in sampled], some_rows(scores, [place for _, place in sampled]))
        if searched:
            self._search(searched, some_rows(scores, hypotheses).values)

    def _draw(self, rows: list[Row], scores: Scores) -> None:
        """The next token of each of `rows`, from their scores."""
        samplers: list[Sampler] = []
        for row in rows:
            chooser = self._choosers[row.job.id]
            assert isinstance(chooser, Sampler), "rows with beams advance by themselves. This is a bug."
            samplers.append(chooser)
        is_last = [len(row.produced) + 1 == row.job.max_new_tokens for row in rows]
        now_s = self._clock.monotonic_s()
        drawn = draw(samplers, scores, [self.resident.forced_last_id if last else None for last in is_last])
        for row, token, last in zip(rows, drawn, is_last, strict=True):
            if token is None:
                log.error("job %s on %s ends: its scores are not finite", row.job.id, self.resident.loaded.id)
                self._fail(row)
                continue
            self._offer(row)
            row.produced.append(token.id)
            self.tally.produce(row.job.id, now_s)
            self.waiting.charge(row.job.tenant, row.job.weight, 1)
            self._emit(
                TokenEvent(
                    job_id=row.job.id,
                    ids=(token.id,),
                    logprobs=(token.logprob,) if token.logprob is not None else (),
                    top=(token.top,) if token.logprob is not None else (),
                )
            )
            if token.id in row.job.stop_ids:
                self._finish(row, FinishReason.STOP)
            elif last:
                self._finish(row, FinishReason.LENGTH)

    def _search(self, rows: list[tuple[Row, Beams]], scores: torch.Tensor) -> None:
        """The next hypotheses of `rows`, from the scores (hypotheses of all of them, vocabulary)."""
        copies: list[tuple[int, int]] = []
        for (row, beams), candidates in zip(rows, search([beams for _, beams in rows], scores), strict=True):
            if candidates is None:
                log.error("job %s on %s ends: its scores are not finite", row.job.id, self.resident.loaded.id)
                self._fail(row)
                continue
            try:
                copies += self._advance(row, beams, candidates)
            except Exception:
                log.exception("a row failed on %s", self.resident.loaded.id)
                self._fail(row)
        if copies:
            longest = max(row.fed for row, _ in rows)
            self.decoder.cache.copy_slots([source for source, _ in copies], [target for _, target in copies], longest)

    def _advance(self, row: Row, beams: Beams, candidates: list[Candidate]) -> list[tuple[int, int]]:
        """One step of a row's beams → what must be copied: (from slot, to slot)."""
        self.tally.produce(row.job.id, self._clock.monotonic_s(), len(row.slots))
        self._offer(row)
        parents = beams.advance(candidates)
        self.waiting.charge(row.job.tenant, row.job.weight, len(row.slots))
        if beams.is_done:
            row.produced, *others = beams.found[: beams.search.returned]
            row.others = tuple(map(tuple, others))
            self._emit(TokenEvent(job_id=row.job.id, ids=tuple(row.produced)))
            has_stopped = bool(row.produced) and row.produced[-1] in row.job.stop_ids
            self._finish(row, FinishReason.STOP if has_stopped else FinishReason.LENGTH)
            return []
        row.produced = beams.sequences[0]
        row.slots, copies = inherit(row.slots, parents)
        return copies

    def _offer(self, row: Row) -> None:
        """Once the first scores are finite, so is all that the prompt left in the cache, and others may build on it."""
        if not row.produced:
            self._pool.note(row.slots[0], len(row.prompt))

    def _finish(self, row: Row, reason: FinishReason) -> None:
        self._end(row, FinishedEvent(job_id=row.job.id, reason=reason, usage=row.usage, others=row.others))

    def _fail(self, row: Row) -> None:
        if row in self._rows:
            self.decoder.cache.clear(row.slots)
            self._end(row, FailedEvent(job_id=row.job.id, error=InternalError(), usage=row.usage))

    def _end(self, row: Row, event: FinishedEvent | FailedEvent) -> None:
        row.phase = Phase.FINISHED
        self._rows.remove(row)
        self._choosers.pop(row.job.id, None)
        self._paused.discard(row.job.id)
        self._pool.give_back(row.slots, keeps_prompt=not isinstance(event, FailedEvent))
        self._leave(event)


def slots_needed(job: Job) -> int:
    """Cache places that a job takes: one, or one a beam."""
    return job.search.beams if isinstance(job, DecodeJob) and isinstance(job.search, BeamSearch) else 1


def some_rows(scores: Scores, places: list[int]) -> Scores:
    """The scores of the rows `places`; the very same when these are all of them."""
    if places == list(range(len(scores.values))):
        return scores
    return Scores(scores.values[places])


def feeds_of(row: Row, count: int, choosers: dict[str, Sampler | Beams]) -> list[Feed]:
    """What a planned step feeds: the next `count` tokens of the row, or the last token of each of its beams."""
    chooser = choosers[row.job.id]
    if isinstance(chooser, Beams) and row.phase is Phase.DECODING:
        return [Feed(s, row.fed, (tokens[-1],)) for s, tokens in zip(row.slots, chooser.sequences, strict=True)]
    if row.fed < len(row.prompt):
        ids = (*row.prompt[row.fed : row.fed + count], *row.produced[: max(0, row.fed + count - len(row.prompt))])
    else:
        ids = tuple(row.produced[row.fed - len(row.prompt) : row.fed - len(row.prompt) + count])
    return [Feed(row.slots[0], row.fed, ids, is_prompt=row.phase is not Phase.DECODING)]

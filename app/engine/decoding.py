"""The decoders' steps: rows are seated in slots, fed as planned, and advance by the tokens that they draw."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from app.clock import Clock
from app.engine.client import LaneStats
from app.engine.compute.beams import Beams, Candidate, inherit, search
from app.engine.compute.choice import POISONED, Scores
from app.engine.compute.cuda.flights import NOTHING, STEPS, Flight
from app.engine.compute.decode import Decoder
from app.engine.compute.models import Resident
from app.engine.compute.prompts import score_prompt
from app.engine.compute.sampling import Sampler, draw
from app.engine.events import Event, FailedEvent, FinishedEvent, FinishReason, PromptEvent, TokenEvent
from app.engine.flying import Party, feeds_of, party_of
from app.engine.jobs import BeamSearch, DecodeJob, Job
from app.engine.lane import Lane
from app.engine.schedule.plan import RowStep, StepPlan, plan_step
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
        emit: Callable[[Event], None], flush: Callable[[], None], is_called: Callable[[], bool],
    ) -> None:  # fmt: skip
        super().__init__(resident=resident, settings=settings, clock=clock, emit=emit)
        self.decoder = decoder
        self._flush = flush
        self._is_called = is_called
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
        try:
            self._run(plan)
        except Exception:
            log.exception("a step of %d rows failed on %s", len(plan), self.resident.loaded.id)
            for step in plan:
                self._fail(step.row)
            return True
        self.tally.pace.step(self._clock.monotonic_s(), is_backlogged=bool(self.waiting))
        return True

    def _run(self, plan: StepPlan) -> None:
        """Feed what is planned, and take what comes of it."""
        began_s = self._clock.monotonic_s()
        party = party_of(plan, self._choosers) if self.decoder.flies else None
        if party is not None:
            self._fly(plan, party, began_s)
            return
        feeds = [feed for step in plan for feed in feeds_of(step.row, step.count, self._choosers)]
        hidden, scores = self.decoder.step(feeds)
        if self.decoder.runs_ahead:
            self._flush()  # what the last step found goes out while the device works
        self._score_prompts(plan, hidden)
        self._apply(plan, scores)
        self._tally(plan, began_s)

    def _fly(self, plan: StepPlan, party: Party, began_s: float) -> None:
        """Start the prompts and then the flight, with those whose prompts these were; then take what comes."""
        read = [step for step in plan if step.row.phase is Phase.PREFILLING]
        joining = [place for place, step in enumerate(read) if step in party.joining]
        others = [place for place, step in enumerate(read) if step not in party.joining]
        feeds = [feed for step in read for feed in feeds_of(step.row, step.count, self._choosers)]
        hidden, scores = self.decoder.read(feeds) if read else (None, None)
        flight = self.decoder.fly(
            party.feeds, party.samplers, self.resident.banned, min(STEPS, party.steps),
            first=scores.some(joining) if scores is not None and joining else None,
        )  # fmt: skip
        self._flush()
        if hidden is not None:
            self._score_prompts(read, hidden)
        for step in party.joining:
            step.row.phase = Phase.DECODING
            step.row.fed = len(step.row.prompt) - 1
        self._follow(party, flight, began_s, is_alone=not others)
        if scores is not None and others:
            began_s = self._clock.monotonic_s()
            self._apply([read[place] for place in others], scores.some(others))
            self._tally([read[place] for place in others], began_s)

    def _follow(self, party: Party, flight: Flight, began_s: float, *, is_alone: bool) -> None:
        """Take the tokens of a flight as they come, and let it go on while nobody but its rows is there."""
        forced = self.resident.forced_last_id
        for ids in flight:
            is_alone = is_alone and POISONED not in ids
            if is_alone and flight.left == 1:
                flight.go_on(self._more(party.rows, flight))
            now_s = self._clock.monotonic_s()
            told = [
                (row, token) for row, token in zip(party.rows, ids, strict=True)
                if row.phase is Phase.DECODING and token != NOTHING
            ]  # fmt: skip
            self.tally.step(rows=len(told), tokens=len(told), seconds=now_s - began_s)
            began_s = now_s
            for row, token in told:
                row.fed += 1
                is_last = row.left == 1 and token != POISONED
                self._produce(row, forced if is_last and forced is not None else token, now_s)
            self._flush()

    def _more(self, rows: Sequence[Row], flight: Flight) -> int:
        """How many steps a flight goes on for, of which one step was just read and one is under way."""
        going = [row.left - 2 for row in rows if row.phase is Phase.DECODING]
        if flight.is_long or 2 * len(going) < len(rows) or self.waiting or self._is_called():
            return 0
        return max(0, min(STEPS, max(going, default=0)))

    def _tally(self, plan: Sequence[RowStep], began_s: float) -> None:
        spent_s = self._clock.monotonic_s() - began_s
        self.tally.step(rows=len(plan), tokens=sum(step.count for step in plan), seconds=spent_s)

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

    def _score_prompts(self, plan: Sequence[RowStep], hidden: torch.Tensor) -> None:
        """Report the log-probabilities of the prompt tokens that the fed ones foretell, where a job asks for them."""
        place = 0
        for step in plan:
            row, top = step.row, step.row.job.prompt_logprobs
            is_prompt = row.phase is Phase.PREFILLING
            wanted = 1 if is_prompt else len(row.slots)
            if is_prompt and top is not None:
                wanted = step.count
                targets = row.prompt[row.fed + 1 : row.fed + step.count + 1]
                try:
                    found = score_prompt(self.decoder, hidden[place : place + len(targets)], targets, top=top)
                except Exception:
                    log.exception("a prompt could not be scored on %s", row.job.model)
                    self._fail(row)
                else:
                    if targets:
                        self._emit(PromptEvent(job_id=row.job.id, logprobs=found.logprobs, top=found.top))
            place += wanted

    def _apply(self, plan: Sequence[RowStep], scores: Scores) -> None:
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
        if sampled and searched:
            _ = scores.values  # once for both
        if sampled:
            self._draw([row for row, _ in sampled], scores.some([place for _, place in sampled]))
        if searched:
            self._search(searched, scores.some(hypotheses).values)

    def _draw(self, rows: list[Row], scores: Scores) -> None:
        """The next token of each of `rows`, from their scores."""
        samplers: list[Sampler] = []
        for row in rows:
            chooser = self._choosers[row.job.id]
            assert isinstance(chooser, Sampler), "rows with beams advance by themselves. This is a bug."
            samplers.append(chooser)
        now_s = self._clock.monotonic_s()
        drawn = draw(samplers, scores, [self.resident.forced_last_id if row.left == 1 else None for row in rows])
        for row, token in zip(rows, drawn, strict=True):
            if token is None:
                self._produce(row, POISONED, now_s)
            elif token.logprob is None:
                self._produce(row, token.id, now_s)
            else:
                self._produce(row, token.id, now_s, (token.logprob,), (token.top,))

    def _produce(
        self, row: Row, token: int, now_s: float, logprobs: tuple[float, ...] = (),
        top: tuple[tuple[tuple[int, float], ...], ...] = (),
    ) -> None:  # fmt: skip
        """A sampled row has one token more, or has failed."""
        if token == POISONED:
            log.error("job %s on %s ends: its scores are not finite", row.job.id, self.resident.loaded.id)
            self._fail(row)
            return
        self._offer(row)
        row.produced.append(token)
        self.tally.produce(row.job.id, now_s)
        self.waiting.charge(row.job.tenant, row.job.weight, 1)
        self._emit(TokenEvent(job_id=row.job.id, ids=(token,), logprobs=logprobs, top=top))
        if token in row.job.stop_ids:
            self._finish(row, FinishReason.STOP)
        elif not row.left:
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

"""The road of a request: who asks, which model, how much, may it run, run it, settle it. Its order stands here only."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

from app.admission.authenticate import Authenticator, Principal
from app.admission.forecast import Forecast
from app.admission.gate import HOLD_TOKENS, Gate, Reservation
from app.admission.limits import Limits, Standing
from app.clock import Clock
from app.engine.client import EngineClient
from app.engine.events import Event, FailedEvent, FinishedEvent, TokenEvent
from app.engine.session import JobSession, open_jobs
from app.errors import DeadlineExceeded, Draining, KeyRevoked, RequestCancelled, TaskMismatch, TollgateError
from app.metering.books import Books
from app.metering.database import new_id
from app.metering.ledger import Admission, Outcome, Receipt, Usage, ask_to_cancel, estimate
from app.observability.journey import CURRENT
from app.observability.metrics import Metrics, Watched
from app.registry.model import Model, TaskName
from app.registry.residency import Residency, State
from app.running import Run, Runs, within
from app.tasks.task import Caller, Prepared, Task

log = logging.getLogger(__name__)
E = TypeVar("E")
P = TypeVar("P", bound=Prepared)


class Answer(Generic[E, P]):
    """A request that runs: its events, what was prepared for it, and its settling."""

    def __init__(
        self, *, request_id: str, prepared: P, events: AsyncIterator[E], session: JobSession, reservation: Reservation
    ) -> None:
        self.request_id = request_id
        self.prepared = prepared
        self.ended_by: TollgateError | None = None
        """Why nothing more of it leaves: its key was revoked, or the replica's time to drain is over."""
        self.is_cancelled = False
        """Its customer wanted no more: what has left is the answer, if it may end anywhere."""
        self._events = events
        self._session = session
        self._reservation = reservation

    async def events(self) -> AsyncIterator[E]:
        """Results as they come; each is noted as delivered before it leaves, so that no crash gives it away.

        Raises `ended_by` when somebody has ended it meanwhile.
        """
        try:
            async for event in self._events:
                if self.ended_by is not None:
                    break
                self._reservation.note(self.delivered())
                yield event
        except TollgateError as error:
            if self.ended_by is not None:
                raise self.ended_by from error
            raise
        if self.ended_by is not None:
            raise self.ended_by

    @property
    def cached_tokens(self) -> int:
        """Of the input, what the engine had read before for this tenant; charged like the rest. Known at the end."""
        return min(self.prepared.input_tokens, self._session.total_usage.cached_tokens)

    def delivered(self) -> Usage:
        """What has left so far."""
        prepared = self.prepared
        return Usage(
            input_tokens=prepared.input_tokens,
            cached_tokens=self.cached_tokens,
            output_tokens=prepared.delivered_tokens,
            characters=prepared.characters,
        )

    def used(self) -> Usage:
        """What a customer owes who broke it off: what was read, and what was delivered, or produced for a whole answer.

        Never more than the budgets were asked for.
        """
        done, account = self._session.total_usage, self._reservation
        read = min(self.prepared.input_tokens, done.input_tokens)
        produced = max(done.output_tokens, self.prepared.delivered_tokens)
        output = self.prepared.delivered_tokens if account.is_streaming else account.covered(produced)
        return Usage(input_tokens=read, output_tokens=output, characters=self.prepared.characters if read else 0)

    async def settle(self) -> Receipt:
        """Commit the entry: after the last event, before the last chunk, so that what is shown is durable."""
        began_s = time.perf_counter()
        if self.is_cancelled:
            used = replace(self.used(), output_tokens=self.prepared.delivered_tokens)
            receipt = await self._reservation.settle(Outcome.CANCELLED, used)
        else:
            receipt = await self._reservation.settle(Outcome.FINISHED, self.delivered())
        if (journey := CURRENT.get()) is not None:
            journey.settle_began_s, journey.settle_s = began_s, time.perf_counter() - began_s
        return receipt

    async def cancel(self) -> None:
        """End its jobs; their terminal events still come."""
        self.is_cancelled = self.prepared.is_cancelled = True
        for job in self.prepared.jobs:
            await self._session.cancel(job.id)


class Serving:
    """The rooms that a request passes, in order."""

    def __init__(
        self, *, authenticator: Authenticator, residency: Residency, limits: Limits, gate: Gate, engine: EngineClient,
        books: Books, clock: Clock, metrics: Metrics, timeout_s: float, queue_wait_s: float,
        replica_id: str = "local",
    ) -> None:  # fmt: skip
        self.residency = residency
        self.books = books
        self.clock = clock
        self.engine = engine
        self.metrics = metrics
        self.is_leaving = False
        """Told to end: not ready, but what comes is still served, until balancers have noticed."""
        self.runs = Runs()
        self.is_draining = False
        """What comes is refused; what runs goes on."""
        self.is_started = False
        self.began_s = clock.monotonic_s()
        self._answers: set[Answer[Any, Any]] = set()
        self._authenticator = authenticator
        self._limits = limits
        self._gate = gate
        self._timeout_s = timeout_s
        self._forecast = Forecast(stats=engine.stats, clock=clock, wait_s_max=queue_wait_s)
        self._replica_id = replica_id
        authenticator.on_changes = self._hear

    @property
    def reason_unready(self) -> str | None:
        """Why requests should go elsewhere; None when they should come."""
        if self.is_leaving:
            return "draining"
        if not self.engine.stats().is_alive:
            return "the engine is down" if self.is_started else "starting the engine"
        if not self.is_started:
            return "loading models"
        if not any(place.state is State.RESIDENT for place in self.residency.places):
            return "no model is loaded"
        return None

    async def authenticate(self, presented: str | None, peer: str | None) -> Principal:
        """See Authenticator.authenticate."""
        return await self._authenticator.authenticate(presented, peer)

    async def notice_changes(self) -> None:
        """Take note, now, of keys and tenants that changed; other replicas do within a poll."""
        await self._authenticator.poll()

    def standing(self, principal: Principal) -> list[Standing]:
        """See Limits.standing."""
        return self._limits.standing(principal)

    def new_request_id(self) -> str:
        """A fresh id, sorted by time: the name of the ledger's entry."""
        return new_id("req", self.clock)

    async def estimate(
        self, task: Task[Any, Prepared, Any], request: Any, *, model: str, principal: Principal, request_id: str
    ) -> tuple[Prepared, Admission, int | None]:
        """What `request` would be: prepared, priced, and what is left in the budgets. Nothing runs or is held."""
        principal.require(task=task.name.value, model=model)
        caller = Caller(request_id=request_id, tenant=principal.tenant_id, weight=principal.weight)
        async with self.residency.lease(model) as resident:
            prepared = await task.prepare(request, resident, caller)
        asked = self._admission(prepared, task.name, resident.model, principal, request_id, route="/v1/estimate")
        priced, left = await self.books.database.run(lambda c: estimate(c, asked, clock=self.clock))
        return prepared, priced, left

    @asynccontextmanager
    async def open(
        self, task: Task[Any, P, E], request: Any, *, model: str, principal: Principal, request_id: str, route: str,
        is_streaming: bool = False,
    ) -> AsyncGenerator[Answer[E, P]]:  # fmt: skip
        """Run `request`. Leaving the scope, however it comes, stops the engine's work and leaves one entry."""
        if self.is_draining:
            raise Draining
        principal.require(task=task.name.value, model=model)
        place = self.residency.find(model)
        if task.name not in place.model.tasks:
            does = ", ".join(name.value for name in place.model.tasks)
            raise TaskMismatch(f"The model {model} does {does}, not {task.name.value}.", field="model")
        run = self.runs.find(request_id) or Run()
        run.tenant_id = principal.tenant_id
        with self.metrics.request(task=task.name.value, model=model) as watched:
            if (journey := CURRENT.get()) is not None:
                journey.run(
                    watched, tenant=principal.tenant, key_id=principal.key_id, task=task.name.value, model=model
                )
            try:
                self._forecast.refuse_late(place.model.id, principal.tenant_id, principal.weight)
                async with (
                    within(run.timeout_s),
                    self._authenticator.watch(principal) as revoked,
                    self._run(
                        task, request, place.model, principal, request_id, route, is_streaming, watched, run
                    ) as answer,
                ):
                    watcher = asyncio.create_task(self._end_when(revoked, answer))
                    self._answers.add(answer)
                    run.end = answer.cancel
                    if run.is_cancelled:
                        await answer.cancel()
                    try:
                        yield answer
                    finally:
                        run.end = None
                        watcher.cancel()
                        self._answers.discard(answer)
                        watched.tokens(answer.prepared.input_tokens, answer.prepared.delivered_tokens)
                        watched.output_tokens_asked = answer.prepared.output_tokens_max
            except TollgateError as error:
                watched.outcome = error.code
                raise

    @asynccontextmanager
    async def _run(
        self,
        task: Task[Any, P, E],
        request: Any,
        model: Model,
        principal: Principal,
        request_id: str,
        route: str,
        is_streaming: bool,
        watched: Watched,
        run: Run,
    ) -> AsyncGenerator[Answer[E, P]]:
        caller = Caller(
            request_id=request_id, tenant=principal.tenant_id, weight=principal.weight, is_streaming=is_streaming
        )  # fmt: skip
        deadline_s = None if run.timeout_s is None else self.clock.monotonic_s() + run.timeout_s
        async with self.residency.lease(model.id) as resident:
            prepared = await task.prepare(request, resident, caller)
            if deadline_s is not None:
                prepared.jobs = tuple(replace(job, deadline_s=deadline_s) for job in prepared.jobs)
            if (count := sum(prepared.is_truncated)) > 0:
                run.texts_cut += count
                self.metrics.counter("tollgate_truncated_inputs").labels(task.name.value, model.id).inc(count)
            admission = replace(
                self._admission(prepared, task.name, model, principal, request_id, route=route), once=run.once
            )
            permit = self._limits.permit(
                principal, request_id=request_id, input_tokens=prepared.input_tokens,
                output_tokens_max=prepared.output_tokens_max, is_output_asked=prepared.is_output_asked,
            )  # fmt: skip
            async with (
                self._forecast.standing(prepared.jobs), permit as permitted,
                self._gate.admit(admission, is_streaming=is_streaming) as reservation,
            ):  # fmt: skip
                prepared.allow = reservation.allow
                answer: Answer[E, P] | None = None
                watched.submit()
                try:
                    async with (
                        asyncio.timeout(self._timeout_s),
                        open_jobs(self.engine, prepared.jobs, watch=partial(self._note, watched, model.id)) as session,
                    ):
                        answer = Answer(
                            request_id=request_id, prepared=prepared, session=session, reservation=reservation,
                            events=task.events(prepared, session),
                        )  # fmt: skip
                        yield answer
                except TimeoutError as cause:
                    raise DeadlineExceeded from cause
                except (asyncio.CancelledError, GeneratorExit, RequestCancelled):
                    if answer is not None:
                        reservation.note(answer.used())
                    raise
                finally:
                    used = reservation.delivered
                    permitted.tokens_used = used.input_tokens + used.output_tokens

    def _admission(
        self, prepared: Prepared, task: TaskName, model: Model, principal: Principal, request_id: str, *, route: str
    ) -> Admission:
        return Admission(
            request_id=request_id, tenant_id=principal.tenant_id, key_id=principal.key_id, model=model.id,
            task=task.value, route=route, input_tokens=prepared.input_tokens,
            output_tokens_max=prepared.output_tokens_max, characters=prepared.characters, is_free=model.is_free,
            output_tokens_held=HOLD_TOKENS if prepared.is_cut_anywhere else None, replica_id=self._replica_id,
        )  # fmt: skip

    async def end(self, answer: Answer[Any, Any], error: TollgateError) -> None:
        """Let nothing more of an answer leave; its reader is told why, and it is settled as far as it came."""
        if answer.ended_by is None:
            answer.ended_by = error
            for job in answer.prepared.jobs:
                await self.engine.cancel(job.id)

    async def cut_off(self) -> None:
        """The time to drain is over: end what still runs."""
        if self._answers:
            log.warning("the time to drain is over; %d requests are cut off and settled", len(self._answers))
        for answer in list(self._answers):
            await self.end(answer, Draining("This replica shut down before the answer was whole; try again."))

    async def cancel(self, request_id: str, *, tenant_id: str | None) -> bool:
        """End a request in order; of any tenant if `tenant_id` is None. False: it had ended before.

        One that runs in another process ends within a poll of the database. Raises NotFound.
        """
        run = self.runs.find(request_id)
        if run is not None and run.tenant_id is not None and tenant_id in (None, run.tenant_id):
            await run.cancel()
            return True
        return await self.books.database.run(
            lambda connection: ask_to_cancel(connection, request_id=request_id, tenant_id=tenant_id, clock=self.clock)
        )

    async def _hear(self, changed: frozenset[str]) -> None:
        """What other processes changed: here, the requests that they were asked to end."""
        for request_id in changed & set(self.runs):
            if (run := self.runs.find(request_id)) is not None:
                await run.cancel()

    async def _end_when(self, revoked: asyncio.Event, answer: Answer[Any, Any]) -> None:
        await revoked.wait()
        log.info("request %s ends: its key was revoked", answer.request_id)
        await self.end(answer, KeyRevoked())

    def _note(self, watched: Watched, model: str, event: Event) -> None:
        """What metrics and forecast want to know of an event."""
        self._forecast.begin(model, event.job_id)
        note(watched, event)


def note(watched: Watched, event: Event) -> None:
    """What the metrics want to know of an event."""
    if isinstance(event, TokenEvent):
        watched.produced(event.job_id, len(event.ids))
    elif isinstance(event, FinishedEvent | FailedEvent) and event.times is not None:
        times = event.times
        reason = event.reason.value if isinstance(event, FinishedEvent) else "error"
        watched.ran(reason=reason, queue_s=times.queue_s, prefill_s=times.prefill_s, decode_s=times.decode_s)

"""The jobs of one request as a scope: leaving it cancels what still runs and waits for its exact usage."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from app.engine.client import EngineClient
from app.engine.events import Event, FailedEvent, FinishedEvent, FinishReason, JobUsage
from app.engine.jobs import Job

JOBS_AT_ONCE = 256
"""Of one request in the engine's hands: a long list of texts must not fill the line in which all customers wait."""


class JobSession:
    """The merged events of several jobs, and what each has used."""

    def __init__(
        self, engine: EngineClient, jobs: Sequence[Job], *, watch: Callable[[Event], None], at_once: int
    ) -> None:
        self._engine = engine
        self._watch = watch
        self._usage: dict[str, JobUsage | None] = {job.id: None for job in jobs}
        self._queue: asyncio.Queue[Event] = asyncio.Queue(maxsize=max(1, len(jobs)))
        self._places = asyncio.Semaphore(at_once)
        self._unsent = {job.id for job in jobs}
        self.total_usage = JobUsage()
        """The sum over the jobs that ended; exact once the scope is left."""
        self._readers = [asyncio.create_task(self._read(job)) for job in jobs]

    async def events(self) -> AsyncIterator[Event]:
        """Every job's events as they come, until each has had its terminal one. Every event passes a checkpoint."""
        open_jobs = len(self._usage)
        while open_jobs:
            if not self._queue.empty():
                await asyncio.sleep(0)
            event = await self._queue.get()
            open_jobs -= isinstance(event, FinishedEvent | FailedEvent)
            yield event

    def usage(self, job_id: str) -> JobUsage:
        """What a job used; zero while it runs."""
        return self._usage[job_id] or JobUsage()

    async def cancel(self, job_id: str) -> None:
        """End one job; its terminal event still comes."""
        self._unsent.discard(job_id)
        await self._engine.cancel(job_id)

    async def _read(self, job: Job) -> None:
        async with self._places:
            async for event in self._submitted(job):
                self._watch(event)
                if isinstance(event, FinishedEvent | FailedEvent):
                    self._usage[event.job_id] = event.usage
                    self.total_usage = self.total_usage.and_of(event.usage)
                await self._queue.put(event)

    async def _submitted(self, job: Job) -> AsyncIterator[Event]:
        """The job's events; of one that was cancelled before it was sent, the last alone."""
        if job.id not in self._unsent:
            yield FinishedEvent(job_id=job.id, reason=FinishReason.CANCELLED, usage=JobUsage())
            return
        self._unsent.discard(job.id)
        async for event in self._engine.submit(job):
            yield event

    async def _drain(self) -> None:
        while not all(reader.done() for reader in self._readers):
            while not self._queue.empty():
                self._queue.get_nowait()
            await asyncio.wait(self._readers, timeout=0.005)

    async def close(self, timeout_s: float) -> None:
        """Cancel what still runs and await its end, at most `timeout_s`; no task outlives this."""
        for job_id, usage in self._usage.items():
            if usage is None:
                await self.cancel(job_id)
        try:
            await asyncio.wait_for(self._drain(), timeout_s)
        except TimeoutError:
            for reader in self._readers:
                reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)


@asynccontextmanager
async def open_jobs(
    engine: EngineClient, jobs: Sequence[Job], *, cancel_timeout_s: float = 5.0,
    watch: Callable[[Event], None] = lambda event: None, at_once: int = JOBS_AT_ONCE,
) -> AsyncGenerator[JobSession]:  # fmt: skip
    """Submit `jobs`; the scope's end, however it comes, cancels what still runs. The clean-up is shielded.

    `watch` sees every event when it comes from the engine, which has at most `at_once` of the jobs.
    """
    session = JobSession(engine, jobs, watch=watch, at_once=at_once)
    try:
        yield session
    finally:
        await asyncio.shield(asyncio.create_task(session.close(cancel_timeout_s)))

"""A request's jobs as a scope: a long list is sent by and by, and what was cancelled before is never sent."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.clock import SystemClock
from app.engine.client import EngineClient
from app.engine.events import FinishedEvent, FinishReason, JobUsage
from app.engine.jobs import DecodeJob, EncodeJob, Head, ModelSpec
from app.engine.session import open_jobs
from app.engine.settings import EngineSettings
from app.engine.transports.inline import InlineEngine


@pytest.fixture
async def engine(checkpoints: dict[str, Path]) -> AsyncIterator[EngineClient]:
    made = InlineEngine(settings=EngineSettings(threads=1), clock=SystemClock())
    for name, head in (("tiny-gpt2", Head.GENERATE), ("tiny-bert-classifier", Head.CLASSIFY)):
        await made.load(ModelSpec(id=name, folder=str(checkpoints[name]), head=head))
    yield made
    await made.close()


async def test_a_long_list_is_sent_by_and_by_and_leaves_room_for_others(engine: EngineClient) -> None:
    jobs = [EncodeJob(id=f"long-{n}", model="tiny-bert-classifier", ids=(2, 8, 9, n % 50 + 4, 3)) for n in range(65)]
    done: set[str] = set()
    async with open_jobs(engine, jobs, at_once=16) as session:
        async for event in session.events():
            stats = engine.stats()
            assert stats.waiting + stats.running <= 16
            if isinstance(event, FinishedEvent):
                assert event.reason is FinishReason.DONE
                done.add(event.job_id)
    assert len(done) == len(jobs)
    assert session.total_usage.input_tokens == 5 * len(jobs)


async def test_what_was_never_sent_ends_cancelled_and_unread(engine: EngineClient) -> None:
    jobs = [DecodeJob(id=f"never-{n}", model="tiny-gpt2", ids=(5, 6, 7), max_new_tokens=60) for n in range(30)]
    async with open_jobs(engine, jobs, at_once=20) as session:
        reasons: dict[str, FinishReason] = {}
        async for event in session.events():
            if not reasons:
                for job in jobs:
                    await session.cancel(job.id)
            if isinstance(event, FinishedEvent):
                reasons[event.job_id] = event.reason
    assert len(reasons) == len(jobs)
    assert {reasons[job.id] for job in jobs[20:]} == {FinishReason.CANCELLED}
    assert all(session.usage(job.id) == JobUsage() for job in jobs[20:])
    assert engine.stats().waiting == 0

"""Random traffic: whatever company a job has, its tokens are its own, it ends once, and it gives back its slots."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from app.clock import SystemClock
from app.engine.client import EngineClient
from app.engine.events import Event, FailedEvent, FinishedEvent, FinishReason, JobUsage, PromptEvent, TokenEvent
from app.engine.jobs import BeamSearch, DecodeJob, Head, ModelSpec, Precision, Sampling
from app.engine.settings import EngineSettings
from app.engine.transports.inline import InlineEngine
from app.errors import DeadlineExceeded, InternalError, InvalidRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")
SETTINGS = EngineSettings(slots=6, step_tokens=16, queue_jobs=400, event_queue=16, threads=1, prefix_tokens=4)
GREEDY = Sampling(temperature=0)
KINDS = 36
POISONED_POSITION = 48
POISONED = "poisoned-gpt2"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One of the kinds of jobs, when it comes, and how its customer treats it."""

    kind: int
    after: int
    """Turns of the event loop since the one before."""
    cancel_at: int | None
    """Cancelled when it has so many tokens; 0 at once."""
    is_late: bool
    """Its deadline has passed when it arrives, or passes while it waits."""


ARRIVAL = st.builds(
    Arrival,
    kind=st.integers(0, KINDS - 1),
    after=st.integers(0, 8),
    cancel_at=st.none() | st.none() | st.integers(0, 9),
    is_late=st.sampled_from([False] * 7 + [True]),
)


def kinds() -> list[DecodeJob]:
    """Jobs of every sort; many prompts begin like others do."""
    draw = random.Random(3)
    stems = [tuple(draw.randrange(1, 290) for _ in range(40)) for _ in range(3)]
    found: list[DecodeJob] = []
    for number in range(KINDS):
        new = draw.randint(1, 14)
        search: Sampling | BeamSearch = GREEDY
        if number % 3 == 1:
            search = Sampling(
                temperature=draw.choice([0.7, 1.0, 1.4]), top_k=draw.choice([0, 5]), top_p=draw.choice([0.8, 1.0]),
                repetition_penalty=draw.choice([1.0, 1.3]), frequency_penalty=draw.choice([0.0, 0.5]), seed=number,
            )  # fmt: skip
        elif number % 3 == 2:
            search = BeamSearch(beams=draw.choice([2, 3, 4]))
        if number % 6 < 2:
            ids, model, stops = (*(draw.randrange(1, 60) for _ in range(draw.randint(1, 20))), 0), "tiny-marian", {0}
        else:
            tail = tuple(draw.randrange(1, 290) for _ in range(draw.randint(1, 6)))
            ids, model, stops = draw.choice(stems)[: draw.randint(0, 40)] + tail, "tiny-gpt2", {draw.randrange(290)}
        found.append(
            DecodeJob(
                id="",
                model=model,
                ids=ids,
                max_new_tokens=new,
                search=search,
                stop_ids=frozenset(stops),
                prompt_logprobs=2 if model == "tiny-gpt2" and number % 4 == 0 else None,
            )
        )
    return found


def poisoned(source: Path, folder: Path) -> Path:
    """The tiny GPT-2 with a position that is not a number: rows that come as far are poisoned."""
    folder.mkdir()
    for file in source.iterdir():
        if file.name != "model.safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(source / "model.safetensors")
    (name,) = [name for name in tensors if name.endswith("wpe.weight")]
    tensors[name][POISONED_POSITION] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineClient]:
    made = InlineEngine(settings=SETTINGS, clock=SystemClock())
    bad = poisoned(checkpoints["tiny-gpt2"], tmp_path_factory.mktemp("bad") / "x")
    folders = {"tiny-gpt2": checkpoints["tiny-gpt2"], "tiny-marian": checkpoints["tiny-marian"], POISONED: bad}
    for name, folder in folders.items():
        head = Head.TRANSLATE if name == "tiny-marian" else Head.GENERATE
        await made.load(ModelSpec(id=name, folder=str(folder), head=head, precision=Precision.FP32))
    yield made
    await made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alone(engine: EngineClient) -> list[list[Event]]:
    """Each kind's events when nobody else is there."""
    return [await collect(engine, replace(job, id=f"alone-{n}")) for n, job in enumerate(kinds())]


async def collect(engine: EngineClient, job: DecodeJob, cancel_at: int | None = None) -> list[Event]:
    events, count = engine.submit(job), 0
    found: list[Event] = []
    if cancel_at == 0:
        await engine.cancel(job.id)
    async for event in events:
        found.append(event)
        count += len(event.ids) if isinstance(event, TokenEvent) else 0
        if cancel_at and count >= cancel_at:
            await engine.cancel(job.id)
    return found


def tokens_of(events: list[Event]) -> list[int]:
    return [i for event in events if isinstance(event, TokenEvent) for i in event.ids]


def prompt_scores(events: list[Event]) -> list[float]:
    return [value for event in events if isinstance(event, PromptEvent) for value in event.logprobs]


def seconds_left(arrival: Arrival) -> float | None:
    return SystemClock().monotonic_s() + (arrival.after - 4) / 1000 if arrival.is_late else None


async def run(engine: EngineClient, arrivals: list[Arrival]) -> list[list[Event]]:
    jobs, tasks = kinds(), list[asyncio.Task[list[Event]]]()
    for number, arrival in enumerate(arrivals):
        for _ in range(arrival.after):
            await asyncio.sleep(0)
        tenant = f"t{arrival.kind % 3}"
        job = replace(jobs[arrival.kind], id=f"{number}", deadline_s=seconds_left(arrival), tenant=tenant)
        tasks.append(asyncio.create_task(collect(engine, job, arrival.cancel_at)))
    found = await asyncio.gather(*tasks)
    assert (engine.stats().running, engine.stats().waiting, engine.stats().kv_usage) == (0, 0, 0.0), "nothing leaks"
    return found


def check(arrival: Arrival, events: list[Event], alone: list[Event]) -> None:
    *before, last = events
    assert not any(isinstance(event, FinishedEvent | FailedEvent) for event in before), "one end, and it is the last"
    found, expected = tokens_of(events), tokens_of(alone)
    if isinstance(last, FailedEvent):
        assert arrival.is_late and isinstance(last.error, DeadlineExceeded) and not before
        return
    assert isinstance(last, FinishedEvent)
    if last.reason is FinishReason.CANCELLED:
        assert arrival.cancel_at is not None
        assert found == expected[: len(found)]
        return
    assert found == expected
    assert last.usage.cached_tokens <= max(0, last.usage.input_tokens - 1)
    assert prompt_scores(events) == pytest.approx(prompt_scores(alone), abs=1e-4)
    assert isinstance(alone[-1], FinishedEvent)
    assert (last.reason, last.usage.output_tokens) == (alone[-1].reason, len(expected))


async def test_alone_each_search_gives_the_tokens_of_transformers_generate(
    checkpoints: dict[str, Path], alone: list[list[Event]]
) -> None:
    models: dict[str, Any] = {
        "tiny-gpt2": AutoModelForCausalLM.from_pretrained(checkpoints["tiny-gpt2"], dtype=torch.float32).eval(),
        "tiny-marian": AutoModelForSeq2SeqLM.from_pretrained(checkpoints["tiny-marian"], dtype=torch.float32).eval(),
    }
    compared = 0
    for job, events in zip(kinds(), alone, strict=True):
        if isinstance(job.search, Sampling) and job.search.temperature > 0:
            continue
        theirs, ids = models[job.model], torch.tensor([job.ids])
        options: dict[str, Any] = {"num_beams": job.search.beams} if isinstance(job.search, BeamSearch) else {}
        if job.model == "tiny-gpt2":
            options |= {"eos_token_id": next(iter(job.stop_ids)), "pad_token_id": 0}
        out = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=job.max_new_tokens, max_length=None,
            do_sample=False, **options,
        )  # fmt: skip
        start = len(job.ids) if job.model == "tiny-gpt2" else 1
        assert tokens_of(events) == out[0, start:].tolist()
        compared += 1
    assert compared >= KINDS // 2


@given(arrivals=st.lists(ARRIVAL, min_size=1, max_size=24))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_the_company_a_jobs_tokens_are_those_it_has_alone(
    engine: EngineClient, alone: list[list[Event]], arrivals: list[Arrival]
) -> None:
    for arrival, events in zip(arrivals, await run(engine, arrivals), strict=True):
        check(arrival, events, alone[arrival.kind])


async def many(engine: EngineClient, alone: list[list[Event]], count: int, kinds: Sequence[int] = range(KINDS)) -> None:
    draw = random.Random(5)
    left = count
    while left:
        batch = min(left, 200)
        arrivals = [
            Arrival(draw.choice(kinds), draw.choice([0, 0, 0, 3]), draw.choice([None, None, draw.randrange(9)]),
                    draw.random() < 0.05)
            for _ in range(batch)
        ]  # fmt: skip
        for arrival, events in zip(arrivals, await run(engine, arrivals), strict=True):
            check(arrival, events, alone[arrival.kind])
        left -= batch


async def test_no_slot_leaks_after_400_random_jobs(engine: EngineClient, alone: list[list[Event]]) -> None:
    await many(engine, alone, 400)
    (lane,) = [lane for lane in engine.stats().lanes if lane.model == "tiny-gpt2"]
    assert lane.reused_tokens > 0.1 * lane.prompt_tokens, "all of it was tried with reused prompts"


@pytest.mark.fault_long
@pytest.mark.timeout(900)
async def test_no_slot_leaks_after_10000_random_jobs(engine: EngineClient, alone: list[list[Event]]) -> None:
    await many(engine, alone, 10_000)


async def test_a_reused_prompt_changes_no_token_and_stays_inside_its_tenant(engine: EngineClient) -> None:
    stem = tuple(range(100, 140))
    jobs = [
        DecodeJob(
            id=f"{n}", model="tiny-gpt2", ids=(*stem, 7 + n % 2), max_new_tokens=6, search=GREEDY, logprobs=3,
            tenant=tenant,
        )
        for n, tenant in enumerate(["own", "own", "own", "other"])
    ]  # fmt: skip
    cold, longer, warm, foreign = [await collect(engine, job) for job in jobs]
    usages = [events[-1].usage for events in (cold, longer, warm, foreign) if isinstance(events[-1], FinishedEvent)]
    assert [usage.cached_tokens for usage in usages] == [0, 40, 40, 0]
    assert {usage.input_tokens for usage in usages} == {41}
    assert tokens_of(warm) == tokens_of(cold)
    scores = [
        [value for event in events if isinstance(event, TokenEvent) for value in event.logprobs]
        for events in (cold, warm)
    ]
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)
    together = await asyncio.gather(
        *(collect(engine, replace(job, id=f"again-{job.id}", tenant="own")) for job in jobs)
    )
    assert [tokens_of(events) for events in together] == [tokens_of(events) for events in (cold, longer, cold, longer)]


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=12), beams=st.booleans())
@example(lengths=[36, 48, 16, 25, 15, 12, 8, 42, 57, 45, 35, 45], beams=False)  # builds on a prompt that will fail
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_poisoned_row_fails_alone(engine: EngineClient, lengths: list[int], beams: bool) -> None:
    jobs = [
        DecodeJob(
            id=f"{n}", model=POISONED, ids=tuple(range(5, 5 + length)), max_new_tokens=4,
            search=BeamSearch(beams=2) if beams and n % 2 else GREEDY, prompt_logprobs=1 if n % 3 == 0 else None,
        )
        for n, length in enumerate(lengths)
    ]  # fmt: skip
    bad = [replace(jobs[0], id=f"bad-{token}", ids=(5, token)) for token in (-1, 10**6)]
    found = await asyncio.gather(*(collect(engine, job) for job in [*jobs, *bad]))
    for job, events in zip(jobs, found, strict=False):
        sound = await collect(engine, replace(job, model="tiny-gpt2"))
        if len(job.ids) + 3 > POISONED_POSITION:
            last = events[-1]
            assert isinstance(last, FailedEvent)
            assert isinstance(last.error, InternalError)
            given_out = tokens_of(events)
            assert given_out == tokens_of(sound)[: len(given_out)]
        else:
            assert tokens_of(events) == tokens_of(sound)
    for events in found[len(jobs) :]:
        (refused,) = events
        assert isinstance(refused, FailedEvent)
        assert isinstance(refused.error, InvalidRequest)
        assert refused.usage == JobUsage()
    assert engine.stats().kv_usage == 0

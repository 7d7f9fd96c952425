"""Steps that are started several at a time, as on a GPU, give every row what it has step by step. Here the CPU runs
them: a captured step is run again where a GPU would replay a graph."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.clock import SystemClock
from app.engine.client import EngineClient, LoadedModel
from app.engine.compute import decode
from app.engine.compute.cuda import flights
from app.engine.compute.cuda.flights import STEPS, Flight
from app.engine.events import Event, FailedEvent, FinishedEvent, FinishReason
from app.engine.jobs import DecodeJob, Head, ModelSpec, Precision, Sampling
from app.engine.loop import EngineLoop
from app.engine.messages import Close, Load, Submit
from app.engine.transports.inline import InlineEngine
from app.errors import TollgateError
from tests.engine.test_traffic import (
    ARRIVAL,
    GREEDY,
    KINDS,
    POISONED,
    POISONED_POSITION,
    SETTINGS,
    Arrival,
    check,
    collect,
    kinds,
    many,
    poisoned,
    run,
    tokens_of,
)
from tests.fixtures.clock import TurnedClock

pytestmark = pytest.mark.asyncio(loop_scope="module")
STORY = DecodeJob(
    id="story",
    model="tiny-gpt2",
    ids=(5, 6, 7),
    max_new_tokens=40,
    search=Sampling(temperature=1.3, top_p=0.95, seed=7),
)
BLIND = [kind for kind in range(KINDS) if kind % 3 == 0]
"""Kinds of jobs that fly; one of another kind keeps all on the ground."""
FLYING = st.one_of(*[ARRIVAL.map(lambda one: replace(one, kind=BLIND[one.kind % len(BLIND)]))] * 7, ARRIVAL)
MODELS = {"tiny-gpt2": Head.GENERATE, "tiny-marian": Head.TRANSLATE, POISONED: Head.GENERATE}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EngineClient]:
    """Its decoders run ahead, as on a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "RUN_AHEAD", {"cpu"})
        made = InlineEngine(settings=SETTINGS, clock=SystemClock())
        bad = poisoned(checkpoints["tiny-gpt2"], tmp_path_factory.mktemp("bad") / "x")
        for name, head in MODELS.items():
            folder = bad if name == POISONED else checkpoints[name]
            await made.load(ModelSpec(id=name, folder=str(folder), head=head, precision=Precision.FP32))
        yield made
        await made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alone(checkpoints: dict[str, Path]) -> list[list[Event]]:
    """Each kind's events alone and step by step, and last the story's."""
    made = InlineEngine(settings=SETTINGS, clock=SystemClock())
    for name in ("tiny-gpt2", "tiny-marian"):
        await made.load(
            ModelSpec(id=name, folder=str(checkpoints[name]), head=MODELS[name], precision=Precision.FP32)
        )  # fmt: skip
    found = [await collect(made, replace(job, id=f"alone-{n}")) for n, job in enumerate(kinds())]
    found.append(await collect(made, STORY))
    await made.close()
    return found


@pytest.fixture
def flown(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of each start, in order."""
    found: list[int] = []
    started = Flight.go_on

    def go_on(self: Flight, steps: int) -> None:
        found.append(steps)
        started(self, steps)

    monkeypatch.setattr(Flight, "go_on", go_on)
    return found


@given(arrivals=st.lists(FLYING, min_size=1, max_size=24))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_the_company_a_jobs_tokens_are_those_it_has_alone_step_by_step(
    engine: EngineClient, alone: list[list[Event]], arrivals: list[Arrival]
) -> None:
    for arrival, events in zip(arrivals, await run(engine, arrivals), strict=True):
        check(arrival, events, alone[arrival.kind])


async def test_no_slot_leaks_after_200_random_jobs(
    engine: EngineClient, alone: list[list[Event]], flown: list[int]
) -> None:
    await many(engine, alone, 200, kinds=BLIND)
    assert sum(flown) > 200, "rows did fly"


async def test_a_row_alone_flies_on_until_its_end(
    engine: EngineClient, alone: list[list[Event]], flown: list[int]
) -> None:
    events = await collect(engine, replace(STORY, id="alone"))
    assert tokens_of(events) == tokens_of(alone[-1])
    assert flown and max(flown) == STEPS
    assert sum(flown) == STORY.max_new_tokens - 1, "no step too many"


async def test_a_long_flight_ends_and_another_goes_on(
    engine: EngineClient, alone: list[list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights, "STEPS_MAX", STEPS)
    assert tokens_of(await collect(engine, replace(STORY, id="cut"))) == tokens_of(alone[-1])


async def test_a_stop_in_mid_flight_ends_the_row_there(engine: EngineClient, alone: list[list[Event]]) -> None:
    tokens = tokens_of(alone[-1])
    place = next(place for place in range(4, 30) if tokens[place] not in tokens[:place])
    stopped = replace(STORY, id="stopped", stop_ids=frozenset({tokens[place]}))
    *_, last = events = await collect(engine, stopped)
    assert tokens_of(events) == tokens[: place + 1]
    assert isinstance(last, FinishedEvent)
    assert (last.reason, last.usage.output_tokens) == (FinishReason.STOP, place + 1)


async def test_rows_that_fail_in_mid_flight_fail_alone_and_leave_nothing_behind(engine: EngineClient) -> None:
    lengths = [POISONED_POSITION - 12, POISONED_POSITION - 5, 4, 9, 30]
    jobs = [
        DecodeJob(id=f"{n}", model=POISONED, ids=tuple(range(5, 5 + length)), max_new_tokens=15, search=GREEDY)
        for n, length in enumerate(lengths)
    ]
    for turn in range(2):  # the second time in slots that the first has used
        found = await asyncio.gather(*(collect(engine, replace(job, id=f"{turn}-{job.id}")) for job in jobs))
        for job, events in zip(jobs, found, strict=True):
            sound = await collect(engine, replace(job, id=f"{turn}-sound-{job.id}", model="tiny-gpt2"))
            if len(job.ids) + job.max_new_tokens - 1 > POISONED_POSITION:
                assert isinstance(events[-1], FailedEvent)
                assert tokens_of(events) == tokens_of(sound)[: POISONED_POSITION - len(job.ids) + 1]
            else:
                assert tokens_of(events) == tokens_of(sound)
    assert engine.stats().kv_usage == 0


async def test_a_row_at_the_last_position_hurts_none_while_it_flies_on(
    engine: EngineClient, alone: list[list[Event]], checkpoints: dict[str, Path]
) -> None:
    draw = random.Random(1)
    positions: int = json.loads((checkpoints["tiny-gpt2"] / "config.json").read_text())["n_positions"]
    room = 4
    full = DecodeJob(
        id="full", model="tiny-gpt2", ids=tuple(draw.randrange(1, 290) for _ in range(positions - room)),
        max_new_tokens=room + 1, search=GREEDY,
    )  # fmt: skip
    together = await asyncio.gather(collect(engine, full), collect(engine, replace(STORY, id="beside")))
    assert tokens_of(together[1]) == tokens_of(alone[-1])
    assert len(tokens_of(together[0])) == room + 1
    again = await collect(engine, replace(full, id="again"))
    assert tokens_of(again) == tokens_of(together[0])
    last = again[-1]
    assert isinstance(last, FinishedEvent)
    assert last.usage.cached_tokens == len(full.ids) - 1, "what it left is what its prompt was"


async def test_a_cancel_is_heard_within_one_start(engine: EngineClient, alone: list[list[Event]]) -> None:
    events = await collect(engine, replace(STORY, id="cancelled"), cancel_at=3)
    assert len(tokens_of(events)) < STORY.max_new_tokens
    assert tokens_of(events) == tokens_of(alone[-1])[: len(tokens_of(events))]


async def test_the_first_token_waits_for_no_other(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "RUN_AHEAD", {"cpu"})
    clock = TurnedClock()  # stands still: no later token is worth a message of its own
    batches: list[list[Event]] = []
    loaded: list[LoadedModel | TollgateError] = []

    def emit(events: list[Event]) -> None:
        batches.append(events)
        if isinstance(events[-1], FinishedEvent):
            loop.inbox.put(Close())

    loop = EngineLoop(settings=SETTINGS, clock=clock, emit_batch=emit)
    loop.inbox.put(
        Load(ModelSpec(id="tiny-gpt2", folder=str(checkpoints["tiny-gpt2"]), head=Head.GENERATE), loaded.append)
    )
    loop.inbox.put(Submit(STORY))
    await asyncio.to_thread(loop.run)
    assert isinstance(loaded[0], LoadedModel)
    assert [len(tokens_of(events)) for events in batches] == [1, STORY.max_new_tokens - 1]

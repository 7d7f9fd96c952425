"""What every transport of the engine promises, and that company never changes a token."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from app.clock import SystemClock
from app.engine.client import EngineClient
from app.engine.events import (
    EncodedEvent,
    Event,
    FailedEvent,
    FinishedEvent,
    FinishReason,
    JobUsage,
    PromptEvent,
    TokenEvent,
)
from app.engine.jobs import BeamSearch, DecodeJob, EncodeJob, Head, Job, ModelSpec, Sampling
from app.engine.session import open_jobs
from app.engine.settings import EngineSettings
from app.engine.transports.child import ChildEngine
from app.engine.transports.inline import InlineEngine
from app.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineLost,
    EngineOverloaded,
    InvalidRequest,
    ModelUnavailable,
    SourceError,
    VerificationFailed,
)  # fmt: skip
from tests.fixtures.server import PATIENCE_S

HEADS = {
    "tiny-gpt2": Head.GENERATE,
    "tiny-marian": Head.TRANSLATE,
    "tiny-bert-classifier": Head.CLASSIFY,
    "tiny-bert-qa": Head.ANSWER,
}
GREEDY = Sampling(temperature=0)


SETTINGS = EngineSettings(slots=8, step_tokens=16, queue_jobs=40, event_queue=16, threads=1)
TRANSPORTS: dict[str, Callable[[], EngineClient]] = {
    "inline": lambda: InlineEngine(settings=SETTINGS, clock=SystemClock()),
    "child": lambda: ChildEngine.start(SETTINGS, log_level="warning"),
}
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=sorted(TRANSPORTS))
async def engine(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> AsyncIterator[EngineClient]:
    made = await loaded(request.param, checkpoints)
    yield made
    await made.close()


async def loaded(transport: str, checkpoints: dict[str, Path]) -> EngineClient:
    made = TRANSPORTS[transport]()
    for name, head in HEADS.items():
        await made.load(ModelSpec(id=name, folder=str(checkpoints[name]), head=head))
    return made


async def until_idle(engine: EngineClient) -> None:
    """A transport may tell how busy it is a moment late."""
    give_up_s = time.monotonic() + PATIENCE_S
    while engine.stats().running:
        assert time.monotonic() < give_up_s, f"still busy: {engine.stats()}"
        await asyncio.sleep(0.02)


def decode(name: str, ids: list[int], count: int, **rest: Any) -> DecodeJob:
    rest = {"model": "tiny-gpt2", "search": GREEDY} | rest
    return DecodeJob(id=name, ids=tuple(ids), max_new_tokens=count, **rest)


async def collect(engine: EngineClient, job: Job) -> list[Event]:
    return [event async for event in engine.submit(job)]


def tokens_of(events: list[Event]) -> list[int]:
    return [i for event in events if isinstance(event, TokenEvent) for i in event.ids]


def failure_of(events: list[Event]) -> Exception:
    (event,) = events
    assert isinstance(event, FailedEvent)
    assert event.usage == JobUsage()
    return event.error


def random_prompts(count: int, *, vocabulary: int, length_max: int) -> list[list[int]]:
    source = random.Random(7)
    return [[source.randrange(1, vocabulary - 2) for _ in range(source.randint(1, length_max))] for _ in range(count)]


@cache
def generated(folder: Path, prompts: tuple[tuple[int, ...], ...]) -> tuple[list[list[int]], int]:
    """What transformers continues each prompt with, and the token that ends a text."""
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    eos = theirs.config.eos_token_id
    found: list[list[int]] = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=eos
        )
        found.append(out[0, len(prompt) :].tolist())
    return found, eos


@cache
def translated(
    folder: Path, sources: tuple[tuple[int, ...], ...], beams: int, early_stopping: bool, length_penalty: float
) -> list[list[int]]:
    """What transformers makes of each source."""
    theirs: Any = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    options: dict[str, Any] = {"num_beams": beams}
    if beams > 1:
        options |= {"early_stopping": early_stopping, "length_penalty": length_penalty}
    found: list[list[int]] = []
    for source in sources:
        ids = torch.tensor([source])
        out = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=14, max_length=None, do_sample=False, **options
        )
        found.append(out[0, 1:].tolist())
    return found


async def test_staggered_company_gives_the_tokens_of_transformers_generate(
    engine: EngineClient, checkpoints: dict[str, Path]
) -> None:
    prompts = random_prompts(20, vocabulary=300, length_max=45)
    wanted, eos = generated(checkpoints["tiny-gpt2"], tuple(map(tuple, prompts)))

    async def later(index: int) -> list[Event]:
        await asyncio.sleep(index * 0.002)
        return await collect(engine, decode(str(index), prompts[index], 12, stop_ids=frozenset([eos])))

    found = await asyncio.gather(*(later(index) for index in range(len(prompts))))
    for prompt, events, expected in zip(prompts, found, wanted, strict=True):
        assert tokens_of(events) == expected
        last = events[-1]
        assert isinstance(last, FinishedEvent)
        assert last.usage == JobUsage(input_tokens=len(prompt), output_tokens=len(expected))
        assert last.reason is (FinishReason.STOP if expected[-1] == eos else FinishReason.LENGTH)


async def test_a_row_that_is_shown_whole_begins_at_once_and_has_the_tokens_of_a_stream(engine: EngineClient) -> None:
    job = decode("stream", [5, 6, 7], 40)
    whole = replace(job, id="whole", is_whole=True)
    streamed, together = await asyncio.gather(collect(engine, job), collect(engine, whole))
    assert tokens_of(together) == tokens_of(streamed) and len(tokens_of(together)) == 40
    first, *_, last = together
    assert isinstance(first, TokenEvent) and isinstance(last, FinishedEvent)
    assert last.usage == JobUsage(input_tokens=3, output_tokens=40)


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("length_penalty", [1.0, 0.6])
async def test_translation_in_company_gives_the_tokens_of_transformers_generate(
    engine: EngineClient, checkpoints: dict[str, Path], beams: int, early_stopping: bool, length_penalty: float
) -> None:
    sources = [[*row, 0] for row in random_prompts(8, vocabulary=60, length_max=20)]
    wanted = translated(checkpoints["tiny-marian"], tuple(map(tuple, sources)), beams, early_stopping, length_penalty)
    search = BeamSearch(beams=beams, early_stopping=early_stopping, length_penalty=length_penalty)
    jobs = [
        decode(str(n), source, 14, model="tiny-marian", stop_ids=frozenset([0]), search=search if beams > 1 else GREEDY)
        for n, source in enumerate(sources)
    ]
    found = await asyncio.gather(*(collect(engine, job) for job in jobs))
    assert [tokens_of(events) for events in found] == wanted


@cache
def hypotheses_of(folder: Path, source: tuple[int, ...], count: int) -> list[list[int]]:
    """transformers' best translations of a source."""
    theirs: Any = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids, eos = torch.tensor([source]), theirs.config.eos_token_id
    found = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=14, max_length=None, do_sample=False, num_beams=4,
        num_return_sequences=count,
    )  # fmt: skip
    kept = [row[1:].tolist() for row in found]
    return [row[: row.index(eos) + 1] if eos in row else row for row in kept]


async def test_the_hypotheses_after_the_best_are_those_of_transformers_and_are_counted(
    engine: EngineClient, checkpoints: dict[str, Path]
) -> None:
    for source in random_prompts(3, vocabulary=60, length_max=20):
        source = (*source, 0)
        wanted = hypotheses_of(checkpoints["tiny-marian"], source, 3)
        search = BeamSearch(beams=4, returned=3)
        job = decode("n-best", list(source), 14, model="tiny-marian", stop_ids=frozenset([0]), search=search)
        *tokens, last = await collect(engine, job)
        assert isinstance(last, FinishedEvent)
        assert [tokens_of(tokens), *map(list, last.others)] == wanted
        assert last.usage.output_tokens == sum(map(len, wanted))


async def test_a_seed_draws_the_same_alone_and_in_company(engine: EngineClient) -> None:
    search = Sampling(temperature=0.9, top_k=20, top_p=0.9, repetition_penalty=1.2, seed=5)
    alone = tokens_of(await collect(engine, decode("alone", [5, 6, 7], 20, search=search)))
    company = [decode(f"c{n}", [n + 1] * (n + 20), 20, search=Sampling(seed=n)) for n in range(6)]
    found = await asyncio.gather(
        *(collect(engine, job) for job in [*company, decode("same", [5, 6, 7], 20, search=search)])
    )
    assert tokens_of(found[-1]) == alone


async def test_an_encode_job_gives_its_scores_once(engine: EngineClient) -> None:
    for model, rows, width in (("tiny-bert-classifier", 1, 2), ("tiny-bert-qa", 2, 4)):
        encoded, finished = await collect(engine, EncodeJob(id=model, model=model, ids=(2, 8, 9, 3)))
        assert isinstance(encoded, EncodedEvent)
        assert [len(row) for row in encoded.scores] == [width] * rows
        assert finished == FinishedEvent(job_id=model, reason=FinishReason.DONE, usage=JobUsage(input_tokens=4))


async def test_the_last_event_tells_how_long_the_job_was_in_each_hand(engine: EngineClient) -> None:
    began_s = time.monotonic()
    decoded = (await collect(engine, decode("x", [5, 6, 7], 20)))[-1]
    encoded = (await collect(engine, EncodeJob(id="y", model="tiny-bert-qa", ids=(2, 8, 9, 3))))[-1]
    passed_s = time.monotonic() - began_s
    assert isinstance(decoded, FinishedEvent) and isinstance(encoded, FinishedEvent)
    assert decoded.times is not None and encoded.times is not None
    assert encoded.times.decode_s == 0
    parts = [decoded.times.queue_s, decoded.times.prefill_s, decoded.times.decode_s, encoded.times.prefill_s]
    assert all(part > 0 for part in parts) and sum(parts) < passed_s
    line = [decode(f"l{n}", [n + 1] * 4, 20) for n in range(SETTINGS.slots * 4)]
    ends = [events[-1] for events in await asyncio.gather(*(collect(engine, job) for job in line))]
    times = [end.times for end in ends if isinstance(end, FinishedEvent) and end.times is not None]
    assert max(one.queue_s for one in times) > min(one.decode_s for one in times), "some waited for others to end"


async def test_logprobs_name_the_chosen_token_first_when_greedy(engine: EngineClient) -> None:
    events = await collect(engine, decode("x", [5, 6], 4, logprobs=3))
    for event in events[:-1]:
        assert isinstance(event, TokenEvent)
        for token, logprob, top in zip(event.ids, event.logprobs, event.top, strict=True):
            assert len(top) == 3
            assert top[0] == (token, logprob)


@cache
def scored(folder: Path, prompt: tuple[int, ...]) -> torch.Tensor:
    """transformers' log-probabilities (positions, vocabulary) of what follows each token."""
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return theirs(torch.tensor([prompt])).logits[0].detach().log_softmax(-1)


@pytest.mark.parametrize("count", [0, 3])
async def test_a_prompt_is_scored_as_transformers_does_in_chunks_and_in_company(
    engine: EngineClient, checkpoints: dict[str, Path], count: int
) -> None:
    prompts = [tuple(prompt) for prompt in random_prompts(6, vocabulary=300, length_max=50)] + [(7,)]
    jobs = [decode(f"{n}", list(prompt), count, prompt_logprobs=2, logprobs=1) for n, prompt in enumerate(prompts)]
    found = await asyncio.gather(*(collect(engine, job) for job in jobs))
    for prompt, events in zip(prompts, found, strict=True):
        parts = [event for event in events if isinstance(event, PromptEvent)]
        assert events[: len(parts)] == parts, "the prompt's scores come before the first new token"
        logprobs = [value for part in parts for value in part.logprobs]
        tops = [top for part in parts for top in part.top]
        known = scored(checkpoints["tiny-gpt2"], prompt)
        assert len(logprobs) == len(tops) == len(prompt) - 1
        for place, (token, logprob, top) in enumerate(zip(prompt[1:], logprobs, tops, strict=True)):
            assert logprob == pytest.approx(float(known[place, token]), abs=1e-4)
            assert [other for other, _ in top] == known[place].topk(2).indices.tolist()
            assert [value for _, value in top] == pytest.approx(known[place].topk(2).values.tolist(), abs=1e-4)
            assert dict(top).get(token, logprob) == logprob, "the same float, so that clients may compare"
        assert len(tokens_of(events)) == count
        last = events[-1]
        assert isinstance(last, FinishedEvent)
        assert last.usage == JobUsage(input_tokens=len(prompt), output_tokens=count)
        assert last.reason is FinishReason.LENGTH
    assert any(len([e for e in events if isinstance(e, PromptEvent)]) > 1 for events in found), "some were chunked"


async def test_a_source_has_no_scores_and_nothing_to_only_read(engine: EngineClient) -> None:
    for bad in ({"prompt_logprobs": 1}, {"count": 0}):
        job = decode("x", [5, 0], bad.get("count", 3), model="tiny-marian", prompt_logprobs=bad.get("prompt_logprobs"))
        assert isinstance(failure_of(await collect(engine, job)), InvalidRequest)


async def test_cancelling_one_row_leaves_its_neighbour_unchanged(engine: EngineClient) -> None:
    expected = tokens_of(await collect(engine, decode("before", [9, 8], 40)))
    neighbour = asyncio.create_task(collect(engine, decode("neighbour", [9, 8], 40)))
    seen: list[Event] = []
    async for event in engine.submit(decode("gone", [5, 6], 60)):
        seen.append(event)
        await engine.cancel("gone")
    last = seen[-1]
    assert isinstance(last, FinishedEvent)
    assert last.reason is FinishReason.CANCELLED
    assert last.usage == JobUsage(input_tokens=2, output_tokens=len(tokens_of(seen)))
    assert tokens_of(await neighbour) == expected
    await engine.cancel("gone")


async def test_leaving_the_scope_early_cancels_and_counts_exactly(engine: EngineClient) -> None:
    async with open_jobs(engine, [decode(str(n), [5, 6, 7], 60) for n in range(3)]) as session:
        async for _ in session.events():
            break
    assert session.total_usage.input_tokens <= 9
    assert session.total_usage.output_tokens >= 1
    await until_idle(engine)


async def test_a_slow_reader_loses_nothing(engine: EngineClient) -> None:
    job = decode("slow", [5, 6], 60)
    expected = tokens_of(await collect(engine, decode("fast", [5, 6], 60)))
    events = engine.submit(job)
    await asyncio.sleep(0.5)
    assert engine.stats().running == 1, "the row should be paused, not finished into an unbounded buffer"
    assert tokens_of([event async for event in events]) == expected


async def test_refusals_are_terminal_events_at_once(engine: EngineClient) -> None:
    assert isinstance(failure_of(await collect(engine, decode("a", [1], 1, model="none"))), ModelUnavailable)
    assert isinstance(failure_of(await collect(engine, decode("b", [1] * 60, 6))), ContextLengthExceeded)
    assert isinstance(failure_of(await collect(engine, decode("c", [1], 4, deadline_s=0.0))), DeadlineExceeded)
    for bad in ([], [-1], [10**6]):
        assert failure_of(await collect(engine, decode("d", bad, 4)))


async def test_a_full_queue_refuses_and_the_rest_finishes(engine: EngineClient) -> None:
    found = await asyncio.gather(*(collect(engine, decode(str(n), [5, 6], 30)) for n in range(80)))
    refused = [events for events in found if isinstance(events[-1], FailedEvent)]
    assert refused
    assert all(isinstance(failure_of(events), EngineOverloaded) for events in refused)
    assert len(found) - len(refused) >= 40


async def test_loading_again_gives_the_same_and_disturbs_nobody(
    engine: EngineClient, checkpoints: dict[str, Path]
) -> None:
    spec = ModelSpec(id="twice", folder=str(checkpoints["tiny-gpt2"]), head=Head.GENERATE)
    first = await engine.load(spec)
    running = asyncio.create_task(collect(engine, decode("x", [5, 6], 60, model="tiny-gpt2")))
    assert await engine.load(spec) == first
    assert len(tokens_of(await running)) == 60
    await engine.unload("twice")
    await engine.unload("twice")
    assert isinstance(failure_of(await collect(engine, decode("y", [1], 1, model="twice"))), ModelUnavailable)


async def test_an_error_keeps_its_class_and_its_words(engine: EngineClient) -> None:
    found = failure_of(await collect(engine, decode("long", [1] * 60, 6)))
    assert isinstance(found, ContextLengthExceeded)
    assert "65 positions" in found.message
    assert type(failure_of(await collect(engine, decode("bad", [-1], 4)))) is InvalidRequest


@pytest.mark.parametrize("transport", sorted(TRANSPORTS))
async def test_unloading_fails_open_jobs_and_closing_loses_them(transport: str, checkpoints: dict[str, Path]) -> None:
    engine = await loaded(transport, checkpoints)
    running = engine.submit(decode("x", [5, 6], 60))
    await anext(running)
    await engine.unload("tiny-gpt2")
    last = [event async for event in running][-1]
    assert isinstance(last, FailedEvent)
    assert isinstance(last.error, ModelUnavailable)
    waiting = engine.submit(EncodeJob(id="y", model="tiny-bert-qa", ids=(2, 3)))
    await engine.close()
    assert isinstance([event async for event in waiting][-1], FinishedEvent | FailedEvent)
    assert isinstance(failure_of(await collect(engine, decode("z", [1], 1))), EngineLost)
    assert not engine.stats().is_alive
    await engine.close()


async def test_a_bad_folder_is_refused_by_name(engine: EngineClient, tmp_path: Path) -> None:
    spec = ModelSpec(id="bad", folder=str(tmp_path), head=Head.GENERATE)
    with pytest.raises(VerificationFailed, match=r"config\.json"):
        await engine.load(spec)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_embd": 4}')
    with pytest.raises(VerificationFailed, match="safetensors"):
        await engine.load(spec)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(SourceError, match="llama"):
        await engine.load(spec)

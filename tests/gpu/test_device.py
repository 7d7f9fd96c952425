"""On a CUDA device every family gives transformers' numbers and tokens, captured or not, and bfloat16 stays near."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from app.clock import SystemClock
from app.engine.client import EngineClient
from app.engine.compute import cuda
from app.engine.compute.choice import Draws
from app.engine.compute.cuda import single
from app.engine.compute.decode import Decoder, Feed
from app.engine.compute.families.bert import Bert
from app.engine.compute.models import load_model
from app.engine.compute.sampling import Sampler
from app.engine.events import EncodedEvent, Event, FailedEvent, FinishedEvent, TokenEvent
from app.engine.jobs import BeamSearch, DecodeJob, EncodeJob, Head, ModelSpec, Precision, Sampling
from app.engine.settings import EngineSettings
from app.engine.transports.inline import InlineEngine
from tests.engine.compute.random_gpt2 import random_gpt2
from tests.engine.test_traffic import KINDS, kinds, poisoned, prompt_scores, tokens_of

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]  # a new machine compiles the CPU's kernels on the way
on_loop = pytest.mark.asyncio(loop_scope="module")
SETTINGS = EngineSettings(slots=24, step_tokens=64, device="cuda", prefix_tokens=4)
HEADS = {
    "tiny-gpt2": Head.GENERATE,
    "tiny-marian": Head.TRANSLATE,
    "tiny-bert-classifier": Head.CLASSIFY,
    "bad": Head.GENERATE,
}


@pytest.fixture(scope="module")
def folders(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    bad = poisoned(checkpoints["tiny-gpt2"], tmp_path_factory.mktemp("bad") / "x")
    return {name: checkpoints[name] for name in HEADS if name in checkpoints} | {"bad": bad}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(folders: dict[str, Path]) -> AsyncIterator[EngineClient]:
    made = InlineEngine(settings=SETTINGS, clock=SystemClock())
    for name, folder in folders.items():
        loaded = await made.load(
            ModelSpec(id=name, folder=str(folder), head=HEADS[name], precision=Precision.FP32)
        )  # fmt: skip
        assert loaded.device.startswith("cuda")
    yield made
    await made.close()


async def collect(engine: EngineClient, job: DecodeJob | EncodeJob) -> list[Event]:
    return [event async for event in engine.submit(job)]


def test_the_kernels_are_there() -> None:
    assert cuda.HAS_KERNELS, "triton is missing: nothing else here tests what it should"


@on_loop
async def test_every_search_gives_the_tokens_of_transformers_alone_and_together(
    engine: EngineClient, folders: dict[str, Path]
) -> None:
    models: dict[str, Any] = {
        "tiny-gpt2": AutoModelForCausalLM.from_pretrained(folders["tiny-gpt2"], dtype=torch.float32).eval(),
        "tiny-marian": AutoModelForSeq2SeqLM.from_pretrained(folders["tiny-marian"], dtype=torch.float32).eval(),
    }
    jobs = [replace(job, id=f"alone-{place}") for place, job in enumerate(kinds())]
    alone = [await collect(engine, job) for job in jobs]
    together = await asyncio.gather(
        *(collect(engine, replace(job, id=f"{turn}-{place}")) for turn in range(3) for place, job in enumerate(jobs))
    )
    for place, events in enumerate(together):
        assert tokens_of(events) == tokens_of(alone[place % KINDS]), jobs[place % KINDS]
        assert prompt_scores(events) == pytest.approx(prompt_scores(alone[place % KINDS]), abs=1e-3)
    compared = 0
    for job, events in zip(jobs, alone, strict=True):
        if isinstance(job.search, Sampling) and job.search.temperature > 0:
            continue
        options: dict[str, Any] = {"num_beams": job.search.beams} if isinstance(job.search, BeamSearch) else {}
        if job.model == "tiny-gpt2":
            options |= {"eos_token_id": next(iter(job.stop_ids)), "pad_token_id": 0}
        ids = torch.tensor([job.ids])
        out = models[job.model].generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=job.max_new_tokens, max_length=None,
            do_sample=False, **options,
        )  # fmt: skip
        assert tokens_of(events) == out[0, len(job.ids) if job.model == "tiny-gpt2" else 1 :].tolist(), job
        compared += 1
    assert compared >= KINDS // 2
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.kv_usage) == (0, 0, 0.0)


@on_loop
async def test_a_poisoned_row_fails_alone(engine: EngineClient) -> None:
    long = DecodeJob(id="long", model="bad", ids=(5,) * 40, max_new_tokens=20, search=Sampling(temperature=0))
    short = [replace(long, id=f"short-{n}", ids=(5, n, 7), max_new_tokens=12) for n in range(1, 9)]
    ended, *others = await asyncio.gather(*(collect(engine, job) for job in (long, *short)))
    assert isinstance(ended[-1], FailedEvent)
    assert all(isinstance(events[-1], FinishedEvent) for events in others)
    again = await collect(engine, replace(short[0], id="again"))
    assert tokens_of(again) == tokens_of(others[0])


@on_loop
async def test_log_probabilities_and_penalties_are_those_of_the_cpu(
    engine: EngineClient, folders: dict[str, Path]
) -> None:
    here = InlineEngine(settings=EngineSettings(slots=4, threads=1), clock=SystemClock())
    await here.load(
        ModelSpec(id="tiny-gpt2", folder=str(folders["tiny-gpt2"]), head=Head.GENERATE, precision=Precision.FP32)
    )  # fmt: skip
    search = Sampling(temperature=0.8, top_k=20, top_p=0.9, repetition_penalty=1.2, logit_bias=((9, 2.0),), seed=4)
    job = DecodeJob(id="one", model="tiny-gpt2", ids=(5, 6, 7), max_new_tokens=20, search=search, logprobs=3)
    ours, theirs = await collect(engine, job), await collect(here, job)
    await here.close()
    assert tokens_of(ours) == tokens_of(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        if isinstance(mine, TokenEvent) and isinstance(other, TokenEvent):
            assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-3)
            assert [i for i, _ in mine.top[0]] == [i for i, _ in other.top[0]]


@torch.inference_mode()
def test_the_device_draws_what_the_cpu_draws() -> None:
    draw = torch.Generator().manual_seed(5)
    scores = torch.randn(64, 50_257, generator=draw) * 3
    uniforms = torch.rand(64, generator=draw, dtype=torch.float64)
    for top_p in (1.0, 0.9):
        searches = [Sampling(temperature=0.5 + row / 40, min_p=0.01 * (row % 3), top_p=top_p) for row in range(64)]
        found = [
            Draws(searches, scores.shape[1], device).of(scores.to(device), uniforms.to(device)).tolist()
            for device in (torch.device("cpu"), torch.device("cuda"))
        ]
        assert sum(here != there for here, there in zip(*found, strict=True)) <= 1, "a number may fall on a border"


@on_loop
async def test_labels_are_those_of_transformers(engine: EngineClient, folders: dict[str, Path]) -> None:
    theirs: Any = AutoModelForSequenceClassification.from_pretrained(
        folders["tiny-bert-classifier"], dtype=torch.float32
    ).eval()
    rows = [tuple(5 + (7 * place + number) % 40 for place in range(3 + 5 * number)) for number in range(12)]
    found = await asyncio.gather(
        *(
            collect(engine, EncodeJob(id=f"row-{n}", model="tiny-bert-classifier", ids=row))
            for n, row in enumerate(rows)
        )
    )
    for row, events in zip(rows, found, strict=True):
        (encoded,) = (event for event in events if isinstance(event, EncodedEvent))
        expected = theirs(torch.tensor([row])).logits[0].tolist()
        assert list(encoded.scores[0]) == pytest.approx(expected, abs=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-marian"])
def test_bfloat16_stays_near_fp32_and_a_captured_step_gives_what_an_eager_one_gives(
    name: str, folders: dict[str, Path]
) -> None:
    found: dict[Precision, torch.Tensor] = {}
    for precision in (Precision.FP32, Precision.BF16):
        spec = ModelSpec(id=name, folder=str(folders[name]), head=HEADS[name], precision=precision)
        decoder = load_model(spec, slots=24, device="cuda").model
        assert isinstance(decoder, Decoder)
        prompts = {slot: tuple(5 + (3 * place + slot) % 50 for place in range(1 + 2 * slot)) for slot in range(20)}
        decoder.read_sources([((slot,), ids) for slot, ids in prompts.items()])
        read = {slot: decoder.prompt_of(ids) for slot, ids in prompts.items()}
        whole = [Feed(slot, 0, ids, is_prompt=True) for slot, ids in read.items()]
        later = [Feed(slot, len(ids) // 2, ids[len(ids) // 2 :], is_prompt=True) for slot, ids in read.items()]
        first, second = (decoder.read(prompts)[1].values.clone() for prompts in (whole, later))
        feeds = [Feed(slot, len(ids), (7 + slot,)) for slot, ids in read.items()]
        eager = decoder.step(feeds)[1].values.clone()
        decoder.capture()
        _, captured = decoder.step(feeds)
        assert captured.best is not None
        best = captured.best.tolist()
        torch.testing.assert_close(captured.values, eager, rtol=2e-2, atol=2e-2 * float(eager.std()))
        assert best == captured.values.argmax(-1).tolist()
        for prompts, expected in ((whole, first), (later, second)):
            _, again = decoder.read(prompts)
            torch.testing.assert_close(again.values, expected, rtol=2e-2, atol=2e-2 * float(eager.std()))
            is_captured = name == "tiny-gpt2" and precision is Precision.BF16
            assert (again.best is not None) == is_captured
        found[precision] = eager
    apart = (found[Precision.BF16] - found[Precision.FP32]).norm() / found[Precision.FP32].norm()
    assert float(apart) < 3e-2


@torch.inference_mode()
def test_bert_in_bfloat16_stays_near_fp32(folders: dict[str, Path]) -> None:
    lengths = [3, 40, 17, 64, 1]
    ids = torch.randint(5, 40, (sum(lengths),), generator=torch.Generator().manual_seed(0)).cuda()
    found: list[torch.Tensor] = []
    for precision in (Precision.FP32, Precision.BF16):
        spec = ModelSpec(id="b", folder=str(folders["tiny-bert-classifier"]), head=Head.CLASSIFY, precision=precision)
        model = load_model(spec, slots=1, device="cuda").model
        assert isinstance(model, Bert)
        found.append(torch.cat(model.forward(ids, torch.zeros_like(ids), lengths)))
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 5e-2


@pytest.fixture(scope="module")
def one_row() -> Decoder:
    """Of a shape whose steps of one row are one kernel, not captured yet."""
    family = random_gpt2(width=768, heads=12, layers=3, positions=512, vocabulary=5003, device="cuda")
    return Decoder(family, slots=4)


def test_a_step_of_one_row_in_one_kernel_has_the_numbers_of_the_chain(one_row: Decoder) -> None:
    counts, expected = (1, 30, 192, 193, 400, 511), []
    ids = [tuple((7919 * (number + place)) % 5003 for place in range(512)) for number in range(len(counts))]
    for count, row in zip(counts, ids, strict=True):
        one_row.step([Feed(1, 0, row[:count], is_prompt=True)])
        expected.append(one_row.step([Feed(1, count, row[count : count + 1])])[1].values.clone())
    if not single.fits(one_row.family, one_row.cache):  # pyright: ignore[reportArgumentType] (a GPT-2)
        pytest.skip("this device is not one of those that the kernel is for")
    one_row.capture()
    for count, row, chain in zip(counts, ids, expected, strict=True):
        one_row.step([Feed(1, 0, row[:count], is_prompt=True)])
        feed = Feed(1, count, row[count : count + 1])
        hidden, scores = one_row.step([feed])
        assert scores.best is not None and hidden.isfinite().all()
        assert float((scores.values - chain).abs().max()) < 0.08 * float(chain.std())
        assert scores.best.item() == scores.values.argmax().item()
        first = scores.values.clone()
        for _ in range(50):
            assert torch.equal(one_row.step([feed])[1].values, first), "the same step gave other bits"


def test_a_flight_of_one_row_has_the_tokens_of_its_steps(one_row: Decoder) -> None:
    one_row.capture()
    one_row.step([Feed(2, 0, tuple(range(40)), is_prompt=True)])
    flown = [
        ids[0] for ids in one_row.fly([Feed(2, 40, (7,))], [Sampler(Sampling(temperature=0), (), logprobs=None)], (), 8)
    ]
    one_row.step([Feed(3, 0, tuple(range(40)), is_prompt=True)])
    token, stepped = 7, []
    for place in range(8):
        best = one_row.step([Feed(3, 40 + place, (token,))])[1].best
        assert best is not None
        token = int(best.item())
        stepped.append(token)
    assert flown == stepped

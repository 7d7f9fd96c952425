"""python -m benchmarks.gpu: what a CUDA device gives, against its own limits and transformers on the same device.

Steps and forwards are timed by the device's own events, engines by the clock on the wall. Random weights at the
published sizes; the work is that of `workloads`.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from app.engine.compute.decode import Decoder, Feed
from app.engine.compute.families.bert import Bert
from app.engine.compute.models import load_model
from app.engine.events import EncodedEvent, FailedEvent, TokenEvent
from app.engine.jobs import DecodeJob, EncodeJob, Head, Job, ModelSpec, Precision, Sampling
from app.engine.settings import EngineSettings
from app.engine.transports.child import ChildEngine
from benchmarks.checkpoints import SIZES, checkpoint
from benchmarks.runners.transformers_generate import CLASSES

ROUNDS = 5
REPEATS = 30
COPY_BYTES = 2**31
SQUARE = 8192
STREAMS = (1, 8, 32, 64)
PROMPT, PRODUCED = 128, 64
CONTEXT = PROMPT + PRODUCED // 2
ROWS, ROW_TOKENS = 64, 128
QUEUED = 512


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str
    remark: str = ""

    @property
    def shown(self) -> str:
        return f"| {self.name} | {self.value:.4g} {self.unit} | {self.remark} |"


def device_ms(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median milliseconds of `run` on the device, after warming up."""
    for _ in range(5):
        run()
    found: list[float] = []
    for _ in range(repeats):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        run()
        ended.record()
        ended.synchronize()
        found.append(began.elapsed_time(ended))
    return statistics.median(found)


def limits() -> tuple[float, float]:
    """Bytes a second of a large copy (read and written), bf16 operations a second of a large product."""
    source = torch.randint(0, 255, (COPY_BYTES,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy_ms = device_ms(lambda: target.copy_(source))
    left, right = (torch.randn(SQUARE, SQUARE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product_ms = device_ms(lambda: left @ right)
    return 2 * COPY_BYTES / copy_ms * 1e3, 2 * SQUARE**3 / product_ms * 1e3


def spec_of(model: str) -> ModelSpec:
    head = {"gpt2": Head.GENERATE, "bert": Head.CLASSIFY, "marian": Head.TRANSLATE}[model]
    return ModelSpec(id=model, folder=str(checkpoint(model)), head=head, precision=Precision.BF16)


def decode_steps(bandwidth: float) -> list[Figure]:
    """A captured step of GPT-2 by number of rows, and its time over what its bytes need."""
    shape = SIZES["published"]["gpt2"]
    decoder = load_model(spec_of("gpt2"), slots=max(STREAMS), device="cuda").model
    assert isinstance(decoder, Decoder)
    began_s = time.perf_counter()
    decoder.capture()
    found = [Figure("capturing GPT-2's steps", time.perf_counter() - began_s, "s")]
    width, layers = shape["width"], shape["layers"]
    weight_bytes = 2 * (layers * 12 * width**2 + shape["vocabulary"] * width)
    for rows in STREAMS:
        feeds = [Feed(slot, CONTEXT, (1000 + slot,)) for slot in range(rows)]
        spent_ms = device_ms(lambda feeds=feeds: decoder.step(feeds))
        floor_ms = (weight_bytes + rows * CONTEXT * 4 * layers * width) / bandwidth * 1e3
        found.append(
            Figure(f"GPT-2 decode step, {rows} rows at {CONTEXT} positions", spent_ms, "ms",
                   f"{spent_ms / floor_ms:.2f} × what its bytes need ({floor_ms:.3f} ms)")
        )  # fmt: skip
    feeds = [Feed(slot, 0, tuple(range(1000, 1000 + PROMPT)), is_prompt=True) for slot in range(max(STREAMS))]
    spent_ms = device_ms(lambda: decoder.step(feeds), 10)
    found.append(Figure(f"GPT-2 reads {len(feeds)} prompts of {PROMPT}", spent_ms, "ms"))
    return found


def bert_forward(operations_per_s: float) -> list[Figure]:
    """BERT-base over packed rows, and its share of the device's matrix rate."""
    shape = SIZES["published"]["bert"]
    model = load_model(spec_of("bert"), slots=1, device="cuda").model
    assert isinstance(model, Bert)
    model.capture()
    tokens, width = ROWS * ROW_TOKENS, shape["width"]
    ids = torch.randint(1000, 20000, (tokens,), device="cuda")
    types, lengths = torch.zeros_like(ids), [ROW_TOKENS] * ROWS
    spent_ms = device_ms(lambda: model.forward(ids, types, lengths))
    weights = shape["layers"] * (4 * width**2 + 2 * width * shape["inner"])
    operations = 2 * weights * tokens + 4 * width * shape["layers"] * ROWS * ROW_TOKENS**2
    rate = operations / spent_ms * 1e3
    theirs: Any = CLASSES["bert"].from_pretrained(checkpoint("bert"), dtype=torch.bfloat16).eval().cuda()
    whole = ids.view(ROWS, ROW_TOKENS)
    mask = torch.ones_like(whole)
    their_ms = device_ms(lambda: theirs(input_ids=whole, attention_mask=mask))
    return [
        Figure(f"BERT-base forward, {ROWS} × {ROW_TOKENS} tokens", spent_ms, "ms",
               f"{rate / 1e12:.0f} TFLOP/s, {rate / operations_per_s:.0%} of the matrix limit"),
        Figure("transformers, the same", their_ms, "ms", f"{their_ms / spent_ms:.2f} × ours"),
    ]  # fmt: skip


async def engine_seconds(jobs: Callable[[int], Sequence[Job]], model: str, slots: int) -> list[float]:
    """Seconds of each round of `jobs` on the engine in its own process, after one that warms up."""
    settings = EngineSettings(device="cuda", slots=slots)
    engine = ChildEngine.start(settings, log_level="warning", log_format="text")
    found: list[float] = []

    async def follow(job: Job) -> None:
        async for event in engine.submit(job):
            if isinstance(event, FailedEvent):
                raise event.error
            assert isinstance(event, TokenEvent | EncodedEvent) or event.usage.input_tokens

    try:
        await engine.load(spec_of(model))
        for number in range(ROUNDS + 1):
            began_s = time.perf_counter()
            await asyncio.gather(*(follow(job) for job in jobs(number)))
            found.append(time.perf_counter() - began_s)
    finally:
        await engine.close()
    return found[1:]


GREEDY = Sampling(temperature=0)


def decode_jobs(streams: int, search: Sampling = GREEDY) -> Callable[[int], list[Job]]:
    """So many streams at once."""

    def made(number: int) -> list[Job]:
        firsts = [1000 + streams * number + place for place in range(streams)]  # none that an earlier round had read
        return [
            DecodeJob(id=f"{number}-{first}", model="gpt2", ids=tuple(range(first, first + PROMPT)),
                      max_new_tokens=PRODUCED, search=search)
            for first in firsts
        ]  # fmt: skip

    return made


def queued_jobs(number: int) -> list[Job]:
    """Requests of all lengths in a line, for fewer slots: rows come and go. Every round has the same lengths."""
    lengths, draw = random.Random(0), random.Random(number)
    found: list[Job] = []
    for place in range(QUEUED):
        ids = tuple(draw.choices(range(50_000), k=lengths.randint(16, 256)))
        new = lengths.randint(8, 256)
        found.append(DecodeJob(id=f"{number}-{place}", model="gpt2", ids=ids, max_new_tokens=new, search=GREEDY))
    return found


def encode_jobs(number: int) -> list[Job]:
    return [
        EncodeJob(id=f"{number}-{place}", model="bert", ids=tuple(range(1000 + place, 1000 + place + ROW_TOKENS)))
        for place in range(8 * ROWS)
    ]


def generate_seconds(streams: int) -> list[float]:
    """The same streams by transformers' generate in bf16, as one batch."""
    model: Any = CLASSES["gpt2"].from_pretrained(checkpoint("gpt2"), dtype=torch.bfloat16).eval().cuda()
    ids = torch.stack([torch.arange(1000 + place, 1000 + place + PROMPT) for place in range(streams)]).cuda()
    found: list[float] = []
    for _ in range(ROUNDS + 1):
        began_s = time.perf_counter()
        made = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=PRODUCED, min_new_tokens=PRODUCED,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip
        torch.cuda.synchronize()
        found.append(time.perf_counter() - began_s)
        assert made.shape[1] == PROMPT + PRODUCED
    return found[1:]


def engines() -> Iterator[Figure]:
    """Whole engines: streams of GPT-2 against generate, and BERT's requests a second; each as soon as it is known."""
    for streams in (1, 64):
        ours_s = statistics.median(asyncio.run(engine_seconds(decode_jobs(streams), "gpt2", 64)))
        theirs_s = statistics.median(generate_seconds(streams))
        name = f"GPT-2, {streams} streams, {PROMPT} in / {PRODUCED} out"
        remark = f"{theirs_s / ours_s:.2f} × generate; {1e3 * ours_s / PRODUCED:.3f} ms a step"
        yield Figure(f"{name}: Tollgate's engine", streams * PRODUCED / ours_s, "tokens/s", remark)
        yield Figure(f"{name}: transformers generate", streams * PRODUCED / theirs_s, "tokens/s")
    for name, search in {
        "at temperature 0.8": Sampling(temperature=0.8),
        "and top_p 0.9": Sampling(temperature=0.8, top_p=0.9),
    }.items():
        spent_s = statistics.median(asyncio.run(engine_seconds(decode_jobs(64, search), "gpt2", 64)))
        yield Figure(f"GPT-2, 64 streams {name}: engine", 64 * PRODUCED / spent_s, "tokens/s")
    spent_s = statistics.median(asyncio.run(engine_seconds(queued_jobs, "gpt2", 64)))
    produced = sum(job.max_new_tokens for job in queued_jobs(0) if isinstance(job, DecodeJob))
    name = f"GPT-2, {QUEUED} requests in line, 16…256 in, 8…256 out: engine"
    yield Figure(name, produced / spent_s, "tokens/s")
    spent_s = statistics.median(asyncio.run(engine_seconds(encode_jobs, "bert", 1)))
    yield Figure(f"BERT-base, requests of {ROW_TOKENS} tokens: engine", 8 * ROWS / spent_s, "requests/s")


def profile() -> str:
    """Where a step of 64 rows and a forward of BERT spend the device's time."""
    from torch.profiler import ProfilerActivity

    decoder = load_model(spec_of("gpt2"), slots=64, device="cuda").model
    bert = load_model(spec_of("bert"), slots=1, device="cuda").model
    assert isinstance(decoder, Decoder) and isinstance(bert, Bert)
    decoder.capture()
    tables: list[str] = []
    ids = torch.randint(1000, 20000, (ROWS * ROW_TOKENS,), device="cuda")
    for name, run in {
        "one row": lambda: decoder.step([Feed(0, CONTEXT, (1000,))]),
        "64 rows": lambda: decoder.step([Feed(slot, CONTEXT, (1000,)) for slot in range(64)]),
        "bert": lambda: bert.forward(ids, torch.zeros_like(ids), [ROW_TOKENS] * ROWS),
    }.items():
        run()
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as taken:
            run()
            torch.cuda.synchronize()
        table = taken.key_averages().table(sort_by="self_cuda_time_total", row_limit=14, max_name_column_width=60)
        tables.append(f"{name}\n{table}")
    return "\n".join(tables)


def main() -> None:
    """Measure everything and print a table."""
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    arguments.add_argument("--profile", type=Path, metavar="FILE", help="write a profile of the device there")
    arguments.add_argument("--skip-engines", action="store_true", help="device times only")
    chosen = arguments.parse_args()
    found: list[Figure] = []
    with torch.inference_mode():
        bandwidth, operations_per_s = limits()
        found.append(Figure("copy, read and written", bandwidth / 1e9, "GB/s", torch.cuda.get_device_name()))
        found.append(Figure("bf16 product, 8192³", operations_per_s / 1e12, "TFLOP/s", f"torch {torch.__version__}"))
        found += decode_steps(bandwidth) + bert_forward(operations_per_s)
        if chosen.profile:
            chosen.profile.write_text(profile(), encoding="utf-8")
        for figure in found:
            print(figure.shown, flush=True)
        for figure in () if chosen.skip_engines else engines():
            print(figure.shown, flush=True)
            found.append(figure)
    if chosen.json:
        chosen.json.write_text(json.dumps([[f.name, f.value, f.unit, f.remark] for f in found]), encoding="utf-8")


if __name__ == "__main__":
    main()

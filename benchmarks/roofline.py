"""The machine's limits, measured, and how long a work must take at them.

A model's time has two floors. Its weights and the cache that a step reads must pass through memory: bytes divided by
the bandwidth of streaming reads. Its multiplications must be done: 2 operations a weight and token, plus 4 · width a
layer for each pair of a token and a position that it attends to, divided by the rate of the best matrix kernel found.
A phase cannot be faster than the greater of the two. Prompts are read in one phase. Of the last layer of what is read
all tokens' keys and values are needed, and the rest for one token, of which a label, or the next token, is made; of a
source's encoder, all of it. Decoding is the other phase: its steps are at least the tokens left divided by the rows at
once, each reading all weights once; the cache is read once a token, up to its position. Weights count 4, 2 or 1 bytes
for fp32, bf16 and int8, the cache 4 for fp32 and 2 otherwise.
Norms, activations, softmax, embedding look-ups and sampling count as nothing, so that 100 % is out of reach.
A figure's share is this floor divided by the measured time.
"""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.checkpoints import SIZES
from benchmarks.workloads import Work

WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
CACHE_BYTES = {"fp32": 4, "bf16": 2, "int8": 2}
ROWS, INNER, OUTER = 2048, 2048, 2048
STREAM_BYTES = 2**29


@dataclass(frozen=True, slots=True)
class Limits:
    """What this machine can do at best."""

    bytes_per_s: float
    """Streaming reads over all cores."""
    operations_per_s: dict[str, float]
    """Multiplications plus additions a second, by precision."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a work, as what it must read and compute."""

    bytes: float
    operations: float

    def seconds(self, limits: Limits, precision: str) -> float:
        """The floor of its time."""
        return max(self.bytes / limits.bytes_per_s, self.operations / limits.operations_per_s[precision])


def best_rate(work: Callable[[], Any], amount: float, *, seconds: float = 1.0) -> float:
    """The highest amount a second among repetitions during `seconds`, after one that is not counted."""
    work()
    best = 0.0
    give_up_s = time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < give_up_s:
        began_s = time.perf_counter()
        work()
        best = max(best, amount / (time.perf_counter() - began_s))
    return best


def measure_limits(*, seconds: float = 1.0) -> Limits:
    """Bandwidth and rates of this machine, now. A kernel that this build lacks is passed over."""
    stream = torch.ones(STREAM_BYTES // 4)
    vector = torch.ones(4096)
    rows = stream.view(-1, 4096)
    readings: list[Callable[[], Any]] = [stream.sum, lambda: torch.mv(rows, vector)]
    bandwidth = max(best_rate(reading, STREAM_BYTES, seconds=seconds) for reading in readings)
    operations = 2.0 * ROWS * INNER * OUTER
    rates: dict[str, float] = {}
    for precision, kernels in kernels_to_try().items():
        found: list[float] = []
        for kernel in kernels:
            try:
                found.append(best_rate(kernel, operations, seconds=seconds))
            except (RuntimeError, NotImplementedError):
                continue
        rates[precision] = max(found)
    return Limits(bandwidth, rates)


def kernels_to_try() -> dict[str, list[Callable[[], Any]]]:
    """Matrix products (ROWS, INNER) × (INNER, OUTER) by precision."""
    torch.manual_seed(0)
    left, right = torch.randn(ROWS, INNER), torch.randn(OUTER, INNER)
    half_left, half_right = left.bfloat16(), right.bfloat16()
    byte_left = torch.randint(-127, 127, (ROWS, INNER), dtype=torch.int8)
    byte_right = torch.randint(-127, 127, (OUTER, INNER), dtype=torch.int8).T

    def dynamic() -> Callable[[], Any]:
        engine: Any = torch.backends.quantized
        if "x86" in engine.supported_engines:
            engine.engine = "x86"
        with warnings.catch_warnings():  # torch deprecates these tensors, not the kernel
            warnings.simplefilter("ignore")
            weight = torch.quantize_per_channel(
                right, torch.full((OUTER,), 0.05), torch.zeros(OUTER, dtype=torch.int64), 0, torch.qint8
            )
        packed = torch.ops.quantized.linear_prepack(weight, None)
        return lambda: torch.ops.quantized.linear_dynamic(left, packed, True)

    return {
        "fp32": [lambda: left @ right.T],
        "bf16": [lambda: half_left @ half_right.T, lambda: torch.nn.functional.linear(half_left, half_right)],
        "int8": [lambda: torch._int_mm(byte_left, byte_right), dynamic()],
    }


def floor_s(work: Work, precision: str, limits: Limits, *, size: str = "published") -> float:
    """How long `work` takes at least on a machine of these limits."""
    return sum(phase.seconds(limits, precision) for phase in phases(work, precision, SIZES[size][work.model]))


def phases(work: Work, precision: str, shape: dict[str, int]) -> list[Phase]:
    """Reading the inputs, then decoding."""
    width, layers = shape["width"], shape["layers"]
    inner = shape.get("inner", 4 * width)
    head = shape["vocabulary"] * width
    per_weight, per_cached = WEIGHT_BYTES[precision], CACHE_BYTES[precision]
    layer = 4 * width**2 + 2 * width * inner
    encoder = layers * layer
    squares = sum(len(ask.ids) ** 2 for ask in work.asks)
    unread = (layer - 2 * width**2) * (work.input_tokens - len(work.asks))  # of the last layer
    if work.is_encoding:
        pairs = (layers - 1) * squares + work.input_tokens
        return [Phase(encoder * per_weight, 2 * (encoder * work.input_tokens - unread) + 4 * width * pairs)]
    produced = [ask.output_tokens * work.beams for ask in work.asks]
    if work.model == "marian":
        crossed = layers * 2 * width**2  # keys and values of the source, once for each of its tokens
        decoder = layers * (6 * width**2 + 2 * width * inner)
        reading = Phase(
            (encoder + crossed) * per_weight,
            2 * (encoder + crossed) * work.input_tokens + 4 * width * layers * squares,
        )
        pairs = sum(
            work.beams * sum(len(ask.ids) + position + 1 for position in range(ask.output_tokens)) for ask in work.asks
        )
        tokens = sum(produced)
    else:
        decoder = encoder
        reading = Phase(
            encoder * per_weight,
            2 * (encoder * work.input_tokens - unread + head * len(work.asks))
            + 2 * width * ((layers - 1) * squares + 2 * work.input_tokens),
        )
        pairs = sum(sum(len(ask.ids) + n for n in range(1, ask.output_tokens)) for ask in work.asks)
        tokens = sum(produced) - len(work.asks)  # the first token comes out of the prompt
    steps = math.ceil(tokens / (work.at_once * work.beams))
    return [
        reading,
        Phase(
            steps * (decoder + head) * per_weight + pairs * 2 * layers * width * per_cached,
            2 * (decoder + head) * tokens + pairs * 4 * width * layers,
        ),
    ]

"""A decoder's step in one kernel: its parts to the bit, whatever its threads do to each other."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.compute.activations import ACTIVATIONS
from app.engine.compute.cache import SlotCache, Span, StepTokens
from app.engine.compute.kernels import (
    HAS_FMA,
    attention,
    decoder,
    set_threads,
    threads,
)
from app.engine.compute.kernels.sixteen import ROOM
from app.engine.compute.layers import Fp32Linear, Int8Linear, KernelNorm
from app.engine.compute.pre_norm import Block, Layers
from tests.engine.compute.late import check_at_once, check_left_and_late

CASES = settings(max_examples=25, deadline=None)
CPU = torch.device("cpu")
WIDTH, INNER, HEADS, SLOTS, POSITIONS = 64, 96, 2, 70, 300
needs_fma = pytest.mark.skipif(not HAS_FMA, reason="this processor has no AVX2")
Kind = type[Int8Linear] | type[Fp32Linear]
both_kinds = pytest.mark.parametrize(
    "kind", [pytest.param(Int8Linear, marks=needs_fma), pytest.param(Fp32Linear, marks=needs_fma)]
)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn_norm(seed: int) -> KernelNorm:
    return KernelNorm(drawn(WIDTH, seed=seed), drawn(WIDTH, seed=seed + 1), 1e-5)


def drawn_layers(kind: Kind, act: str = "gelu_new", seed: int = 0, depth: int = 2) -> Layers:
    blocks = [
        Block(
            norm_attention=drawn_norm(layer),
            qkv=kind(drawn(3 * WIDTH, WIDTH, seed=layer), drawn(3 * WIDTH)),
            out=kind(drawn(WIDTH, WIDTH, seed=layer), drawn(WIDTH)),
            norm_mlp=drawn_norm(layer + 2),
            up=kind(drawn(INNER, WIDTH, seed=layer), drawn(INNER)),
            down=kind(drawn(WIDTH, INNER, seed=layer), drawn(WIDTH)),
        )
        for layer in range(seed, seed + depth)
    ]
    scales = [0.2 / (layer + 1) for layer in range(depth)]
    return Layers(blocks, drawn_norm(seed), act=ACTIVATIONS[act], heads=HEADS, scales=scales)


def drawn_cache(kind: Kind, depth: int = 2) -> SlotCache:
    cache = SlotCache(
        layers=depth, slots=SLOTS + 1, heads=HEADS, positions=POSITIONS, head_dim=WIDTH // HEADS,
        dtype=torch.bfloat16 if kind is Int8Linear else torch.float32, device=CPU,
    )  # fmt: skip
    for number, held in enumerate((cache.keys, cache.values)):
        held.copy_(drawn(*held.shape, seed=number))
    return cache


@both_kinds
@given(
    places=st.lists(st.integers(0, POSITIONS - 1), min_size=1, max_size=SLOTS),
    act=st.sampled_from(sorted(ACTIVATIONS)),
    count=st.sampled_from([1, 2, threads()]),
    seed=st.integers(0, 9),
)
@CASES
def test_a_step_in_one_kernel_is_its_parts_to_the_bit(
    kind: Kind, places: list[int], act: str, count: int, seed: int
) -> None:
    layers, caches = drawn_layers(kind, act, seed), [drawn_cache(kind) for _ in range(3)]
    slots = torch.randperm(SLOTS, generator=torch.Generator().manual_seed(seed))[: len(places)].tolist()
    spans = [Span(slot, start, 1) for slot, start in zip(slots, places, strict=True)]
    x, before = drawn(len(spans), WIDTH, seed=3), threads()
    parts = layers.through(x, StepTokens(spans, CPU), caches[0])
    set_threads(count)
    try:
        together = layers(x, StepTokens(spans, CPU), caches[1])
        alone = layers(x[:1], StepTokens(spans[:1], CPU), caches[2])
    finally:
        set_threads(before)
    assert torch.equal(together, parts)
    assert torch.equal(alone, parts[:1])
    assert torch.equal(caches[0].keys, caches[1].keys)
    assert torch.equal(caches[0].values, caches[1].values)


@needs_fma
@given(
    rows=st.lists(
        st.one_of(
            st.tuples(st.integers(0, POSITIONS - 1), st.just(0)), st.tuples(st.integers(0, 200), st.integers(1, 100))
        ),
        min_size=1,
        max_size=SLOTS,
    ),
    act=st.sampled_from(sorted(ACTIVATIONS)),
    count=st.sampled_from([1, 2, threads()]),
    seed=st.integers(0, 9),
    data=st.data(),
)
@CASES
def test_prompts_and_single_tokens_in_one_kernel_are_their_parts_to_the_bit(
    rows: list[tuple[int, int]], act: str, count: int, seed: int, data: st.DataObject
) -> None:
    layers, caches = drawn_layers(Int8Linear, act, seed), [drawn_cache(Int8Linear) for _ in range(4)]
    slots = torch.randperm(SLOTS, generator=torch.Generator().manual_seed(seed))[: len(rows)].tolist()
    spans = [Span(slot, start, length or 1, length > 0) for slot, (start, length) in zip(slots, rows, strict=True)]
    spans.append(Span(SLOTS, 0, 24 * count, is_prompt=True))  # fewer tokens go layer by layer
    tokens, before = StepTokens(spans, CPU), threads()
    x = drawn(len(tokens.slots_array), WIDTH, seed=3)
    parts = layers.through(x, tokens, caches[0])
    of_prompts = data.draw(st.sets(st.integers(0, len(x) - 1), min_size=1))
    wanted = np.array(sorted(of_prompts | set(tokens.short_array.tolist())))
    asking = StepTokens(spans, CPU, wanted)
    set_threads(count)
    try:
        assert layers._is_read(x, tokens, caches[1])
        together = layers(x, tokens, caches[1])
        some = layers(x, asking, caches[2])
    finally:
        set_threads(before)
    assert torch.equal(together, parts)
    assert torch.equal(some, parts[wanted])
    assert torch.equal(layers.through(x, asking, caches[3]), parts[wanted])
    for cache in caches[1:]:
        assert torch.equal(caches[0].keys, cache.keys)
        assert torch.equal(caches[0].values, cache.values)


def drawn_work(layers: Layers, tokens: StepTokens, x: torch.Tensor, cache: SlotCache, kind: Kind) -> tuple[Any, ...]:
    """A step's output (rows, WIDTH), what its stages are given, and how many tasks each has."""
    rows, found = len(x), layers._packed
    assert found is not None
    assert cache.whole is not None
    floats = [np.empty((2, rows, columns), np.float32) for columns in (3 * WIDTH, WIDTH, WIDTH, INNER, WIDTH)]
    out = np.empty((rows, WIDTH), np.float32)
    of_rows = np.empty((2, 4, rows), np.float32), np.empty((2, 4, rows), np.int32)
    normed = np.empty((2, 2, rows, WIDTH), np.float32)
    many = np.empty((2, 3, rows, WIDTH * ROOM), np.uint8), np.empty((2, rows, INNER * ROOM), np.uint8)
    parts = attention.cut(tokens.lengths_array)
    begins = attention.begins_of(parts, rows)
    found_of = np.empty((2, len(parts), WIDTH), np.float32), np.empty((2, len(parts), 2, HEADS), np.float32)
    room = (x.numpy(), out, *floats, normed, *many, *of_rows, *found_of)
    scales = np.array(layers.scales, np.float32)
    model = (found.weights, found.norms, found.epsilons[0], layers.act.number, scales, kind is Int8Linear)
    work = (model, (tokens.slots_array, tokens.positions_array, parts, begins), cache.whole, room)
    counts = [
        decoder.tasks_of(stage, rows, len(parts), found.weights, kind is Int8Linear)
        for stage in range(2 * decoder.STAGES + 1)
    ]
    return out, work, counts


@both_kinds
@pytest.mark.parametrize("rows", [1, 9])
def test_what_a_thread_took_and_left_is_done_by_another_and_may_come_late(kind: Kind, rows: int) -> None:
    layers, cache = drawn_layers(kind), drawn_cache(kind)
    tokens, x = StepTokens([Span(row, 33 * row, 1) for row in range(rows)], CPU), drawn(rows, WIDTH)
    assert cache.whole is not None
    expected = layers.through(x, tokens, drawn_cache(kind))
    out, work, counts = drawn_work(layers, tokens, x, cache, kind)
    check_left_and_late(work, counts, out, expected.numpy(), decoder.run)


@both_kinds
def test_threads_that_wait_for_nobody_do_the_same_at_the_same_time(kind: Kind) -> None:
    layers, cache, rows = drawn_layers(kind), drawn_cache(kind), 9
    tokens, x = StepTokens([Span(row, 33 * row, 1) for row in range(rows)], CPU), drawn(rows, WIDTH)
    expected = layers.through(x, tokens, drawn_cache(kind)).numpy()
    out, work, counts = drawn_work(layers, tokens, x, cache, kind)
    check_at_once(work, counts, out, expected, rounds=2000)


@both_kinds
def test_a_row_that_is_not_finite_fails_alone(kind: Kind) -> None:
    layers, x = drawn_layers(kind), drawn(5, WIDTH)
    tokens = StepTokens([Span(row, 7, 1) for row in range(5)], CPU)
    clean = layers(x, tokens, drawn_cache(kind))
    x[2, 5] = float("nan")
    found = layers(x, tokens, drawn_cache(kind))
    assert found[2].isnan().all()
    assert torch.equal(found[[0, 1, 3, 4]], clean[[0, 1, 3, 4]])


@needs_fma
def test_a_prompt_that_is_not_finite_fails_alone() -> None:
    layers, count = drawn_layers(Int8Linear), 24 * threads()
    tokens = StepTokens([Span(0, 0, count, is_prompt=True), Span(1, 7, 1), Span(2, 0, 9, is_prompt=True)], CPU)
    x = drawn(len(tokens.slots_array), WIDTH)
    clean = layers(x, tokens, drawn_cache(Int8Linear))
    x[3, 5] = float("nan")
    found = layers(x, tokens, drawn_cache(Int8Linear))
    assert found[:count].isnan().all()
    assert torch.equal(found[count:], clean[count:])

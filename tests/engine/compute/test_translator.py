"""A step of a decoder that reads a source, in one kernel: its parts to the bit, whatever its threads do."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.engine.compute import cross
from app.engine.compute.activations import ACTIVATIONS
from app.engine.compute.cache import SlotCache, Span, StepTokens
from app.engine.compute.kernels import attention, set_threads, threads, translator
from app.engine.compute.layers import Int8Linear, Tail
from tests.engine.compute.late import check_at_once, check_left_and_late
from tests.engine.compute.test_decoder import (
    CASES,
    CPU,
    HEADS,
    INNER,
    POSITIONS,
    SLOTS,
    WIDTH,
    Kind,
    both_kinds,
    drawn,
    drawn_cache,
    drawn_norm,
)  # fmt: skip

DEPTH = 2


def drawn_layers(kind: Kind, act: str = "gelu", seed: int = 0) -> cross.Layers:
    def linear(outputs: int, inputs: int, number: int) -> Int8Linear | Any:
        return kind(drawn(outputs, inputs, seed=number), drawn(outputs, seed=number))

    blocks: list[cross.Block] = []
    for number in range(seed, seed + 10 * DEPTH, 10):
        tail = Tail(
            out=linear(WIDTH, WIDTH, number), norm_read=drawn_norm(number), up=linear(INNER, WIDTH, number + 1),
            act=ACTIVATIONS[act], down=linear(WIDTH, INNER, number + 2), norm=drawn_norm(number + 2),
        )  # fmt: skip
        square = [linear(WIDTH, WIDTH, number + place) for place in (3, 4)]
        source = linear(2 * WIDTH, WIDTH, number + 5)
        qkv = linear(3 * WIDTH, WIDTH, number + 6)
        blocks.append(cross.Block(qkv, tail, square[0], source, square[1], drawn_norm(number + 4)))
    return cross.Layers(blocks, heads=HEADS, scale=0.2)


def caches_of(kind: Kind) -> tuple[SlotCache, SlotCache]:
    """The rows', and the sources'."""
    own, source = drawn_cache(kind), drawn_cache(kind)
    for number, held in enumerate((source.keys, source.values)):
        held.copy_(drawn(*held.shape, seed=7 + number))
    return own, source


def tokens_of(spans: list[Span], sources: list[Span]) -> tuple[StepTokens, StepTokens]:
    return StepTokens(spans, CPU), StepTokens(sources, CPU)


@both_kinds
@given(
    rows=st.lists(
        st.tuples(st.integers(0, POSITIONS - 1), st.integers(0, SLOTS), st.integers(0, POSITIONS - 1)),
        min_size=1,
        max_size=SLOTS,
    ),
    act=st.sampled_from(sorted(ACTIVATIONS)),
    count=st.sampled_from([1, 2, threads()]),
    seed=st.integers(0, 9),
)
@CASES
def test_a_step_in_one_kernel_is_its_parts_to_the_bit(
    kind: Kind, rows: list[tuple[int, int, int]], act: str, count: int, seed: int
) -> None:
    layers, (of_parts, of_one, of_first) = drawn_layers(kind, act, seed), [caches_of(kind) for _ in range(3)]
    slots = torch.randperm(SLOTS, generator=torch.Generator().manual_seed(seed))[: len(rows)].tolist()
    spans = [Span(slot, start, 1) for slot, (start, _, _) in zip(slots, rows, strict=True)]
    sources = [Span(slot, last, 1) for _, slot, last in rows]  # beams of a row share theirs
    tokens, read = tokens_of(spans, sources)
    x, before = drawn(len(spans), WIDTH, seed=3), threads()
    held = x.clone()
    parts = layers.through(x, tokens, of_parts[0], of_parts[1], read)
    set_threads(count)
    try:
        together = layers(x, tokens, of_one[0], of_one[1], read)
        first = tokens_of(spans[:1], sources[:1])
        alone = layers(x[:1], first[0], of_first[0], of_first[1], first[1])
    finally:
        set_threads(before)
    assert torch.equal(x, held)
    assert torch.equal(together, parts)
    assert torch.equal(alone, parts[:1])
    for one, other in zip(of_parts, of_one, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)


def drawn_work(
    layers: cross.Layers, kind: Kind, rows: int
) -> tuple[np.ndarray[Any, Any], Any, tuple[Any, ...], list[int]]:
    """A step's output (rows, WIDTH), what it should be, what its stages are given, and how many tasks each has."""
    tokens, read = tokens_of(
        [Span(row, 33 * row, 1) for row in range(rows)], [Span(rows - row, 30 * row + 5, 1) for row in range(rows)]
    )
    x, (own, source), found = drawn(rows, WIDTH), caches_of(kind), layers._packed
    assert found is not None
    assert own.whole is not None
    assert source.whole is not None
    expected = layers.through(x, tokens, *caches_of(kind), read).numpy()
    out = np.empty((rows, WIDTH), np.float32)
    parts, source_parts = attention.cut(tokens.lengths_array), attention.cut(read.lengths_array)
    begins, source_begins = attention.begins_of(parts, rows), attention.begins_of(source_parts, rows)
    counts = len(parts), len(source_parts)
    room = translator.room_of(x.numpy(), out, DEPTH, HEADS, INNER, *counts)
    act, is_int8 = layers.blocks[0].tail.act.number, kind is Int8Linear
    model = (found.weights, found.norms, found.epsilons[0], act, np.float32(layers.scale), is_int8)
    own_places = (tokens.slots_array, tokens.positions_array, parts, begins)
    places = (*own_places, read.slots_array, source_parts, source_begins)
    tasks = [
        translator.tasks_of(stage, rows, *counts, found.weights, is_int8)
        for stage in range(DEPTH * translator.STAGES + 1)
    ]
    return out, expected, (model, places, (*own.whole, *source.whole), room), tasks


@both_kinds
@pytest.mark.parametrize("rows", [1, 9])
def test_what_a_thread_took_and_left_is_done_by_another_and_may_come_late(kind: Kind, rows: int) -> None:
    layers = drawn_layers(kind)  # the kernel has addresses only
    out, expected, work, counts = drawn_work(layers, kind, rows)
    check_left_and_late(work, counts, out, expected, translator.run)


@both_kinds
def test_threads_that_wait_for_nobody_do_the_same_at_the_same_time(kind: Kind) -> None:
    layers = drawn_layers(kind)  # the kernel has addresses only
    out, expected, work, counts = drawn_work(layers, kind, 9)
    check_at_once(work, counts, out, expected, rounds=1000)


@both_kinds
def test_a_row_that_is_not_finite_fails_alone(kind: Kind) -> None:
    layers, x = drawn_layers(kind), drawn(5, WIDTH)
    tokens, read = tokens_of([Span(row, 7, 1) for row in range(5)], [Span(row, 9, 1) for row in range(5)])
    clean = layers(x, tokens, *caches_of(kind), read)
    x[2, 5] = float("nan")
    found = layers(x, tokens, *caches_of(kind), read)
    assert found[2].isnan().all()
    assert torch.equal(found[[0, 1, 3, 4]], clean[[0, 1, 3, 4]])

"""Rows that are moved, rounded or packed, against the same in numpy and torch, to the bit."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from app.engine.compute.kernels import HAS_BF16_512
from app.engine.compute.kernels.halves import lay, pack_keys, pack_values
from app.engine.compute.kernels.spans import pack_keys as pack_keys_whole
from app.engine.compute.kernels.spans import pack_values as pack_values_whole
from app.engine.compute.kernels.vectors import PANEL

needs_bf16 = pytest.mark.skipif(not HAS_BF16_512, reason="this processor has no AVX-512 BF16")
CASES = settings(max_examples=40, deadline=None)
UNTOUCHED = 7
Array = np.ndarray[Any, np.dtype[Any]]


@njit
def laid(source: Array, first: int, stride: int, rows: int, width: int, target: Array, start: int, apart: int) -> None:
    lay(source, first, stride, rows, width, target, start, apart)


def halves_of(numbers: Array) -> Array:
    return torch.from_numpy(numbers).bfloat16().view(torch.int16).numpy().view(np.uint16)


def whole(halves: Array) -> Array:
    return (halves.astype(np.uint32) << 16).view(np.float32)


def drawn(count: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32) * np.float32(3.0)


def rows_of(kind: str, count: int, width: int, stride: int, first: int, seed: int) -> tuple[Array, Array]:
    """A flat array that holds rows from the place `first` on, `stride` apart, and these rows (count, width)."""
    numbers = drawn(first + count * stride, seed)
    source = numbers if kind == "floats" else halves_of(numbers)
    return source, np.stack([source[first + place * stride :][:width] for place in range(count)])


@pytest.mark.parametrize(
    ("kind", "to"),
    [
        ("floats", "floats"),
        pytest.param("floats", "halves", marks=needs_bf16),
        ("halves", "halves"),
        ("halves", "floats"),
    ],
)
@given(rows=st.integers(1, 20), vectors=st.integers(1, 8), first=st.integers(0, 5), gap=st.integers(0, 40))
@CASES
def test_rows_arrive_where_they_belong_and_nothing_else_is_touched(
    kind: str, to: str, rows: int, vectors: int, first: int, gap: int
) -> None:
    width, stride, apart = 16 * vectors, 16 * vectors + gap, 16 * vectors + 2 * gap
    numbers = drawn(first + rows * stride, seed=rows)
    source = numbers if kind == "floats" else halves_of(numbers)
    moved = source if kind == to else halves_of(numbers) if to == "halves" else whole(source)
    target = np.full(first + rows * apart, UNTOUCHED, np.float32 if to == "floats" else np.uint16)
    expected = target.copy()
    for row in range(rows):
        to_row, of_row = first + row * apart, first + row * stride
        expected[to_row : to_row + width] = moved[of_row : of_row + width]
    laid(source, first, stride, rows, width, target, first, apart)
    np.testing.assert_array_equal(target, expected)


@needs_bf16
@pytest.mark.parametrize("kind", ["floats", "halves"])
@given(positions=st.integers(1, 70), parts=st.integers(1, 4), gap=st.integers(0, 9), seed=st.integers(0, 99))
@CASES
def test_packed_keys_and_values_are_the_numbers_of_their_positions(
    kind: str, positions: int, parts: int, gap: int, seed: int
) -> None:
    width, stride, first = PANEL * parts, PANEL * parts + gap, 3
    source, rows = rows_of(kind, positions, width, stride, first, seed)
    held = rows if kind == "halves" else np.stack([halves_of(row) for row in rows])
    panels, steps = (positions + PANEL - 1) // PANEL, (positions + 1) // 2
    keys = np.zeros(panels * width // 2 * PANEL, np.int32)
    pack_keys(source, first, stride, positions, width, keys)
    found = keys.view(np.uint16).reshape(panels, width // 2, PANEL, 2).transpose(0, 2, 1, 3).reshape(-1, width)
    np.testing.assert_array_equal(found[:positions], held)
    values = np.empty(parts * steps * PANEL, np.int32)
    pack_values(source, first, stride, positions, width, values)
    found = values.view(np.uint16).reshape(parts, steps, PANEL, 2).transpose(1, 3, 0, 2).reshape(-1, width)
    np.testing.assert_array_equal(found[:positions], held)
    assert not found[positions:].any()


@pytest.mark.parametrize("kind", ["floats", "halves"])
@given(positions=st.integers(1, 70), parts=st.integers(1, 4), gap=st.integers(0, 9), seed=st.integers(0, 99))
@CASES
def test_keys_and_values_packed_in_fp32_are_the_numbers_of_their_positions(
    kind: str, positions: int, parts: int, gap: int, seed: int
) -> None:
    width, stride, first, start = PANEL * parts, PANEL * parts + gap, 3, 5
    source, rows = rows_of(kind, positions, width, stride, first, seed)
    held = rows if kind == "floats" else np.stack([whole(row) for row in rows])
    panels = (positions + PANEL - 1) // PANEL
    keys = np.full(start + panels * width * PANEL, UNTOUCHED, np.float32)
    pack_keys_whole(source, first, stride, positions, width, keys, start)
    found = keys[start:].reshape(panels, width, PANEL).transpose(0, 2, 1).reshape(-1, width)
    np.testing.assert_array_equal(found[:positions], held)
    assert not found[positions:].any()
    values = np.full(start + positions * width, UNTOUCHED, np.float32)
    pack_values_whole(source, first, stride, positions, width, values, start)
    found = values[start:].reshape(parts, positions, PANEL).transpose(1, 0, 2).reshape(-1, width)
    np.testing.assert_array_equal(found, held)
    assert (keys[:start] == UNTOUCHED).all()
    assert (values[:start] == UNTOUCHED).all()

"""Rows whose products are summed in 16 bits: what they keep and what follows it are the row, exactly."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.compute.kernels import HAS_FMA, linear
from app.engine.compute.kernels.sixteen import CENTER_LEAST, IN_16_BITS, LEVELS, LEVELS_LEAST, MOST, lay_row
from app.engine.compute.layers import Int8Linear

CASES = settings(max_examples=100, deadline=None)
ROOM, UNTOUCHED = 7, 0xA5
STEP_BYTES = 128
LARGEST = LEVELS + 1
"""A row's largest number may be rounded up."""
needs_fma = pytest.mark.skipif(not HAS_FMA, reason="this processor has no AVX2")
needs_16_bits = pytest.mark.skipif(not IN_16_BITS, reason="this processor sums bytes in 32 bits")
near = st.integers(LEVELS // 2 - 20, LEVELS // 2 + 20)
anywhere = st.integers(0, LARGEST)
ends = st.sampled_from([0, 1, LARGEST - 1, LARGEST])


@needs_fma
@given(
    numbers=st.lists(near, min_size=1, max_size=80) | st.lists(anywhere | ends | near, min_size=1, max_size=80),
    zero=st.integers(0, LEVELS),
)
@CASES
def test_what_a_row_keeps_and_its_rests_are_the_row(numbers: list[int], zero: int) -> None:
    row = np.array(numbers + numbers[:1] * (-len(numbers) % 8), np.uint8)
    room = np.zeros(ROOM * row.size, np.uint8)
    center = zero - int(lay_row(row.copy(), zero, room))
    assert CENTER_LEAST <= center <= LEVELS - CENTER_LEAST
    count, offset = room[row.size :].view(np.int32)[:2]
    rests = room[row.size + 8 : row.size + 8 * (count + 1)].view(np.int32).reshape(count, 2)
    kept = room[: row.size].view(np.int8).astype(int).reshape(-1, 4)
    fours = kept.reshape(-1, 2, 2, 2).transpose(0, 2, 1, 3).reshape(-1, 4)
    parts = [kept]
    for place, word in rests:
        part = np.zeros_like(kept)
        part[place // STEP_BYTES] = np.array([word], np.int32).view(np.int8)
        parts.append(part)
        assert np.maximum(part.reshape(-1, 2), 0).sum(1).max() <= MOST
        assert np.maximum(-part.reshape(-1, 2), 0).sum(1).max() <= MOST
    assert np.maximum(fours, 0).sum(1).max() <= MOST
    assert np.maximum(-fours, 0).sum(1).max() <= MOST
    assert np.array_equal(sum(parts), (row.astype(int) - center).reshape(-1, 4))
    assert offset == -128 * (row.astype(int) - center).sum()


def normal(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def assert_there_is_room(row: np.ndarray[Any, Any]) -> int:
    room = np.full(ROOM * row.size + 64, UNTOUCHED, np.uint8)
    lay_row(row.copy(), 0, room[: ROOM * row.size])
    assert (room[ROOM * row.size :] == UNTOUCHED).all()
    return int(room[row.size : row.size + 4].view(np.int32)[0])


@needs_fma
def test_eight_numbers_have_no_more_rests_than_there_is_room_for() -> None:
    rows = np.array(list(product([0, 31, 127, 191, 255], repeat=6)), np.uint8)
    rows = np.concatenate([rows, rows[:, :2]], axis=1)
    assert max(map(assert_there_is_room, rows)) == 5


@needs_fma
@pytest.mark.parametrize("large", [128, 160, 191, 224, 255])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.3, 0.5, 0.7, 0.9])
def test_rows_of_two_numbers_have_no_more_rests_than_there_is_room_for(large: int, share: float) -> None:
    draw = np.random.default_rng(0)
    for inputs in (16, 48, 416, 3072):
        steps = np.where(draw.random((inputs // 4, 1)) < share, large, 0).astype(np.uint8)
        assert_there_is_room(np.repeat(steps, 4, axis=1).reshape(-1))
        pairs = np.where(draw.random((inputs // 2, 1)) < share, large, 0).astype(np.uint8)
        assert_there_is_room(np.repeat(pairs, 2, axis=1).reshape(-1))


def levels_and_rests(rows: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Of what these rows (rows, inputs) are quantised to: how many levels, and rests for each double step."""
    quantised, scales, zeros = (
        np.empty(rows.shape, np.uint8),
        np.empty(len(rows), np.float32),
        np.empty(len(rows), np.int32),
    )
    linear.quantise(rows, quantised, scales, zeros)
    rests, inputs = [], rows.shape[1]
    for numbers, zero in zip(quantised.copy(), zeros, strict=True):
        room = np.zeros(ROOM * inputs, np.uint8)
        lay_row(numbers, zero, room)
        rests.append(room[inputs:].view(np.int32)[0] / (inputs // 8))
    return float(np.mean(np.ptp(quantised, axis=1))), float(np.mean(rests))


@needs_16_bits
def test_normal_rows_get_few_levels_and_have_few_rests() -> None:
    levels, rests = levels_and_rests(normal(50, 768))
    assert LEVELS_LEAST < levels < 190
    assert 0 < rests < 0.1


@needs_16_bits
def test_rows_with_a_few_large_numbers_keep_their_levels_and_have_few_rests() -> None:
    rows = normal(50, 768)
    rows[:, ::97] *= 10
    levels, rests = levels_and_rests(rows)
    assert levels >= LEVELS - 1
    assert rests < 0.05


@needs_fma
@pytest.mark.parametrize("inputs", [8, 24, 512, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_sums_of_rows_of_which_most_double_steps_have_rests_are_exact(seed: int, inputs: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    x = (torch.randint(0, 2, (9, inputs), generator=draw) * 2.0 - 1) * torch.rand(9, 1, generator=draw)
    weight = torch.randint(0, 2, (40, inputs), generator=draw) * 2.0 - 1
    found = Int8Linear(weight, None)(x)
    torch.testing.assert_close(found, x @ weight.T, rtol=1e-5, atol=1e-3)


@needs_16_bits
@pytest.mark.parametrize("largest", [1e-28, 1e37, 1.5e38])
def test_rows_whose_sum_is_no_number_of_fp32_are_quantised_all_the_same(largest: float) -> None:
    rows = np.clip(normal(3, 512), -1, 1) * np.float32(largest)
    quantised, scales, zeros = np.empty(rows.shape, np.uint8), np.empty(3, np.float32), np.empty(3, np.int32)
    linear.quantise(rows, quantised, scales, zeros)
    found = (quantised.astype(np.float64) - zeros[:, None]) * scales[:, None].astype(np.float64)
    assert np.abs(found - rows).max() <= largest / LEVELS_LEAST * 1.01

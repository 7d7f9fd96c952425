"""Rows whose products are summed by pairs in 16 bits: what they keep and what follows it are the row, exactly."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.compute.kernels import HAS_FMA
from app.engine.compute.kernels.pairs import PAIR_MOST, pair_row
from app.engine.compute.layers import Int8Linear

CASES = settings(max_examples=50, deadline=None)
ROOM, RESTS_MOST, LARGEST = 7, 2, 254
STEP_BYTES = 128
needs_fma = pytest.mark.skipif(not HAS_FMA, reason="this processor has no AVX2")
near = st.integers(100, 150)
anywhere = st.integers(0, LARGEST)
ends = st.sampled_from([0, 1, LARGEST - 1, LARGEST])


@given(
    numbers=st.lists(near, min_size=1, max_size=40) | st.lists(anywhere | ends | near, min_size=1, max_size=40),
    zero=st.integers(0, LARGEST),
)
@CASES
def test_what_a_row_keeps_and_its_rests_are_the_row(numbers: list[int], zero: int) -> None:
    row = np.array(numbers + numbers[:1] * (-len(numbers) % 4), np.uint8)
    room = np.zeros(ROOM * row.size, np.uint8)
    center = zero - int(pair_row(row.copy(), zero, room))
    count, offset = room[row.size :].view(np.int32)[:2]
    rests = room[row.size + 8 : row.size + 8 * (count + 1)].view(np.int32).reshape(count, 2)
    parts = [room[: row.size].view(np.int8).astype(int).reshape(-1, 4)]
    for place, word in rests:
        part = np.zeros_like(parts[0])
        part[place // STEP_BYTES] = np.array([word], np.int32).view(np.int8)
        parts.append(part)
    for part in parts:
        assert np.abs(part).max() < PAIR_MOST
        assert np.abs(part[:, 0::2] + part[:, 1::2]).max() <= PAIR_MOST
    assert np.array_equal(sum(parts), (row.astype(int) - center).reshape(-1, 4))
    assert offset == -128 * (row.astype(int) - center).sum()
    assert all((rests[:, 0] == step * STEP_BYTES).sum() <= RESTS_MOST for step in range(row.size // 4))


@needs_fma
@pytest.mark.parametrize("seed", range(5))
def test_sums_of_rows_of_which_half_the_pairs_have_rests_are_exact(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    x = (torch.randint(0, 2, (9, 512), generator=draw) * 2.0 - 1) * torch.rand(9, 1, generator=draw)
    weight = torch.randint(0, 2, (40, 512), generator=draw) * 2.0 - 1
    found = Int8Linear(weight, None)(x)
    torch.testing.assert_close(found, x @ weight.T, rtol=1e-5, atol=1e-3)

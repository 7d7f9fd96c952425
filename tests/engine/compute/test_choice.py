"""Draws by torch, as a GPU makes them, give the tokens that the CPU's kernels give."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.compute.choice import POISONED, Draws, best_tokens
from app.engine.compute.kernels import draws
from app.engine.jobs import Sampling

CASES = settings(max_examples=60, deadline=None)
SEARCH = st.builds(
    Sampling, temperature=st.sampled_from([0.3, 1.0, 1.7]), top_k=st.sampled_from([0, 1, 5, 500]),
    top_p=st.sampled_from([0.05, 0.6, 0.95, 1.0]), min_p=st.sampled_from([0.0, 0.02, 0.5]),
)  # fmt: skip


@given(seed=st.integers(0, 10_000), searches=st.lists(SEARCH, min_size=1, max_size=5), data=st.data())
@CASES
def test_the_same_number_draws_the_same_token(seed: int, searches: list[Sampling], data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.randn(len(searches), 300, generator=generator) * 3).round(decimals=1)  # with ties
    scores[:, ::7] = -math.inf
    uniforms = data.draw(
        st.lists(st.floats(0, 0.999999), min_size=len(searches), max_size=len(searches)), label="uniforms"
    )
    expected = np.zeros(len(searches), np.int64)
    draws.draw_rows(
        scores.numpy(), np.arange(len(searches)), np.array([one.temperature for one in searches], np.float32),
        np.array([one.top_k for one in searches], np.int64), np.array([one.top_p for one in searches], np.float64),
        np.array([one.min_p for one in searches], np.float32), np.array(uniforms, np.float64), expected,
    )  # fmt: skip
    numbers = torch.tensor(uniforms, dtype=torch.float64)
    found = Draws(searches, scores.shape[1], scores.device).of(scores, numbers).tolist()
    for row, (ours, theirs) in enumerate(zip(found, expected.tolist(), strict=True)):
        if ours != theirs:  # a number that falls on the border of two tokens may go to either
            weights = ((scores[row] - scores[row].max()) / searches[row].temperature).exp().double()
            between = weights[min(ours, theirs) + 1 : max(ours, theirs)]
            kept = between if not searches[row].top_k and searches[row].top_p == 1 else between[:0]
            assert float(kept.sum()) < 1e-4 * float(weights.sum())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_that_is_not_finite_has_no_best_token_and_no_other_row_suffers(bad: float) -> None:
    scores = torch.tensor([[0.0, 3.0, 1.0], [0.0, bad, 1.0], [-math.inf, -math.inf, -math.inf], [5.0, -math.inf, 5.0]])
    assert best_tokens(scores).tolist() == [1, POISONED, POISONED, 0]

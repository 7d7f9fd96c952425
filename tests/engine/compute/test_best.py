"""The best token found without the scores is the one that the scores have; who needs them gets them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.compute.choice import POISONED, Scores
from app.engine.compute.kernels import HAS_FMA, rows, set_threads, threads
from app.engine.compute.layers import Fp32Linear, Int8Linear, PackedLinear, make_linear
from app.engine.compute.sampling import Sampler, draw
from app.engine.compute.weights import Vocabulary
from app.engine.jobs import Precision, Sampling

CASES = settings(max_examples=40, deadline=None)
needs_fma = pytest.mark.skipif(not HAS_FMA, reason="the processor has no AVX2")
WIDTH, VOCABULARY = 256, 1100


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def best_by_scores(layer: PackedLinear, x: torch.Tensor, banned: list[int]) -> list[int]:
    scores, found = layer(x), np.empty(len(x), np.int64)
    scores[:, banned] = -math.inf
    rows.best_of_rows(scores.numpy(), found)
    return found.tolist()


@needs_fma
@pytest.mark.parametrize("kind", [Int8Linear, Fp32Linear])
@given(
    count=st.integers(1, 110), outputs=st.sampled_from([1, 31, 64, 513, VOCABULARY]), seed=st.integers(0, 99),
    mixes=st.booleans(), thread_count=st.sampled_from([1, 2, threads()]), data=st.data(),
)  # fmt: skip
@CASES
def test_the_best_output_is_that_of_all_outputs(
    kind: type[PackedLinear], count: int, outputs: int, seed: int, mixes: bool, thread_count: int, data: st.DataObject
) -> None:
    weight, bias = drawn(outputs, WIDTH, seed=seed).round(), drawn(outputs, seed=seed + 1).round()
    layer = Int8Linear(weight, bias, mixes=mixes) if kind is Int8Linear else Fp32Linear(weight, bias)
    x = drawn(count, WIDTH, seed=seed + 2)
    x[::5] = 0  # the bias alone: many equals
    banned = data.draw(st.lists(st.integers(0, outputs - 1), max_size=4))
    banned += best_by_scores(layer, x, [])[:1]
    before = threads()
    set_threads(thread_count)
    try:
        found = layer.best(x, banned)
    finally:
        set_threads(before)
    assert found == best_by_scores(layer, x, banned)
    assert found[:1] == layer.best(x[:1], banned), "company changes nothing"


@needs_fma
@pytest.mark.parametrize("kind", [Int8Linear, Fp32Linear])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_that_is_not_finite_has_no_best_output_and_fails_alone(kind: type[PackedLinear], bad: float) -> None:
    layer, x = kind(drawn(VOCABULARY, WIDTH), drawn(VOCABULARY)), drawn(9, WIDTH, seed=3)  # pyright: ignore[reportCallIssue]
    clean = layer.best(x, ())
    x[4, 7] = bad
    assert layer.best(x, ()) == [*clean[:4], POISONED, *clean[5:]]
    assert layer.best(x, range(VOCABULARY)) == [POISONED] * 9, "nothing may be taken"


class Counting:
    """A vocabulary, and how often it made all scores."""

    def __init__(self, precision: Precision) -> None:
        head = make_linear(drawn(VOCABULARY, WIDTH), drawn(VOCABULARY), precision=precision)
        self.vocabulary = Vocabulary(head, None)
        self.made = 0

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        self.made += 1
        return self.vocabulary.scores(hidden)

    def best(self, hidden: torch.Tensor, banned: list[int]) -> list[int] | None:
        return self.vocabulary.best(hidden, banned)


@needs_fma
@pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP32])
@pytest.mark.parametrize(
    ("searches", "logprobs", "forced", "makes_all"),
    [
        ([Sampling(temperature=0.0)] * 3, None, None, False),
        ([Sampling(temperature=0.0), Sampling(seed=1)], None, None, True),
        ([Sampling(temperature=0.0), Sampling(seed=1)], None, 7, False),  # what is forced is not drawn
        ([Sampling(temperature=0.0)], 2, None, True),
        ([Sampling(temperature=0.0, logit_bias=((3, 1.0),))], None, None, True),
    ],
)
def test_scores_are_made_only_where_more_than_the_best_is_asked_for(
    precision: Precision, searches: list[Sampling], logprobs: int | None, forced: int | None, makes_all: bool
) -> None:
    scorer, hidden = Counting(precision), drawn(len(searches), WIDTH, seed=5)
    hidden[0, 0] = math.nan if len(searches) == 3 else 0.5
    must = [None] * (len(searches) - 1) + [forced]
    banned = tuple(scorer.vocabulary.scores(hidden).nan_to_num().argmax(-1).tolist())

    def samplers() -> list[Sampler]:
        return [Sampler(search, (), logprobs=logprobs, banned=banned) for search in searches]

    found = draw(samplers(), Scores.of(hidden, scorer), must)
    assert scorer.made == makes_all
    assert found == draw(samplers(), Scores(scorer.logits(hidden)), must)
    assert all(one is None or one.id not in banned for one in found)
    assert (found[0] is None) == bool(hidden[0].isnan().any())


def test_some_rows_of_scores_that_were_not_made_are_those_rows() -> None:
    scorer, hidden = Counting(Precision.FP32), drawn(6, WIDTH)
    scores = Scores.of(hidden, scorer)
    assert scores.some(range(6)) is scores
    some = scores.some([4, 1])
    assert len(some) == 2
    assert scorer.made == 0
    torch.testing.assert_close(some.values, scorer.logits(hidden)[[4, 1]])
    assert some.values is some.values, "what a row changed in its scores stays"
    assert some.best_but(()) is None, "and is what is looked at"
    made = scorer.made
    torch.testing.assert_close(some.some([1]).values, some.values[1:])
    assert scorer.made == made

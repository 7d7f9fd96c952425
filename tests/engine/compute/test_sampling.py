"""Draws keep to top-k and top-p as transformers defines them, follow the distribution, and never depend on company."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from app.engine.compute.choice import Scores
from app.engine.compute.sampling import Drawn, Sampler
from app.engine.compute.sampling import draw as draw_scores
from app.engine.jobs import Sampling

CASES = settings(max_examples=40, deadline=None)


def sampler(**chosen: float) -> Sampler:
    return Sampler(Sampling(**chosen), (), logprobs=None)  # pyright: ignore[reportArgumentType]


def draw(samplers: list[Sampler], scores: torch.Tensor, forced: list[int | None]) -> list[Drawn | None]:
    return draw_scores(samplers, Scores(scores), forced)


def scores_of(rows: int, size: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * 3


@given(
    seed=st.integers(0, 10_000), size=st.integers(2, 400), k=st.integers(0, 50), p=st.sampled_from([0.1, 0.5, 0.9, 1.0])
)
@CASES
def test_only_tokens_that_transformers_keeps_are_drawn_and_the_best_always_can_be(
    seed: int, size: int, k: int, p: float
) -> None:
    scores = scores_of(1, size, seed)
    kept = TopKLogitsWarper(k)(None, scores) if k else scores  # pyright: ignore[reportArgumentType]
    kept = TopPLogitsWarper(p)(None, kept) if p < 1 else kept  # pyright: ignore[reportArgumentType]
    allowed = set(torch.isfinite(kept[0]).nonzero().flatten().tolist())
    seen: set[int] = set()
    for attempt in range(20):
        (found,) = draw([sampler(top_k=k, top_p=p, seed=attempt)], scores.clone(), [None])
        assert found is not None
        seen.add(found.id)
    assert seen <= allowed


def test_draws_follow_the_distribution() -> None:
    scores = torch.tensor([[0.0, 1.0, 2.0, 3.0, -math.inf]])
    one = sampler(temperature=2.0, seed=5)
    count = Counter(found.id for _ in range(6000) if (found := draw([one], scores.clone(), [None])[0]))
    expected = (scores[0] / 2).softmax(-1)
    assert count[4] == 0
    for token in range(4):
        assert abs(count[token] / 6000 - float(expected[token])) < 0.03


@given(seed=st.integers(0, 1000))
@CASES
def test_a_seed_draws_the_same_alone_and_in_company(seed: int) -> None:
    scores = scores_of(5, 300, seed)
    chosen = [
        {"temperature": 0.7, "top_p": 0.9, "seed": seed}, {"temperature": 0.0}, {"seed": seed},
        {"temperature": 1.3, "top_k": 20, "seed": 3},
        {"temperature": 0.7, "top_p": 0.9, "seed": seed + 1, "repetition_penalty": 1.2},
    ]  # fmt: skip
    together = draw([sampler(**one) for one in chosen], scores.clone(), [None] * 5)
    for place, one in enumerate(chosen):
        (alone,) = draw([sampler(**one)], scores[place : place + 1].clone(), [None])
        assert alone == together[place]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_whose_scores_are_not_finite_fails_by_itself(bad: float) -> None:
    scores = scores_of(3, 50, 0)
    clean = draw([sampler(temperature=0.0) for _ in range(3)], scores.clone(), [None] * 3)
    scores[1, 7] = bad
    found = draw([sampler(temperature=0.0) for _ in range(3)], scores.clone(), [None] * 3)
    assert found[1] is None
    assert (found[0], found[2]) == (clean[0], clean[2])


def test_a_forced_token_is_taken_and_banned_ones_never_are() -> None:
    banned = Sampler(Sampling(temperature=0.0), (), logprobs=2, banned=(3,))
    scores = torch.tensor([[0.0, 1.0, 2.0, 9.0]])
    (found,) = draw([banned], scores.clone(), [None])
    assert found is not None
    assert found.id == 2
    assert found.top[0][0] == 3
    (forced,) = draw([banned], scores.clone(), [0])
    assert forced is not None
    assert forced.id == 0


@pytest.mark.parametrize("is_mixed", [False, True])
def test_each_rows_own_tokens_are_banned_whoever_shares_the_step(is_mixed: bool) -> None:
    plain = Sampling(temperature=0.0)
    steered = Sampling(temperature=0.0, logit_bias=((1, 9.0),)) if is_mixed else plain
    bans = [(3,), (3,), (3, 2), () if is_mixed else (3,), (3, 1)]
    searches = [plain, plain, plain, plain, steered]
    rows = [Sampler(search, (), logprobs=None, banned=ban) for search, ban in zip(searches, bans, strict=True)]
    found = draw(rows, torch.tensor([[0.0, 1.0, 2.0, 9.0]]).repeat(5, 1), [None] * 5)
    assert [None if one is None else one.id for one in found] == [2, 2, 1, 3 if is_mixed else 2, 2]


@given(seed=st.integers(0, 10_000), size=st.integers(2, 300), p=st.sampled_from([0.01, 0.1, 0.5, 1.0]))
@CASES
def test_min_p_keeps_what_transformers_keeps(seed: int, size: int, p: float) -> None:
    scores = scores_of(1, size, seed)
    kept = MinPLogitsWarper(p)(None, scores / 0.8)  # pyright: ignore[reportArgumentType]
    allowed = set(torch.isfinite(kept[0]).nonzero().flatten().tolist())
    chosen = [sampler(temperature=0.8, min_p=p, seed=attempt) for attempt in range(20)]
    found = draw(chosen, scores.repeat(20, 1), [None] * 20)
    assert {one.id for one in found if one is not None} <= allowed
    assert None not in found


def greedy(*scores: float, search: Sampling, stop_ids: tuple[int, ...] = (), count: int = 1) -> list[int]:
    """The tokens that one row takes of the same scores, again and again."""
    one = Sampler(search, (), logprobs=None, stop_ids=stop_ids)
    drawn = [draw([one], torch.tensor([scores], dtype=torch.float32), [None])[0] for _ in range(count)]
    return [-1 if token is None else token.id for token in drawn]


def test_only_allowed_tokens_are_drawn_even_where_they_are_banned() -> None:
    assert greedy(0, 3, 2, 1, search=Sampling(temperature=0, allowed_ids=(2, 3))) == [2]
    search = Sampling(temperature=0, allowed_ids=(2, 3), banned_runs=((2,),))
    assert greedy(0, 3, 2, 1, search=search) == [3]
    search = Sampling(temperature=0, allowed_ids=(2,), banned_runs=((2,),))
    assert greedy(0, 3, 2, 1, search=search) == [2]


def test_a_banned_run_is_never_completed_and_its_tokens_stay_free_elsewhere() -> None:
    search = Sampling(temperature=0, banned_runs=((1, 1, 1),))
    assert greedy(0, 3, 2, search=search, count=6) == [1, 1, 2, 1, 1, 2]


def test_no_stop_token_is_drawn_before_the_least_number_of_tokens() -> None:
    search = Sampling(temperature=0, min_tokens=2)
    assert greedy(0, 1, 9, search=search, stop_ids=(2,), count=3) == [1, 1, 2]


def test_a_row_whose_bias_cannot_be_applied_fails_by_itself() -> None:
    odd = Sampler(Sampling(temperature=0.0, logit_bias=((999, 1.0),)), (), logprobs=None)
    found = draw([sampler(temperature=0.0), odd], scores_of(2, 50, 1), [None, None])
    assert found[0] is not None
    assert found[1] is None

"""The best tokens of each hypothesis are those of log_softmax and topk, and a poisoned row fails by itself."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.compute.beams import Beams, best_tokens, inherit, search
from app.engine.jobs import BeamSearch

CASES = settings(max_examples=40, deadline=None)


def scores_of(rows: int, size: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * 3


def beams(count: int = 2, **rest: object) -> Beams:
    return Beams(search=BeamSearch(beams=count), tokens_max=9, stop_ids=frozenset([0]), **rest)  # pyright: ignore[reportArgumentType]


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 5), size=st.integers(3, 500), wanted=st.integers(1, 9))
@CASES
def test_the_best_tokens_are_those_of_log_softmax_and_topk(seed: int, rows: int, size: int, wanted: int) -> None:
    scores = scores_of(rows, size, seed)
    banned = [seed % size]
    known = scores.log_softmax(-1)
    known[:, banned] = -math.inf
    wanted = min(wanted, size - 1)
    expected = known.topk(wanted)
    ids, values = best_tokens(scores, banned, wanted)
    assert ids == expected.indices.tolist()
    torch.testing.assert_close(torch.tensor(values), expected.values, rtol=1e-5, atol=1e-5)


def test_equal_scores_come_by_their_ids_and_missing_ones_are_marked() -> None:
    ids, _ = best_tokens(torch.tensor([[1.0, 2.0, 2.0, 2.0, 1.0]]), (2,), 5)
    assert ids == [[1, 3, 0, 4, -1]]
    ids, values = best_tokens(torch.full((1, 200), 0.5), (), 3)
    assert ids == [[0, 1, 2]]
    assert values[0] == pytest.approx([-math.log(200)] * 3)


@given(parents=st.integers(1, 8).flatmap(lambda n: st.lists(st.integers(0, n - 1), min_size=n, max_size=n)))
@CASES
def test_every_hypothesis_finds_its_parents_cache_in_a_slot_of_its_own(parents: list[int]) -> None:
    slots = [10 + place for place in range(len(parents))]
    held = {slot: slot for slot in slots}
    found, copies = inherit(slots, parents)
    assert not {source for source, _ in copies} & {target for _, target in copies}
    held |= {target: held[source] for source, target in copies}
    assert sorted(found) == slots
    assert [held[slot] for slot in found] == [slots[parent] for parent in parents]
    assert len(copies) == len(parents) - len(set(parents))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_whose_scores_are_not_finite_fails_by_itself(bad: float) -> None:
    scores = scores_of(3, 90, 0)
    clean = search([beams() for _ in range(3)], scores.clone())
    scores[1, 77] = bad
    found = search([beams() for _ in range(3)], scores)
    assert found[1] is None
    assert (found[0], found[2]) == (clean[0], clean[2])


def test_company_of_other_widths_changes_no_candidate() -> None:
    scores = scores_of(2, 90, 1)
    together = search([beams(2), beams(5)], scores)
    assert together == search([beams(2)], scores[:1]) + search([beams(5)], scores[1:])


def test_nothing_that_may_be_taken_is_a_failure() -> None:
    assert search([beams(banned=(1,))], torch.tensor([[-math.inf, 5.0, -math.inf]])) == [None]

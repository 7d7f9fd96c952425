"""A step that computes only what is read of its last layer gives what one that computes all gives, to the bit."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.compute.decode import Decoder, Feed, wanted_of
from app.engine.compute.kernels import HAS_FMA, threads
from app.engine.compute.layers import PackedLinear
from app.engine.jobs import Precision
from tests.engine.compute.random_gpt2 import random_gpt2

CASES = settings(max_examples=25, deadline=None)
SLOTS, POSITIONS, VOCABULARY = 6, 400, 500
KINDS = [Precision.FP32, Precision.INT8, Precision.BF16]


def drawn_feeds(rows: Sequence[tuple[int, int, bool]]) -> list[Feed]:
    """A feed a row: where it starts, of how many tokens (0: of a single one that is no prompt's), whether scored."""
    draw, feeds = torch.Generator().manual_seed(1), list[Feed]()
    for slot, (start, count, is_scored) in enumerate(rows):
        ids = tuple(torch.randint(0, VOCABULARY, (max(1, count),), generator=draw).tolist())
        feeds.append(Feed(slot, start, ids, is_prompt=count > 0, is_scored=is_scored and count > 0))
    return feeds


@pytest.fixture(scope="module", params=KINDS)
def decoder(request: pytest.FixtureRequest) -> Decoder:
    """With heads that the kernels read whole prompts with, and a cache in which something stands everywhere."""
    family = random_gpt2(
        width=64, heads=2, layers=3, positions=POSITIONS, vocabulary=VOCABULARY, precision=request.param
    )
    made = Decoder(family, slots=SLOTS)
    for held in (made.cache.keys, made.cache.values):
        held.copy_(torch.randn(held.shape, generator=torch.Generator().manual_seed(2)))
    return made


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 200), st.one_of(st.just(0), st.integers(1, 150)), st.booleans()),
        min_size=1, max_size=SLOTS,
    ),
    is_long=st.booleans(),
)  # fmt: skip
@CASES
@torch.inference_mode()
def test_hidden_states_and_scores_are_those_of_a_step_that_computes_all(
    decoder: Decoder, rows: list[tuple[int, int, bool]], is_long: bool
) -> None:
    if is_long:  # enough tokens that one kernel reads them all
        rows = [(3, 24 * threads(), False), *rows[: SLOTS - 1]]
    feeds = drawn_feeds(rows)
    everything = [Feed(f.slot, f.start, f.ids, f.is_prompt, is_scored=f.is_prompt) for f in feeds]
    hidden, scores = decoder.step(feeds)
    held = [part.clone() for part in (decoder.cache.keys, decoder.cache.values)]
    all_hidden, all_scores = decoder.step(everything)
    wanted = wanted_of(feeds)
    assert len(hidden) == sum(len(f.ids) if f.is_scored else 1 for f in feeds)
    assert torch.equal(hidden, all_hidden if wanted is None else all_hidden[wanted])
    assert torch.equal(scores.values, all_scores.values)
    assert torch.equal(held[0], decoder.cache.keys), "the cache keeps the keys of all"
    assert torch.equal(held[1], decoder.cache.values)
    is_packed = HAS_FMA and isinstance(decoder.family.tokens.head, PackedLinear)
    assert decoder.step(feeds)[1].best_but(()) == (scores.values.argmax(-1).tolist() if is_packed else None)

"""A step in memory that stays where it is, as a captured one runs, gives what the same rows give otherwise."""

from pathlib import Path

import pytest
import torch

from app.engine.compute import decode
from app.engine.compute.cuda import prompts
from app.engine.compute.cuda.graphs import StepInputs, sizes_for
from app.engine.compute.decode import Decoder, Feed
from app.engine.compute.models import load_model
from app.engine.jobs import Head, ModelSpec

SLOTS = 5


def test_sizes_end_with_one_that_holds_every_slot() -> None:
    assert sizes_for(1) == [1]
    assert sizes_for(20) == [1, 2, 4, 8, 12, 16, 20]
    assert sizes_for(1024)[-2:] == [768, 1024]


@torch.inference_mode()
@pytest.mark.parametrize(("name", "head"), [("tiny-gpt2", Head.GENERATE), ("tiny-marian", Head.TRANSLATE)])
def test_a_padded_step_scores_as_the_rows_alone(name: str, head: Head, checkpoints: dict[str, Path]) -> None:
    spec = ModelSpec(id="x", folder=str(checkpoints[name]), head=head)
    decoder = load_model(spec, slots=SLOTS + 1, device="cpu").model  # the last slot is the spare one
    assert isinstance(decoder, Decoder)
    for cache in (decoder.cache, decoder.source):
        if cache is not None:
            cache.arrays = []  # by torch, as on any other device
    prompts = {0: (3, 4, 5), 3: (6, 7), 2: (8, 9, 10, 11)}
    decoder.read_sources([((slot,), ids) for slot, ids in prompts.items()])
    read = {slot: decoder.prompt_of(ids) for slot, ids in prompts.items()}
    decoder.step([Feed(slot, 0, ids, is_prompt=True) for slot, ids in read.items()])
    feeds = [Feed(slot, len(read[slot]), (20 + slot,)) for slot in (3, 0, 2)]
    hidden, scores = decoder.step(feeds)

    inputs = StepInputs(SLOTS, SLOTS, 63, torch.device("cpu"))
    views = inputs.views(4)  # made first, written later
    inputs.write([decoder.place_of(feed) for feed in feeds], 4)
    again = decoder.run(*views)
    torch.testing.assert_close(again[:3], hidden, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoder.family.logits(again[:3]), scores.values, rtol=1e-5, atol=1e-4)
    inputs.write([decoder.place_of(feeds[2])], 4)
    torch.testing.assert_close(decoder.run(*views)[:1], hidden[2:], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_prompts_read_in_a_pass_of_fixed_size_score_as_those_that_are_not(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "RUN_AHEAD", {"cpu"})
    monkeypatch.setattr(prompts, "SIZES", ((16, 0), (32, 0), (16, 64)))
    spec = ModelSpec(id="x", folder=str(checkpoints["tiny-gpt2"]), head=Head.GENERATE)
    decoder = load_model(spec, slots=SLOTS, device="cpu").model
    assert isinstance(decoder, Decoder)
    decoder.cache.arrays = []
    whole = {4: tuple(range(30, 49)), 0: (5,), 2: tuple(range(60, 67))}
    halves = [
        Feed(slot, len(ids) // 2, ids[len(ids) // 2 :], is_prompt=True, is_scored=True) for slot, ids in whole.items()
    ]
    reads = {
        "whole": [Feed(slot, 0, ids, is_prompt=True, is_scored=slot != 2) for slot, ids in whole.items()],
        "in part there": halves,
        "too many": [Feed(1, 0, tuple(range(33)), is_prompt=True)],
    }
    expected = {name: decoder.read(feeds) for name, feeds in reads.items()}
    decoder.capture()
    decoder.cache.keys.fill_(torch.nan)  # nothing may be read but what a pass has written itself
    decoder.cache.values.fill_(torch.nan)
    for name, feeds in reads.items():
        hidden, scores = decoder.read(feeds)
        assert (scores.best is not None) == (name != "too many"), "a pass looks for the best tokens itself"
        torch.testing.assert_close(hidden, expected[name][0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(scores.values, expected[name][1].values, rtol=1e-5, atol=1e-4)
        if scores.best is not None:
            assert scores.best.tolist() == scores.values.argmax(-1).tolist()

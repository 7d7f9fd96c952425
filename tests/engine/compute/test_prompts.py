"""Prompts are scored in chunks of rows, and a prompt whose scores are not finite is refused."""

import math
from pathlib import Path

import pytest
import torch

from app.engine.compute.decode import Decoder
from app.engine.compute.models import load_model
from app.engine.compute.prompts import ROWS_MAX, score_prompt
from app.engine.jobs import Head, ModelSpec


@pytest.fixture
def decoder(checkpoints: dict[str, Path]) -> Decoder:
    spec = ModelSpec(id="x", folder=str(checkpoints["tiny-gpt2"]), head=Head.GENERATE)
    found = load_model(spec, slots=1, device="cpu").model
    assert isinstance(found, Decoder)
    return found


@torch.inference_mode()
def test_no_more_rows_of_the_vocabulary_exist_at_once_than_a_chunk_has(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3 * ROWS_MAX + 5, decoder.family.width, generator=generator)
    targets = torch.randint(0, decoder.family.vocabulary, (len(hidden),), generator=generator).tolist()
    expected = decoder.family.logits(hidden).log_softmax(-1)
    rows: list[int] = []
    logits = decoder.family.logits

    def counted(part: torch.Tensor) -> torch.Tensor:
        rows.append(len(part))
        return logits(part)

    monkeypatch.setattr(decoder.family, "logits", counted)
    found = score_prompt(decoder, hidden, targets, top=3)
    assert rows == [ROWS_MAX] * 3 + [5]
    assert found.logprobs == pytest.approx([float(expected[place, token]) for place, token in enumerate(targets)])
    assert [[token for token, _ in top] for top in found.top] == expected.topk(3).indices.tolist()
    assert score_prompt(decoder, hidden[:0], [], top=3).logprobs == ()


@torch.inference_mode()
def test_scores_that_are_not_finite_are_refused(decoder: Decoder) -> None:
    with pytest.raises(ArithmeticError):
        score_prompt(decoder, torch.full((2, decoder.family.width), math.nan), [1, 2], top=1)

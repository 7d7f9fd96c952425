"""What a load keeps in memory is the weights, side by side, and nothing of the file or of what it took to read it."""

from pathlib import Path

import pytest
import torch

from app.engine.compute.models import load_model, tensors_of
from app.engine.compute.residence import ALIGNMENT, gather, give_back
from app.engine.jobs import Head, ModelSpec, Precision


def test_tensors_keep_their_values_wherever_they_are_referred_to() -> None:
    first, second = torch.arange(7, dtype=torch.int8), torch.randn(5, 3).T
    wanted = first.clone(), second.clone()
    holder = {"first": first, "second": second}
    gather([first, second, torch.empty(0)])
    assert torch.equal(holder["first"], wanted[0])
    assert torch.equal(holder["second"], wanted[1])
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    assert first.data_ptr() % ALIGNMENT == second.data_ptr() % ALIGNMENT == 0


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16, Precision.INT8])
@pytest.mark.parametrize(
    ("name", "head"),
    [("tiny-gpt2", Head.GENERATE), ("tiny-marian", Head.TRANSLATE), ("tiny-bert-classifier", Head.CLASSIFY)],
)
def test_a_loaded_model_lies_in_one_block_and_keeps_no_file(
    name: str, head: Head, precision: Precision, checkpoints: dict[str, Path]
) -> None:
    spec = ModelSpec(id="x", folder=str(checkpoints[name]), head=head, precision=precision)
    model = load_model(spec, slots=2, device="cpu").model
    kept = tensors_of(model if head is Head.CLASSIFY else getattr(model, "family"))  # noqa: B009 (a union)
    assert len({tensor.untyped_storage().data_ptr() for tensor in kept if tensor.numel()}) == 1
    give_back()
    maps = Path("/proc/self/maps")
    if maps.is_file():
        assert str(checkpoints[name]) not in maps.read_text(), "a tensor refers to the file still"

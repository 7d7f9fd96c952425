"""Where models are to run: a GPU that is not there, or does not start, is told to the operator, with what to do."""

from pathlib import Path

import pytest
import torch

from app.engine.compute.models import load_model
from app.engine.jobs import Head, ModelSpec
from app.errors import SourceError

OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by"


def asked(checkpoints: dict[str, Path], device: str) -> str:
    spec = ModelSpec(id="tiny-gpt2", folder=str(checkpoints["tiny-gpt2"]), head=Head.GENERATE)
    with pytest.raises(SourceError) as caught:
        load_model(spec, slots=1, device=device)
    return caught.value.message


def test_a_gpu_that_is_listed_and_does_not_start_is_named_with_its_reason(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def init() -> None:
        raise RuntimeError(OLD_DRIVER)

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "init", init)
    told = asked(checkpoints, "cuda")
    assert "cannot start CUDA: The NVIDIA driver on your system is too old (found version 11040). It needs" in told
    assert "TOLLGATE_ENGINE__DEVICE=cpu" in told and "Please update" not in told


def test_a_gpu_that_is_not_there_is_named_with_how_many_are(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert "it is to run on cuda:3, but PyTorch" in asked(checkpoints, "cuda:3")
    assert "finds 1 GPUs" in asked(checkpoints, "cuda:3")

"""Reads a checkpoint folder's tensors, checked by name and shape. Nothing of it is ever executed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType] (PathLike unparametrised)

from app.errors import VerificationFailed

INDEX_NAME = "model.safetensors.index.json"
WEIGHTS_NAME = "model.safetensors"
PICKLE_NAME = "pytorch_model.bin"


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The JSON object in `folder/name`. Raises VerificationFailed when it is missing or not an object."""
    path = folder / name
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise VerificationFailed(f"{path} cannot be read as JSON: {cause}") from cause
    if not isinstance(found, dict):
        raise VerificationFailed(f"{path} must hold a JSON object")
    return cast("dict[str, Any]", found)


def read_tensors(folder: Path, *, allow_pickle: bool = False) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint folder, in its stored dtype, on the CPU.

    Takes model.safetensors or its sharded index; pytorch_model.bin only when `allow_pickle`, and then with torch's
    weights-only reader. Raises VerificationFailed naming the file that is missing or damaged.
    """
    if (folder / INDEX_NAME).is_file():
        shards = sorted(set(cast("dict[str, str]", read_config(folder, INDEX_NAME).get("weight_map", {})).values()))
        if any(Path(shard).name != shard for shard in shards):
            raise VerificationFailed(f"{folder / INDEX_NAME} names a file outside its folder")
    elif (folder / WEIGHTS_NAME).is_file():
        shards = [WEIGHTS_NAME]
    elif allow_pickle and (folder / PICKLE_NAME).is_file():
        return cast("dict[str, torch.Tensor]", torch.load(folder / PICKLE_NAME, map_location="cpu", weights_only=True))
    else:
        raise VerificationFailed(f"{folder} holds no {WEIGHTS_NAME}; convert the checkpoint to safetensors")
    tensors: dict[str, torch.Tensor] = {}
    for shard in shards:
        try:
            tensors.update(load_file(folder / shard))
        except (OSError, SafetensorError) as cause:
            raise VerificationFailed(f"{folder / shard} is damaged or missing: {cause}") from cause
    return tensors


class Weights:
    """Tensors by name, cast to one dtype and device as they are taken; a wrong shape is refused by name."""

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        *,
        dtype: torch.dtype,
        device: torch.device,
        prefixes: tuple[str, ...],
    ) -> None:
        self._tensors = tensors
        self._dtype = dtype
        self._device = device
        self._prefixes = ("", *prefixes)

    def has(self, name: str) -> bool:
        """Whether the checkpoint has `name`, with or without the family's prefix."""
        return any(prefix + name in self._tensors for prefix in self._prefixes)

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """The tensor `name` of exactly `shape`, contiguous. Raises VerificationFailed when absent or misshapen."""
        for prefix in self._prefixes:
            found = self._tensors.get(prefix + name)
            if found is not None:
                if tuple(found.shape) != shape:
                    raise VerificationFailed(
                        f"tensor {prefix + name} has the shape {tuple(found.shape)}, config.json says {shape}"
                    )
                return found.to(device=self._device, dtype=self._dtype).contiguous()
        raise VerificationFailed(f"the checkpoint has no tensor {name}; it does not belong to this config.json")

    def linear(self, name: str, inputs: int, outputs: int, *, transposed: bool = False) -> "Linear":
        """The layer `name`; `transposed` for GPT-2's Conv1D, which stores (inputs, outputs)."""
        weight = self.take(f"{name}.weight", *((inputs, outputs) if transposed else (outputs, inputs)))
        return Linear(weight.T.contiguous() if transposed else weight, self.take(f"{name}.bias", outputs))

    def norm(self, name: str, width: int, epsilon: float) -> "Norm":
        """The layer norm `name` over the last `width` values."""
        return Norm(self.take(f"{name}.weight", width), self.take(f"{name}.bias", width), epsilon)


class Linear:
    """x (…, inputs) → (…, outputs)."""

    __slots__ = ("bias", "weight")

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self.weight = weight
        self.bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)


class Norm:
    """Layer norm over the last axis."""

    __slots__ = ("bias", "epsilon", "weight")

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, epsilon: float) -> None:
        self.weight = weight
        self.bias = bias
        self.epsilon = epsilon

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)

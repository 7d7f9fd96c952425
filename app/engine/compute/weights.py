"""Reads a checkpoint folder's tensors, checked by name and shape. Nothing of it is ever executed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType] (PathLike unparametrised)

from app.engine.compute.cuda.layers import CudaLinear, CudaNorm
from app.engine.compute.layers import Fp32Linear, Linear, Norm, PackedLinear, PlainLinear, make_linear, make_norm
from app.engine.jobs import Precision
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
    """Tensors by name, cast to one precision and device as they are taken; a wrong shape is refused by name."""

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        *,
        precision: Precision,
        device: torch.device,
        prefixes: tuple[str, ...],
    ) -> None:
        self.precision = precision
        self.device = device
        self.working = torch.bfloat16 if precision is Precision.BF16 else torch.float32
        """The dtype of activations, norms and biases."""
        self.narrow = torch.float32 if precision is Precision.FP32 else torch.bfloat16
        """The dtype of what is only looked up: embedding tables, keys and values."""
        self._tensors = tensors
        self._prefixes = ("", *prefixes)
        self._order: Sequence[int] | None = None
        self._axes: Mapping[str, int] = {}

    def reorder(self, order: Sequence[int], axes: Mapping[str, int]) -> None:
        """Take what follows in another order: axes say along which axis of the tensors with these last names."""
        self._order, self._axes = order, axes

    def has(self, name: str) -> bool:
        """Whether the checkpoint has `name`, with or without the family's prefix."""
        return any(prefix + name in self._tensors for prefix in self._prefixes)

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """A copy of the tensor `name` of exactly `shape`. Raises VerificationFailed when absent or misshapen.

        What was read is the mapped file itself: one tensor kept of it would keep all of it in memory.
        """
        for prefix in self._prefixes:
            found = self._tensors.get(prefix + name)
            if found is not None:
                if tuple(found.shape) != shape:
                    raise VerificationFailed(
                        f"tensor {prefix + name} has the shape {tuple(found.shape)}, config.json says {shape}"
                    )
                axis = self._axes.get(".".join(name.split(".")[-2:]))
                if axis is not None:
                    found = found.index_select(axis, torch.tensor(self._order))
                return found.to(device=self.device, dtype=self.working, copy=axis is None).contiguous()
        raise VerificationFailed(f"the checkpoint has no tensor {name}; it does not belong to this config.json")

    def linear(
        self,
        names: str | Sequence[str],
        inputs: int,
        outputs: int,
        *,
        transposed: bool = False,
        is_exact: bool = False,
        mixes: bool = False,
    ) -> Linear:
        """The layer `names`, or several that read the same input side by side in one, `outputs` each.

        `transposed` for GPT-2's Conv1D, which stores (inputs, outputs); `is_exact` layers are never quantised;
        for `mixes` see Int8Linear.
        """
        weights: list[torch.Tensor] = []
        biases: list[torch.Tensor] = []
        for name in [names] if isinstance(names, str) else names:
            weight = self.take(f"{name}.weight", *((inputs, outputs) if transposed else (outputs, inputs)))
            weights.append(weight.T if transposed else weight)
            biases.append(self.take(f"{name}.bias", outputs))
        weight, bias = torch.cat(weights).contiguous(), torch.cat(biases)
        if self.device.type == "cuda":
            return CudaLinear(weight, bias)
        return make_linear(weight, bias, precision=self.precision, is_exact=is_exact, mixes=mixes)

    def norm(self, name: str, width: int, epsilon: float) -> Norm:
        """The layer norm `name` over the last `width` values."""
        weight, bias = self.take(f"{name}.weight", width), self.take(f"{name}.bias", width)
        if self.device.type == "cuda":
            return CudaNorm(weight, bias, epsilon)
        return make_norm(weight, bias, epsilon, precision=self.precision)

    def vocabulary(self, name: str, size: int, width: int, *, bias: torch.Tensor | None = None) -> "Vocabulary":
        """The table `name` (size, width), used both ways: ids → rows, and rows → scores of every id."""
        table = self.take(name, size, width)
        if self.device.type == "cuda":
            return Vocabulary(CudaLinear(table, bias), None)
        head = make_linear(table, bias, precision=self.precision)
        return Vocabulary(head, None if isinstance(head, Fp32Linear | PlainLinear) else table.to(self.narrow))


class Vocabulary:
    """A tied embedding: one table, or a quantised head beside a bfloat16 table (quantised rows would cost accuracy)."""

    def __init__(self, head: Linear, table: torch.Tensor | None) -> None:
        self.head = head
        self.table = table

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """ids (tokens,) → (tokens, width) in the working dtype."""
        if self.table is not None:
            return self.table.index_select(0, ids).float()
        if isinstance(self.head, PlainLinear):
            return self.head.weight[ids]
        assert isinstance(self.head, Fp32Linear), "only packed fp32 heads do without a table. This is a bug."
        return self.head.rows(ids)

    def scores(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (rows, width) → (rows, size) in fp32."""
        if isinstance(self.head, CudaLinear):
            return self.head.scores(hidden)
        return self.head(hidden).float()

    def best(self, hidden: torch.Tensor, banned: Sequence[int]) -> list[int] | None:
        """See choice.Scores.best_but."""
        if not isinstance(self.head, PackedLinear) or not self.head.is_packed:
            return None
        return self.head.best(hidden, banned)

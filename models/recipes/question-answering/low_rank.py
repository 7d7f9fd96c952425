"""Low-rank pairs beside frozen linear layers, and the delta file that carries them; no training loop lives here.

The same file lies in each recipe that trains over a base wheel, so that every recipe runs by itself.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

FORMAT = "tollgate-overlay/1"


class LowRankLinear(nn.Module):
    """A frozen linear layer plus `scale * x A^T B^T` (Hu et al., "LoRA", section 4.1).

    `lora_a` is `(rank, inputs)`, `lora_b` is `(outputs, rank)` and starts at zero, so that training starts at the base.
    """

    def __init__(self, *, linear: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self.linear = linear
        self.scale = scale
        self.lora_a = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.lora_b = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.linear(hidden) + (hidden @ self.lora_a.T) @ self.lora_b.T * self.scale


def add_low_rank_pairs(module: nn.Module, *, rank: int, scale: float) -> None:
    """Put a pair beside every linear layer under `module`."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and not isinstance(parent, LowRankLinear):
                setattr(parent, name, LowRankLinear(linear=child, rank=rank, scale=scale))


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Everything that training may change, in fp16, under the names that the assembler reads.

    `….query.lora_a` becomes `….query.weight.lora_a`: the assembler adds `scale * B @ A` to the tensor so named.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        for suffix in (".lora_a", ".lora_b"):
            name = name.removesuffix(suffix) + ".weight" + suffix if name.endswith(suffix) else name
        tensors[name] = parameter.detach().to(torch.float16).contiguous()
    return tensors


def save_delta(
    path: Path, *, model: nn.Module, base_weights: Path, scale: float, prefix: str, dropped: list[str]
) -> None:
    """Write the delta; its metadata says which base file it lies over and how it is laid over it."""
    metadata = {
        "format": FORMAT,
        "base_sha256": hashlib.sha256(base_weights.read_bytes()).hexdigest(),
        "scale": repr(scale),
        "prefix": prefix,
        "dropped": json.dumps(dropped),
    }
    save_file(trained_tensors(model), path, metadata=metadata)

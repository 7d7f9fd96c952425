"""Tensors into plain, typed Python values."""

from typing import cast

import torch


def integers(tensor: torch.Tensor) -> list[int]:
    """(n,) → n integers."""
    return cast("list[int]", tensor.tolist())  # pyright: ignore[reportUnknownMemberType] (torch leaves it untyped)


def floats(tensor: torch.Tensor) -> list[float]:
    """(n,) → n floats."""
    return cast("list[float]", tensor.tolist())  # pyright: ignore[reportUnknownMemberType] (torch leaves it untyped)

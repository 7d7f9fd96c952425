"""Tensors into plain, typed Python values, and arrays onto a device."""

from typing import Any, cast

import numpy as np
import torch


def sent(array: np.ndarray[Any, Any], device: torch.device) -> torch.Tensor:
    """The array on that device; nobody waits until it is there. On the CPU it shares the array's memory."""
    held = torch.as_tensor(array)
    return held if device.type == "cpu" else held.pin_memory().to(device, non_blocking=True)


def integers(tensor: torch.Tensor) -> list[int]:
    """(n,) → n integers."""
    return cast("list[int]", tensor.tolist())  # pyright: ignore[reportUnknownMemberType] (torch leaves it untyped)


def floats(tensor: torch.Tensor) -> list[float]:
    """(n,) → n floats."""
    return cast("list[float]", tensor.tolist())  # pyright: ignore[reportUnknownMemberType] (torch leaves it untyped)

"""Where a loaded model's weights lie in memory: side by side, so that what only loading needed goes back."""

import ctypes
from collections.abc import Sequence

import torch

ALIGNMENT = 64
LARGE_BYTES = 32 * 2**20
"""What is larger has a mapping of its own, and so lies in huge pages already (transports/process.py, ALLOCATION)."""


def gather(tensors: Sequence[torch.Tensor]) -> None:
    """Move distinct tensors of the CPU into one block, in place, whoever refers to them.

    Loading makes and drops several times what it keeps. Where the kept pieces lie in between, the allocator can give
    nothing back, and huge pages would hold both.
    """
    small = [tensor for tensor in tensors if 0 < tensor.nbytes < LARGE_BYTES]
    block = torch.empty(sum(map(_room, small)) + ALIGNMENT, dtype=torch.uint8)
    start = -block.data_ptr() % ALIGNMENT
    for tensor in small:
        place = block[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        place.copy_(tensor)
        tensor.set_(place.untyped_storage(), place.storage_offset(), place.shape, place.stride())
        start += _room(tensor)


def _room(tensor: torch.Tensor) -> int:
    """Its bytes, up to where the next one may begin."""
    return -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT


def give_back() -> None:
    """Return freed memory to the system, where the C library can: it would keep up to a gigabyte for the next step."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

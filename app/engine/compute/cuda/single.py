"""A decode step of one row of GPT-2 as one kernel of our own (step/), compiled by CUDA's NVRTC, which comes with torch.

A step of one row is a matter of latency: as a chain of kernels it waits some 85 times for the one before.
"""

import math
import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import structlog
import torch
from torch.nn import functional

from app.engine.compute.activations import GELU, GELU_TANH, RELU
from app.engine.compute.cache import SlotCache
from app.engine.compute.families.gpt2 import Gpt2
from app.engine.compute.layers import PlainLinear, PlainNorm
from app.engine.compute.pre_norm import Block

log = structlog.stdlib.get_logger(__name__)

FOLDER = Path(__file__).parent / "step"
PARTS = ("layout.cuh", "mail.cuh", "copies.cuh", "products.cuh", "attention.cuh", "head.cuh", "step.cu")
"""Of the kernel, each standing on those before; device.cuh goes before them."""
BLOCKS = 128
"""Each alone on a multiprocessor."""
HEAD_DIM, SPAN, UNIT = 64, 192, 256
"""Width of a head; positions that a block attends to; what the width is a multiple of."""
OTHERS_BYTES = 11_000
"""Of shared memory at most, beside a block's share of a layer and the rows of numbers; the compiler looks again."""
CAPABILITY_MIN = (9, 0)
"""Has copies into shared memory that run by themselves."""

Kernel = Callable[..., None]


class SingleStep:
    """The step of one model, whose inputs (ids, slots, positions: (1,) each) lie where they are for good.

    The step leaves the best token and the position after in them, as StepInputs.advance does.
    """

    def __init__(
        self, family: Gpt2, cache: SlotCache, kernel: Kernel, ids: torch.Tensor, slots: torch.Tensor,
        positions: torch.Tensor,
    ) -> None:  # fmt: skip
        device = family.device
        self._hidden = torch.zeros(1, family.width, dtype=torch.bfloat16, device=device)
        self._scores = torch.zeros(1, family.vocabulary, dtype=torch.float32, device=device)
        self._best = torch.zeros(1, dtype=torch.long, device=device)
        self._tails = [tail_of(block, BLOCKS) for block in family.trunk.blocks]
        self._mail = torch.zeros(mail_words(family), dtype=torch.long, device=device)
        self._mark = torch.ones(1, dtype=torch.long, device=device)
        self._inputs = ids, slots, positions
        outputs = self._hidden, self._scores, self._best, self._mail, self._mark
        places = bytearray(table(family, cache, self._inputs, outputs, self._tails))
        self._table = torch.frombuffer(places, dtype=torch.long).to(device)
        self._threads = family.width // 2 + 32  # the last of them copy
        self._bytes = limits(device)[2]
        self._kernel = kernel

    def __call__(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Start the step → hidden state (1, width), scores (1, vocabulary) and the best token (1,)."""
        self._kernel((BLOCKS, 1, 1), (self._threads, 1, 1), [self._table], self._bytes)
        return self._hidden, self._scores, self._best


def single_step(
    family: Gpt2, cache: SlotCache
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], SingleStep] | None:
    """What makes the step of a model, given where its inputs lie; None where the kernel does not take it."""
    if not fits(family, cache):
        return None
    try:
        return partial(SingleStep, family, cache, compiled(family))
    except (RuntimeError, OSError) as error:  # no NVRTC, or one that is too old
        log.warning("a step of one row runs as a chain of kernels: its own was not compiled", reason=str(error))
        return None


def fits(family: Gpt2, cache: SlotCache) -> bool:
    """Whether the kernel takes this model on its device."""
    if family.device.type != "cuda" or torch.version.hip or not hasattr(torch.cuda, "_compile_kernel"):
        return False
    capability, multiprocessors, shared_bytes = limits(family.device)
    if capability < CAPABILITY_MIN or multiprocessors < BLOCKS or not is_shaped(family, cache):
        return False
    return share_bytes(family) + OTHERS_BYTES <= shared_bytes


def is_shaped(family: Gpt2, cache: SlotCache, blocks: int = BLOCKS) -> bool:
    """Whether the kernel takes a model of this shape, on so many blocks."""
    linears = [linear for block in family.trunk.blocks for linear in (block.qkv, block.out, block.up, block.down)]
    if not all(isinstance(linear, PlainLinear) and linear.weight.dtype is torch.bfloat16 for linear in linears):
        return False
    head, up, width, positions = family.head.head, family.trunk.blocks[0].up, family.width, cache.keys.shape[3]
    return (
        isinstance(head, PlainLinear) and head.bias is None and isinstance(up, PlainLinear)
        and family.trunk.act in (GELU, GELU_TANH, RELU)
        and width % UNIT == 0 and width // family.heads == HEAD_DIM and up.weight.shape[0] == 4 * width
        and 2 * blocks <= width and family.heads * spans(positions) <= blocks
    )  # fmt: skip


def spans(positions: int) -> int:
    """Blocks that read a head of so many positions."""
    return -(-positions // SPAN)


def share_bytes(family: Gpt2) -> int:
    """Bytes of a block's share of a layer, with the rows of numbers that it works on."""
    return 2 * 12 * family.width**2 // BLOCKS + 24 * family.width


def limits(device: torch.device) -> tuple[tuple[int, int], int, int]:
    """Compute capability, multiprocessors, and bytes of shared memory that a block may have."""
    found = cast(Any, torch.cuda).get_device_properties(device)  # torch leaves it untyped
    return (found.major, found.minor), found.multi_processor_count, found.shared_memory_per_block_optin


def mail_words(family: Gpt2, blocks: int = BLOCKS) -> int:
    """Words of 8 bytes through which the blocks tell each other what they found; see step/layout.cuh."""
    row = family.width // blocks
    by_block = entries(3 * row) + 2 * entries(row) + entries(2 * row)
    by_head = entries(HEAD_DIM) + spans(family.positions_max) * entries(HEAD_DIM + 2)
    return 2 * (family.layers * (blocks * by_block + family.heads * by_head) + blocks)


def entries(numbers: int) -> int:
    """Entries of three numbers that hold so many, in whole lines of eight."""
    return -(-numbers // 24) * 8


def sizes_of(family: Gpt2, blocks: int = BLOCKS) -> dict[str, int]:
    """What the compiler is told."""
    return {
        "BLOCKS": blocks, "WIDTH": family.width, "HEADS": family.heads, "LAYERS": family.layers,
        "POSITIONS": family.positions_max, "ACTIVATION": family.trunk.act.number,
    }  # fmt: skip


def table(
    family: Gpt2, cache: SlotCache, inputs: tuple[torch.Tensor, ...], outputs: tuple[torch.Tensor, ...],
    tails: Sequence[torch.Tensor],
) -> bytes:  # fmt: skip
    """Where all tensors lie, as step/layout.cuh's Step has it. They must stay there as long as the kernel is used.

    inputs: ids, slots, positions. outputs: hidden, scores, best, mail, mark. tails: those of the layers.
    """
    norm, head, tokens = family.trunk.norm, family.head.head, family.tokens.head
    assert isinstance(norm, PlainNorm) and isinstance(head, PlainLinear) and isinstance(tokens, PlainLinear), "a bug."
    tensors = [
        *inputs, tokens.weight, family.places, norm.weight, norm.bias, head.weight, cache.keys, cache.values, *outputs,
    ]  # fmt: skip
    found = struct.pack(f"<{len(tensors)}q", *(tensor.data_ptr() for tensor in tensors))
    found += struct.pack("<3q2f", cache.keys.shape[1], family.vocabulary, family.positions_max - 1, norm.epsilon, 0.0)
    for block, scale, tail in zip(family.trunk.blocks, family.trunk.scales, tails, strict=True):
        parts = [block.norm_attention, block.qkv, block.out, block.norm_mlp, block.up, block.down]
        places = [part.weight.data_ptr() for part in parts if isinstance(part, PlainNorm | PlainLinear)]
        found += struct.pack("<7q2f", *places, tail.data_ptr(), scale / math.log(2), 0.0)
    return found


def tail_of(block: Block, blocks: int) -> torch.Tensor:
    """What the blocks add to what they find in a layer, (blocks, numbers) in fp32, as step/layout.cuh has it.

    Behind a norm with the weights g and offsets b, weights w make (sum(x g w) - mean sum(g w)) / deviation + sum(b w)
    + bias of a row x: so the kernel multiplies before it knows the mean.
    """
    parts: list[torch.Tensor] = []
    for norm, linear in (
        (block.norm_attention, block.qkv), (None, block.out), (block.norm_mlp, block.up), (None, block.down)
    ):  # fmt: skip
        assert isinstance(linear, PlainLinear) and linear.bias is not None, "fits has looked. This is a bug."
        added = linear.bias.float()
        if norm is not None:
            assert isinstance(norm, PlainNorm), "fits has looked. This is a bug."
            parts.append(linear.weight.float() @ norm.weight.float())
            added = added + linear.weight.float() @ norm.bias.float()
        parts.append(added)
    shares = [part.view(blocks, -1) for part in parts]
    return torch.cat([functional.pad(share, (0, -share.shape[1] % 4)) for share in shares], dim=1).contiguous()


def compiled(family: Gpt2) -> Kernel:
    """The kernel for a model of this shape. Raises RuntimeError or OSError where it cannot be compiled."""
    source = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in ("device.cuh", *PARTS))
    bytes_max = limits(family.device)[2]
    options = [f"-D{name}={value}" for name, value in {**sizes_of(family), "SHARED_BYTES": bytes_max}.items()]
    with torch.cuda.device(family.device):
        kernel = cast(Any, torch.cuda)._compile_kernel(source, "single_step", nvcc_options=options)  # its only name
        kernel.set_shared_memory_config(bytes_max)
    return kernel

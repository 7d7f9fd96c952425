"""Post-norm encoder layers over packed rows: BERT's and Marian's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from app.engine.compute.attention import attend_packed, has_spans
from app.engine.compute.kernels import HAS_BF16_512, encoder, threads
from app.engine.compute.layers import TILED_ROWS, Int8Linear, Linear, Tail
from app.engine.compute.packed import Packed, packed
from app.engine.compute.plain import sent

Array = np.ndarray[Any, Any]


@dataclass
class Block:
    """One layer's weights: queries, keys and values side by side, and what follows attention."""

    qkv: Linear
    tail: Tail


class Layers:
    """Blocks one after the other; many rows in int8 by one kernel, which gives the same bits."""

    def __init__(self, blocks: Sequence[Block], *, heads: int, scale: float, narrow: torch.dtype) -> None:
        self.blocks = list(blocks)
        self.heads = heads
        self.scale = scale
        self.narrow = narrow

    def __call__(self, x: torch.Tensor, lengths: Sequence[int], wanted: Array | None = None) -> torch.Tensor:
        """x (tokens, width), tokens = sum(lengths), and may be written to → (wanted, width).

        wanted: indices of the tokens that are read afterwards, in order; None for all. Of the last layer nothing else
        is computed.
        """
        found = self._packed if len(x) >= TILED_ROWS * threads() else None
        if found is None or not has_spans(x, x.shape[1] // self.heads):
            attend = partial(attend_packed, lengths=lengths, heads=self.heads, scale=self.scale, narrow=self.narrow)
            return self.through(x, attend, wanted)
        counts = np.array(lengths, np.int64)
        is_narrow = self.narrow is torch.bfloat16 and HAS_BF16_512
        room = (3 * self.heads, len(x), x.shape[1] // self.heads)
        x = x.contiguous()
        meant = np.arange(len(x)) if wanted is None else wanted
        out = x.new_empty(len(meant), x.shape[1])
        encoder.encode(
            x.numpy(), counts.cumsum() - counts, counts, meant, found.weights, found.norms, np.array(found.epsilons),
            self.blocks[0].tail.act.number,
            np.float32(self.scale), np.empty(room, np.uint16 if is_narrow else np.float32), threads(),
            out.numpy(),
        )  # fmt: skip
        return out

    def through(
        self, x: torch.Tensor, attend: Callable[[torch.Tensor], torch.Tensor], wanted: Array | None = None
    ) -> torch.Tensor:
        """The same layer by layer: attend is given queries, keys and values (tokens, 3 * width)."""
        for layer, block in enumerate(self.blocks, 1):
            read = attend(block.qkv(x))
            if wanted is not None and layer == len(self.blocks):
                some = sent(wanted, x.device)
                read, x = read[some], x[some]
            x = block.tail(read, x)
        return x

    @cached_property
    def _packed(self) -> Packed | None:
        """As encoder.encode takes the layers. Asked for first when the model is loaded: no tensor moves any more."""
        linears = [(block.qkv, block.tail.out, block.tail.up, block.tail.down) for block in self.blocks]
        return packed(linears, [(block.tail.norm_read, block.tail.norm) for block in self.blocks], Int8Linear)

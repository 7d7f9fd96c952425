"""Post-norm decoder layers that attend to a source besides their row: Marian's."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from app.engine.compute import post_norm
from app.engine.compute.attention import attend_cached, attend_slots
from app.engine.compute.cache import SlotCache, StepTokens
from app.engine.compute.kernels import threads, translator
from app.engine.compute.layers import Fp32Linear, Int8Linear, Linear, Norm
from app.engine.compute.packed import Packed, packed


@dataclass
class Block(post_norm.Block):
    """One layer's weights."""

    query: Linear
    source: Linear
    """What a source's keys and values are made by, once; no step needs it."""
    out: Linear
    """Of what was read from the source; the block's own is its tail's."""
    norm: Norm


class Layers:
    """Blocks one after the other; single tokens by one kernel, with the same bits."""

    def __init__(self, blocks: Sequence[Block], *, heads: int, scale: float) -> None:
        self.blocks = list(blocks)
        self.heads = heads
        self.scale = scale

    def __call__(
        self, x: torch.Tensor, tokens: StepTokens, cache: SlotCache, source: SlotCache, sources: StepTokens
    ) -> torch.Tensor:
        """x (tokens, width) → (tokens, width); sources: for each token the last position of its source in `source`."""
        found = self._packed if tokens.is_single else None
        if found is None or cache.whole is None or source.whole is None:
            return self.through(x, tokens, cache, source, sources)
        out = torch.empty_like(x)
        translator.step(
            x.numpy(), (tokens.slots_array, tokens.positions_array), (sources.slots_array, sources.lengths_array),
            found.weights, self._is_int8, found.norms, found.epsilons[0], self.blocks[0].tail.act.number,
            np.float32(self.scale), (*cache.whole, *source.whole), threads(), out.numpy(),
        )  # fmt: skip
        return out

    def through(
        self, x: torch.Tensor, tokens: StepTokens, cache: SlotCache, source: SlotCache, sources: StepTokens
    ) -> torch.Tensor:
        """The same layer by layer."""
        for layer, block in enumerate(self.blocks):
            read = attend_cached(block.qkv(x), tokens, cache, layer, self.heads, self.scale)
            x = block.tail.add_read(read, x)
            read = torch.empty_like(x)
            attend_slots(block.query(x), sources, source, layer, self.scale, read)
            x = block.norm.over(block.out, read, x)
            x = block.tail.widen(x)
        return x

    @cached_property
    def _is_int8(self) -> bool:
        return isinstance(self.blocks[0].qkv, Int8Linear)

    @cached_property
    def _packed(self) -> Packed | None:
        """As translator.step takes the layers. Asked for first when the model is loaded: no tensor moves any more."""
        linears = [
            (block.qkv, block.tail.out, block.query, block.out, block.tail.up, block.tail.down) for block in self.blocks
        ]
        norms = [(block.tail.norm_read, block.norm, block.tail.norm) for block in self.blocks]
        found = packed(linears, norms, Int8Linear if self._is_int8 else Fp32Linear)
        if found is None or found.weights[:, :, 5].any() or len(set(found.epsilons)) > 1:
            return None  # the kernel mixes nothing, and has one epsilon
        return found

"""Pre-norm decoder layers over the slots of a cache: GPT-2's."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from app.engine.compute.activations import Activation
from app.engine.compute.attention import attend_cached
from app.engine.compute.cache import SlotCache, StepTokens
from app.engine.compute.kernels import decoder, threads
from app.engine.compute.kernels.heads import WIDTHS
from app.engine.compute.layers import Fp32Linear, Int8Linear, Linear, Norm
from app.engine.compute.packed import Packed, packed


@dataclass
class Block:
    """One layer's weights."""

    norm_attention: Norm
    qkv: Linear
    out: Linear
    norm_mlp: Norm
    up: Linear
    down: Linear


class Layers:
    """Blocks one after the other and the last norm; a token of each row by one kernel, with the same bits."""

    def __init__(
        self, blocks: Sequence[Block], norm: Norm, *, act: Activation, heads: int, scales: Sequence[float]
    ) -> None:
        self.blocks = list(blocks)
        self.norm = norm
        self.act = act
        self.heads = heads
        self.scales = list(scales)
        """Of each layer's scores."""

    def __call__(self, x: torch.Tensor, tokens: StepTokens, cache: SlotCache) -> torch.Tensor:
        """x (tokens, width) → (tokens, width)."""
        found = self._packed if tokens.is_single else None
        if found is None or cache.whole is None or cache.keys.shape[-1] not in WIDTHS:
            return self.through(x, tokens, cache)
        out = torch.empty_like(x)
        decoder.step(
            x.numpy(), tokens.slots_array, tokens.positions_array, found.weights, self._is_int8, found.norms,
            found.epsilons[0], self.act.number, np.array(self.scales, np.float32), *cache.whole, threads(), out.numpy(),
        )  # fmt: skip
        return out

    def through(self, x: torch.Tensor, tokens: StepTokens, cache: SlotCache) -> torch.Tensor:
        """The same layer by layer."""
        normed = self.blocks[0].norm_attention(x)
        norms = [*(block.norm_attention for block in self.blocks[1:]), self.norm]
        for layer, (block, norm) in enumerate(zip(self.blocks, norms, strict=True)):
            read = attend_cached(block.qkv(normed), tokens, cache, layer, self.heads, self.scales[layer])
            x, normed = block.norm_mlp.after(block.out, read, x)
            x, normed = norm.after(block.down, block.up(normed, act=self.act), x)
        return normed

    @cached_property
    def _is_int8(self) -> bool:
        return isinstance(self.blocks[0].qkv, Int8Linear)

    @cached_property
    def _packed(self) -> Packed | None:
        """As decoder.step takes the layers. Asked for first when the model is loaded: no tensor moves any more."""
        linears = [(block.qkv, block.out, block.up, block.down) for block in self.blocks]
        pairs = [*((block.norm_attention, block.norm_mlp) for block in self.blocks), (self.norm, self.norm)]
        found = packed(linears, pairs, Int8Linear if self._is_int8 else Fp32Linear)
        return None if found is None or found.weights[:, :, 5].any() else found  # it does not mix what layers read

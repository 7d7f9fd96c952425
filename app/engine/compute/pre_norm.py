"""Pre-norm decoder layers over the slots of a cache: GPT-2's."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from app.engine.compute.activations import Activation
from app.engine.compute.attention import attend_cached, has_spans
from app.engine.compute.cache import SlotCache, StepTokens
from app.engine.compute.kernels import decoder, reader, threads
from app.engine.compute.layers import TILED_ROWS, Fp32Linear, Int8Linear, Linear, Norm
from app.engine.compute.packed import Packed, packed
from app.engine.compute.plain import sent


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
    """Blocks one after the other and the last norm, by one kernel where it can be, with the same bits."""

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
        """x (tokens, width) → (wanted, width), see StepTokens."""
        found = self._packed if tokens.is_single or self._is_read(x, tokens, cache) else None
        if found is None or cache.whole is None:
            return self.through(x, tokens, cache)
        wanted, places = tokens.wanted_array, (tokens.slots_array, tokens.positions_array)
        out = x.new_empty(len(x) if tokens.is_single else len(wanted), x.shape[1])
        rest = (self.act.number, np.array(self.scales, np.float32), *cache.whole, threads(), out.numpy())
        model = found.weights, found.norms, found.epsilons[0]
        if tokens.is_single:
            decoder.step(x.numpy(), *places, found.weights, self._is_int8, *model[1:], *rest)
        else:
            reader.read(x.clone().numpy(), tokens.prompts_array, tokens.short_array, wanted, *places, *model, *rest)
        return out

    def _is_read(self, x: torch.Tensor, tokens: StepTokens, cache: SlotCache) -> bool:
        """Whether kernels/reader.py takes this step."""
        is_many = self._is_int8 and tokens.has_rows and len(x) >= TILED_ROWS * threads()
        return is_many and has_spans(x, cache.keys.shape[-1])

    def through(self, x: torch.Tensor, tokens: StepTokens, cache: SlotCache) -> torch.Tensor:
        """The same layer by layer."""
        normed = self.blocks[0].norm_attention(x)
        norms = [*(block.norm_attention for block in self.blocks[1:]), self.norm]
        for layer, (block, norm) in enumerate(zip(self.blocks, norms, strict=True)):
            read = attend_cached(block.qkv(normed), tokens, cache, layer, self.heads, self.scales[layer])
            if tokens.wanted is not None and layer + 1 == len(self.blocks):
                some = sent(tokens.wanted, x.device)
                read, x = read[some], x[some]
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

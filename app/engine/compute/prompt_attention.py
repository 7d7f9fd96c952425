"""Prompts attended to by torch, one after another: for numbers, heads and devices that no kernel here takes."""

import torch
from torch.nn.functional import scaled_dot_product_attention

from app.engine.compute.cache import StepTokens


def attend_each(
    qkv: torch.Tensor, tokens: StepTokens, keys: torch.Tensor, values: torch.Tensor, heads: int, scale: float,
    out: torch.Tensor,
) -> None:  # fmt: skip
    """The prompts of a step, each causally against its slot, which holds its keys and values already, into `out`.

    qkv: (tokens, 3 * width); keys, values: (slots, heads, positions, head_dim); out: (tokens, width).
    """
    width = qkv.shape[1] // 3
    for offset, span in tokens.prompts:
        piece, stop = slice(offset, offset + span.count), span.start + span.count
        query = qkv[piece, :width].reshape(span.count, heads, -1).transpose(0, 1).to(keys.dtype)
        mask = tokens.mask(span)
        found = scaled_dot_product_attention(
            query[None], keys[span.slot, :, :stop][None], values[span.slot, :, :stop][None], mask,
            is_causal=mask is None, scale=scale,
        )[0]  # fmt: skip
        out[piece] = found.transpose(0, 1).flatten(1).to(out.dtype)

"""Attention over packed tokens: rows of different lengths lie one after another, without padding."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from app.engine.compute.cache import Array, SlotCache, StepTokens
from app.engine.compute.cuda import HAS_KERNELS
from app.engine.compute.cuda import attention as on_cuda
from app.engine.compute.kernels import HAS_BF16_512, HAS_FMA, spans, spans_bf16, threads
from app.engine.compute.kernels import attention as kernels
from app.engine.compute.kernels.vectors import PANEL
from app.engine.compute.plain import sent
from app.engine.compute.prompt_attention import attend_each


def positions_of(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """Where each token of packed rows stands in its row, (tokens,)."""
    return sent(np.concatenate([np.arange(length) for length in lengths]), device)


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(tokens, width) → (tokens, heads, head_dim)."""
    return x.reshape(x.shape[0], heads, -1)


def attend_cached(
    qkv: torch.Tensor, tokens: StepTokens, cache: SlotCache, layer: int, heads: int, scale: float
) -> torch.Tensor:
    """Causal self-attention of packed tokens against their rows' caches, which receive the new keys and values first.

    qkv: (tokens, 3 * width): queries, keys and values side by side, in the order of the step. Returns (tokens, width).
    Single tokens are computed together, a prompt by itself, so that no row pays for another's length.
    """
    if qkv.is_cuda and HAS_KERNELS:
        return on_cuda.attend_cached(qkv, tokens, cache, layer, heads, scale)
    width = qkv.shape[1] // 3
    keys, values = cache.keys[layer], cache.values[layer]
    out = torch.empty_like(qkv[:, :width], memory_format=torch.contiguous_format)
    by_kernel = bool(tokens.prompts and cache.arrays) and has_spans(qkv, keys.shape[-1])
    store(qkv, width, tokens, cache, layer, which=tokens.short_array if by_kernel else None)
    if len(tokens.short):
        attend_slots(qkv, tokens, cache, layer, scale, out)
    if by_kernel:
        is_narrow = keys.dtype is torch.bfloat16 and HAS_BF16_512
        (spans_bf16 if is_narrow else spans).attend_spans(
            qkv.numpy(), tokens.prompts_array, *cache.arrays[layer], np.float32(scale), threads(), out.numpy()
        )
    elif tokens.prompts:
        attend_each(qkv, tokens, keys, values, heads, scale, out)
    return out


def has_spans(qkv: torch.Tensor, head_dim: int) -> bool:
    """Whether kernels/spans.py runs here, for these numbers and heads."""
    is_plain = qkv.device.type == "cpu" and qkv.dtype is torch.float32
    return HAS_FMA and is_plain and head_dim % PANEL == 0


def store(
    packed: torch.Tensor, offset: int, tokens: StepTokens, cache: SlotCache, layer: int, which: Array | None = None
) -> None:
    """Write keys and values, side by side in packed (tokens, …) from column `offset` on, to the tokens' places.

    which: indices of the tokens meant, where the cache has arrays; None for all.
    """
    heads = cache.keys.shape[2]
    width = heads * cache.keys.shape[4]
    if cache.arrays:
        meant = np.arange(len(tokens.slots_array)) if which is None else which
        kernels.store(
            packed.float().numpy(), offset, meant, tokens.slots_array, tokens.positions_array, *cache.arrays[layer]
        )
        return
    if packed.is_cuda and HAS_KERNELS:
        both = packed[:, offset : offset + 2 * width]
        on_cuda.kernels.store(both, tokens.slots, tokens.positions, cache.keys[layer], cache.values[layer])
        return
    for part, held in enumerate((cache.keys[layer], cache.values[layer])):
        first = offset + part * width
        new = split_heads(packed[:, first : first + width], heads).to(held.dtype)
        held[tokens.slots, :, tokens.positions] = new


def attend_slots(
    query: torch.Tensor, tokens: StepTokens, cache: SlotCache, layer: int, scale: float, out: torch.Tensor
) -> None:
    """The step's short tokens, each against its slot up to its own position, into `out`.

    query (tokens, …) holds the heads in its first columns, uncut: the kernels are compiled for whole rows; out (tokens,
    heads * head_dim).
    """
    width = out.shape[1]
    if query.is_cuda and HAS_KERNELS:
        keys, values = cache.keys[layer], cache.values[layer]
        on_cuda.kernels.attend(
            query[:, :width], tokens.short, tokens.slots, tokens.positions, keys, values, scale, out, stores=False
        )
        return
    if cache.arrays:
        held_keys, held_values = cache.arrays[layer]
        found = out if out.dtype is torch.float32 else torch.empty(out.shape)
        kernels.attend(
            tokens.short_array, query.float().numpy(), tokens.slots_array, tokens.lengths_array, held_keys, held_values,
            np.float32(scale), threads(), found.numpy(),
        )  # fmt: skip
        if found is not out:
            out[tokens.short] = found[tokens.short].to(out.dtype)
        return
    slots = tokens.slots[tokens.short]
    heads = split_heads(query[tokens.short, :width], cache.keys.shape[2]).to(cache.keys.dtype)
    lengths = tokens.positions[tokens.short] + 1
    found = attend_one(heads, cache.keys[layer][slots], cache.values[layer][slots], lengths, scale)
    out[tokens.short] = found.flatten(1).to(out.dtype)


def attend_one(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, lengths: torch.Tensor, scale: float
) -> torch.Tensor:
    """One query a row against that row's first `lengths` keys.

    query (rows, heads, head_dim); keys, values (rows, heads, positions, head_dim); lengths (rows,) at least 1.
    Returns (rows, heads, head_dim).
    """
    longest = int(lengths.max())
    scores = torch.matmul(keys[:, :, :longest], query.unsqueeze(-1)).squeeze(-1) * scale
    hidden = torch.arange(longest, device=query.device) >= lengths[:, None]
    weights = scores.masked_fill(hidden[:, None], float("-inf")).softmax(-1)
    return torch.matmul(weights.unsqueeze(-2), values[:, :, :longest]).squeeze(-2)


def attend_packed(
    qkv: torch.Tensor, lengths: Sequence[int], heads: int, scale: float, narrow: torch.dtype = torch.float32
) -> torch.Tensor:
    """Full (not causal) attention inside each of the packed rows; by torch, rows of equal length together.

    qkv: (tokens, 3 * width) with tokens = sum(lengths); `narrow` is what its products may be computed in. Returns
    (tokens, width).
    """
    if has_spans(qkv, qkv.shape[1] // 3 // heads):
        packed = torch.empty(qkv.shape[0], qkv.shape[1] // 3)
        counts = np.array(lengths, np.int64)
        is_narrow = narrow is torch.bfloat16 and HAS_BF16_512
        (spans_bf16 if is_narrow else spans).attend_rows(
            qkv.contiguous().numpy(), counts.cumsum() - counts, counts, heads, np.float32(scale), threads(),
            packed.numpy(),
        )  # fmt: skip
        return packed
    if on_cuda.has_flash(qkv, heads):
        return on_cuda.attend_packed(qkv, lengths, heads, scale)
    query, key, value = (split_heads(part, heads) for part in qkv.chunk(3, -1))
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    starts_by_length: dict[int, list[int]] = defaultdict(list)
    start = 0
    for length in lengths:
        starts_by_length[length].append(start)
        start += length
    for length, starts in starts_by_length.items():
        if len(starts) == 1:
            row = slice(starts[0], starts[0] + length)
            q, k, v = (x[row].transpose(0, 1)[None] for x in (query, key, value))
            out[row] = scaled_dot_product_attention(q, k, v, scale=scale)[0].transpose(0, 1)
            continue
        index = torch.tensor(starts, device=query.device)[:, None] + torch.arange(length, device=query.device)
        q, k, v = (x[index].transpose(1, 2) for x in (query, key, value))
        out[index] = scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)
    return out.flatten(1)

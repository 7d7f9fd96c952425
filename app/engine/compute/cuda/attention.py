"""Attention on a CUDA device: single tokens by our kernel, whole rows by torch's flash attention, one launch each."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from app.engine.compute.cache import Layout, SlotCache, StepTokens
from app.engine.compute.cuda import HAS_KERNELS
from app.engine.compute.plain import sent
from app.engine.compute.prompt_attention import attend_each

if TYPE_CHECKING or HAS_KERNELS:
    from app.engine.compute.cuda import kernels

FLASH_WIDTH_MAX = 256
"""Numbers of a head that flash attention can hold."""


def attend_cached(
    qkv: torch.Tensor, tokens: StepTokens, cache: SlotCache, layer: int, heads: int, scale: float
) -> torch.Tensor:
    """See compute/attention.py. All prompts of a step are attended to together."""
    width = qkv.shape[1] // 3
    keys, values = cache.keys[layer], cache.values[layer]
    out = torch.empty(qkv.shape[0], width, dtype=qkv.dtype, device=qkv.device)
    if len(tokens.short):
        kernels.attend(qkv, tokens.short, tokens.slots, tokens.positions, keys, values, scale, out, stores=True)
    if not (tokens.prompts or tokens.layout):
        return out
    is_whole = len(tokens.long) == len(qkv)
    asking, slots, positions = qkv, tokens.slots, tokens.positions
    if not is_whole:
        asking, slots, positions = (held[tokens.long] for held in (asking, slots, positions))
    kernels.store(asking[:, width:], slots, positions, keys, values)
    if not has_flash(qkv, heads):
        attend_each(qkv, tokens, keys, values, heads, scale, out)
        return out
    layout = tokens.layout = tokens.layout or layout_of(tokens)
    held = asking[:, width:] if layout.places is None else kernels.gather(keys, values, *layout.places)
    found = _flash(asking[:, :width], held, layout, heads, scale, is_causal=True)
    if is_whole:
        return found
    out[tokens.long] = found
    return out


def layout_of(tokens: StepTokens) -> Layout:
    """The prompts of a step."""
    device, spans = tokens.slots.device, [span for _, span in tokens.prompts]
    counts, ends = [span.count for span in spans], [span.start + span.count for span in spans]
    queries = bounds_of(counts, device)
    if counts == ends:
        return Layout(queries, queries, max(counts), max(ends))
    slots = np.repeat([span.slot for span in spans], ends)
    positions = np.concatenate([np.arange(end) for end in ends])
    places = sent(slots, device), sent(positions, device)
    return Layout(queries, bounds_of(ends, device), max(counts), max(ends), places)


@lru_cache(maxsize=4)
def layout_of_rows(lengths: tuple[int, ...], device: torch.device) -> Layout:
    """Whole packed rows; every layer asks for the same."""
    bounds = bounds_of(lengths, device)
    return Layout(bounds, bounds, max(lengths), max(lengths))


def bounds_of(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """Where each packed row begins and the last one ends, (rows + 1,)."""
    return sent(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), device)


def attend_packed(qkv: torch.Tensor, lengths: Sequence[int], heads: int, scale: float) -> torch.Tensor:
    """See compute/attention.py; for numbers and heads that flash attention takes (has_flash)."""
    return attend_rows(qkv, layout_of_rows(tuple(lengths), qkv.device), heads, scale)


def attend_rows(qkv: torch.Tensor, layout: Layout, heads: int, scale: float) -> torch.Tensor:
    """The same for rows that lie as `layout` says."""
    width = qkv.shape[1] // 3
    return _flash(qkv[:, :width], qkv[:, width:], layout, heads, scale, is_causal=False)


def has_flash(qkv: torch.Tensor, heads: int) -> bool:
    """Whether torch's flash attention takes these numbers and heads."""
    return qkv.is_cuda and fits_flash(qkv.dtype, qkv.shape[1] // 3 // heads)


def fits_flash(dtype: torch.dtype, head_dim: int) -> bool:
    """The same of a model's numbers and the width of its heads, on a CUDA device."""
    return dtype is torch.bfloat16 and head_dim % 8 == 0 and head_dim <= FLASH_WIDTH_MAX


def _flash(
    query: torch.Tensor, held: torch.Tensor, layout: Layout, heads: int, scale: float, *, is_causal: bool
) -> torch.Tensor:
    """query (tokens, width) against held (keys, 2 * width): keys, then values. Returns (tokens, width)."""
    width = query.shape[1]
    asked, key, value = (part.unflatten(1, (heads, -1)) for part in (query, held[:, :width], held[:, width:]))  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] (torch leaves it untyped)
    forward: Callable[..., tuple[torch.Tensor, ...]] = torch.ops.aten._flash_attention_forward.default
    found = forward(
        asked, key, value, layout.queries, layout.keys, layout.longest_query, layout.longest_key, 0.0, is_causal, False,
        scale=scale,
    )  # fmt: skip
    return found[0].flatten(1)

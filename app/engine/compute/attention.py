"""Attention over packed tokens: rows of different lengths lie one after another, without padding."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive tokens of one row in a packed batch."""

    slot: int
    """The row's place in the cache."""
    start: int
    """Position of the first of these tokens in its row."""
    count: int


class SlotCache:
    """Keys and values of every slot: two preallocated tensors (layers, slots, heads, positions, head_dim)."""

    def __init__(
        self,
        *,
        layers: int,
        slots: int,
        heads: int,
        positions: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (layers, slots, heads, positions, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def memory_bytes(self) -> int:
        """Bytes that both tensors hold."""
        return 2 * self.keys.numel() * self.keys.element_size()

    def copy_slots(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Give each target slot the first `length` positions of its source slot; all sources are read first."""
        for held in (self.keys, self.values):
            held[:, list(targets), :, :length] = held[:, list(sources), :, :length].clone()


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(tokens, width) → (tokens, heads, head_dim)."""
    return x.view(x.shape[0], heads, -1)


def attend_cached(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    spans: Sequence[Span],
    cache: SlotCache,
    layer: int,
    scale: float,
) -> torch.Tensor:
    """Causal self-attention of packed tokens against their rows' caches, which receive the new keys and values first.

    query, key, value: (tokens, heads, head_dim), in the order of `spans`. Returns (tokens, heads * head_dim).
    Single-token spans are computed together; a longer span by itself, so that no row pays for another's length.
    """
    keys, values = cache.keys[layer], cache.values[layer]
    out = torch.empty_like(query)
    singles: list[tuple[int, Span]] = []
    offset = 0
    for span in spans:
        piece = slice(offset, offset + span.count)
        stop = span.start + span.count
        keys[span.slot, :, span.start : stop] = key[piece].transpose(0, 1)
        values[span.slot, :, span.start : stop] = value[piece].transpose(0, 1)
        if span.count == 1:
            singles.append((offset, span))
        else:
            mask = torch.ones(span.count, stop, dtype=torch.bool, device=query.device).tril(span.start)
            out[piece] = scaled_dot_product_attention(
                query[piece].transpose(0, 1), keys[span.slot, :, :stop], values[span.slot, :, :stop], mask, scale=scale
            ).transpose(0, 1)
        offset += span.count
    if singles:
        lengths = torch.tensor([span.start + 1 for _, span in singles], device=query.device)
        slots = [span.slot for _, span in singles]
        offsets = [place for place, _ in singles]
        out[offsets] = attend_one(query[offsets], keys[slots], values[slots], lengths, scale)
    return out.reshape(out.shape[0], -1)


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
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], scale: float
) -> torch.Tensor:
    """Full (not causal) attention inside each of the packed rows; rows of equal length are computed together.

    query, key, value: (tokens, heads, head_dim) with tokens = sum(lengths). Returns (tokens, heads * head_dim).
    """
    out = torch.empty_like(query)
    starts_by_length: dict[int, list[int]] = defaultdict(list)
    start = 0
    for length in lengths:
        starts_by_length[length].append(start)
        start += length
    for length, starts in starts_by_length.items():
        index = torch.tensor(starts, device=query.device)[:, None] + torch.arange(length, device=query.device)
        q, k, v = (x[index].transpose(1, 2) for x in (query, key, value))
        out[index] = scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)
    return out.reshape(out.shape[0], -1)

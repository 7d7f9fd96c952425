"""Attention of single queries against a slot cache, each row over its own length: the cache is read once, in place."""

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from app.engine.compute.kernels import heads, scalar
from app.engine.compute.kernels.linear import PARALLEL, SERIAL
from app.engine.compute.kernels.tasks import take


@njit(**SERIAL)
def store_head(packed, first, held):
    """Numbers of packed (columns,) from the column `first` on, as held (head_dim,) keeps them."""
    for place in range(held.size):
        held[place] = scalar.stored(packed[first + place], held[place])


@njit(**SERIAL)
def store(packed, offset, slots, positions, keys, values):
    """Write the heads in columns `offset` … of packed (tokens, …), all keys and then all values, to their places.

    keys, values (slots, heads, positions, head_dim).
    """
    count, head_dim = keys.shape[1], keys.shape[3]
    for token in range(slots.size):
        for head in range(count):
            first = offset + head * head_dim
            store_head(packed[token], first, keys[slots[token], head, positions[token]])
            store_head(packed[token], first + count * head_dim, values[slots[token], head, positions[token]])


@njit(**SERIAL)
def soften(scores):
    """Scores → weights exp(score - largest), in place; returns the inverse of their sum."""
    largest = scalar.largest(scores)
    total = np.float32(0.0)
    for position in range(scores.size):
        scores[position] = scalar.exp(scores[position] - largest)
        total += scores[position]
    return np.float32(1.0) / total


@njit(**PARALLEL)
def attend_any(tokens, queries, slots, lengths, keys, values, scale, threads, out):
    """attend() for heads of any width."""
    count, head_dim = keys.shape[1], keys.shape[3]
    counter = np.zeros(1, np.int64)
    for _ in prange(threads):
        task = take(counter.ctypes.data)
        while task < tokens.size * count:
            token, head = tokens[task // count], task % count
            slot, length, first = slots[token], lengths[token], head * head_dim
            scores = np.empty(length, np.float32)
            for position in range(length):
                total = np.float32(0.0)
                for place in range(head_dim):
                    total += queries[token, first + place] * scalar.number(keys[slot, head, position, place])
                scores[position] = total * scale
            inverse = soften(scores)
            for place in range(head_dim):
                total = np.float32(0.0)
                for position in range(length):
                    total += scores[position] * scalar.number(values[slot, head, position, place])
                out[token, first + place] = total * inverse
            task = take(counter.ctypes.data)
    scalar.keep(counter)


def attend_head(query, keys, values, length, scale, out):
    """One query of a head of one of WIDTHS against the first `length` of its keys and values, all (…, head_dim)."""
    raise NotImplementedError


@overload(attend_head)
def _attend_head(query, keys, values, length, scale, out):
    is_fp32 = isinstance(keys.dtype, types.Float)
    dots = heads.dots_fp32 if is_fp32 else heads.dots_bf16
    weighted_sum = heads.weighted_sum_fp32 if is_fp32 else heads.weighted_sum_bf16

    def attend(query, keys, values, length, scale, out):
        scores = np.empty(length, np.float32)
        dots(query.size, query.ctypes.data, keys.ctypes.data, length, scale, scores.ctypes.data)
        inverse = soften(scores)
        weighted_sum(query.size, scores.ctypes.data, values.ctypes.data, length, inverse, out.ctypes.data)
        scalar.keep(scores)

    return attend


@njit(**PARALLEL)
def attend_wide(tokens, queries, slots, lengths, keys, values, scale, threads, out):
    """attend() for heads of one of WIDTHS."""
    count, width = keys.shape[1], keys.shape[3]
    counter = np.zeros(1, np.int64)
    for _ in prange(threads):
        task = take(counter.ctypes.data)
        while task < tokens.size * count:
            token, head = tokens[task // count], task % count
            slot, first = slots[token], head * width
            query, target = queries[token, first : first + width], out[token, first : first + width]
            attend_head(query, keys[slot, head], values[slot, head], lengths[token], scale, target)
            task = take(counter.ctypes.data)
    scalar.keep(counter)


def attend(tokens, queries, slots, lengths, keys, values, scale, threads, out) -> None:
    """Each of `tokens` (indices into the batch) against the first `lengths` positions of its slot.

    queries (batch, …) holds the heads in its first columns; slots, lengths (batch,); keys, values (slots, heads,
    positions, head_dim), fp32 or a bfloat16's 16 bits; out (batch, heads * head_dim).
    """
    kernel = attend_wide if keys.shape[3] in heads.WIDTHS else attend_any
    kernel(tokens, queries, slots, lengths, keys, values, scale, threads, out)

"""Attention of single queries against a slot cache, each row over its own length: the cache is read once, in place."""

import numpy as np
from numba import njit, prange

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


@njit(**PARALLEL)
def attend_fp32(tokens, queries, slots, lengths, keys, values, scale, threads, out):
    """attend() for heads of one of WIDTHS and an fp32 cache."""
    count, width = keys.shape[1], keys.shape[3]
    counter = np.zeros(1, np.int64)
    for _ in prange(threads):
        task = take(counter.ctypes.data)
        while task < tokens.size * count:
            token, head = tokens[task // count], task % count
            slot, length = slots[token], lengths[token]
            query = queries[token, head * width : (head + 1) * width]
            target = out[token, head * width : (head + 1) * width]
            scores = np.empty(length, np.float32)
            heads.dots_fp32(width, query.ctypes.data, keys[slot, head].ctypes.data, length, scale, scores.ctypes.data)
            inverse = soften(scores)
            heads.weighted_sum_fp32(
                width, scores.ctypes.data, values[slot, head].ctypes.data, length, inverse, target.ctypes.data
            )
            scalar.keep(scores)
            task = take(counter.ctypes.data)
    scalar.keep(counter)


@njit(**SERIAL)
def attend_head_bf16(query, keys, values, length, scale, out):
    """One query of a head of one of WIDTHS against the first `length` of its keys and values, all (…, head_dim)."""
    width = query.size
    scores = np.empty(length, np.float32)
    heads.dots_bf16(width, query.ctypes.data, keys.ctypes.data, length, scale, scores.ctypes.data)
    inverse = soften(scores)
    heads.weighted_sum_bf16(width, scores.ctypes.data, values.ctypes.data, length, inverse, out.ctypes.data)
    scalar.keep(scores)


@njit(**PARALLEL)
def attend_bf16(tokens, queries, slots, lengths, keys, values, scale, threads, out):
    """attend() for heads of one of WIDTHS and a bfloat16 cache."""
    count, width = keys.shape[1], keys.shape[3]
    counter = np.zeros(1, np.int64)
    for _ in prange(threads):
        task = take(counter.ctypes.data)
        while task < tokens.size * count:
            token, head = tokens[task // count], task % count
            slot, first = slots[token], head * width
            query, target = queries[token, first : first + width], out[token, first : first + width]
            attend_head_bf16(query, keys[slot, head], values[slot, head], lengths[token], scale, target)
            task = take(counter.ctypes.data)
    scalar.keep(counter)


def attend(tokens, queries, slots, lengths, keys, values, scale, threads, out) -> None:
    """Each of `tokens` (indices into the batch) against the first `lengths` positions of its slot.

    queries (batch, …) holds the heads in its first columns; slots, lengths (batch,); keys, values (slots, heads,
    positions, head_dim), fp32 or a bfloat16's 16 bits; out (batch, heads * head_dim).
    """
    kernel = attend_any
    if keys.shape[3] in heads.WIDTHS:
        kernel = attend_bf16 if keys.dtype == np.uint16 else attend_fp32
    kernel(tokens, queries, slots, lengths, keys, values, scale, threads, out)

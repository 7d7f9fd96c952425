"""Attention of many queries of one row at a time, prompts and whole inputs, as products with packed keys and values.

The scores of a query with a key, and the sums over values, run in the same order whatever else is computed beside them:
how a prompt is cut into chunks, and which rows share a step, changes no bit. (Rabe and Staats 2021 keep a block of
queries' scores; a row here is short enough to keep all of them.)
"""

import numpy as np
from numba import njit, prange

from app.engine.compute.kernels import scalar
from app.engine.compute.kernels.halves import in_whole, lay, transpose_words
from app.engine.compute.kernels.linear import PARALLEL, SERIAL
from app.engine.compute.kernels.microkernel import ROWS_MAX, multiply_fp32, rows_of_call
from app.engine.compute.kernels.sums import ORDERED, total
from app.engine.compute.kernels.tasks import take
from app.engine.compute.kernels.vectors import LANES, PANEL

ALIGNED = 16
"""Numbers, so that a panel starts at a multiple of 64 bytes."""


@njit(**SERIAL)
def buffer(numbers):
    """An uninitialised array with room for `numbers` aligned ones, and the place of the first."""
    held = np.empty(numbers + ALIGNED, np.float32)
    return held, (-held.ctypes.data % 64) // 4


@njit(**SERIAL)
def pack_keys(keys, first, stride, positions, width, panels, start):
    """Keys, `stride` numbers apart in `keys` from the place `first` on → panels (positions / PANEL, width, PANEL).

    The panels lie in `panels` from the place `start` on; columns without a position are 0.
    """
    whole = positions // LANES * LANES if width % LANES == 0 else 0
    if positions % PANEL:
        last = start + positions // PANEL * width * PANEL
        panels[last : start + (positions + PANEL - 1) // PANEL * width * PANEL] = np.float32(0.0)
    if whole:
        held, at, apart = in_whole(keys, first, stride, whole, width)
        panels_at = panels.ctypes.data + 4 * start
        for position in range(0, whole, LANES):
            target = panels_at + 4 * (position // PANEL * width * PANEL + position % PANEL)
            for place in range(0, width, LANES):
                source = at + position * apart + 4 * place
                transpose_words(source, apart, target + 4 * place * PANEL, 4 * PANEL)
        scalar.keep(held)
    for position in range(whole, positions):
        source = first + position * stride
        target = start + position // PANEL * width * PANEL + position % PANEL
        for place in range(width):
            panels[target + place * PANEL] = scalar.number(keys[source + place])


@njit(**SERIAL)
def pack_values(values, first, stride, positions, width, panels, start):
    """Values, laid out as the keys → panels (width / PANEL, positions, PANEL)."""
    for part in range(0, width, PANEL):
        lay(values, first + part, stride, positions, PANEL, panels, start + part * positions, PANEL)


@njit(**ORDERED)
def weigh(scores, scale):
    """Scores (positions,) → weights exp(scale * (score - largest)), in place; returns the largest, and their sum.

    scale is positive.
    """
    largest = scalar.largest(scores)
    for position in range(scores.size):
        scores[position] = scalar.exp((scores[position] - largest) * scale)
    return largest, total(scores)


@njit(**ORDERED)
def soften(scores, scale):
    """Scores → their softmax after scaling, in place; scale is positive."""
    _, weight = weigh(scores, scale)
    inverse = np.float32(1.0) / weight
    for position in range(scores.size):
        scores[position] *= inverse


@njit(**SERIAL)
def attend_head(queries, query_stride, count, visible, is_causal, keys, values, held, scale, out, out_stride):
    """`count` queries of one head of one row against its keys and values.

    queries and out are the addresses of the first query and result, strides in bytes. held says where in the flat
    arrays `keys` and `values` those of the head lie: (first of the keys, first of the values, numbers from one to the
    next, positions, width). The first query sees `visible` positions, and each further one a position more when it is
    causal.
    """
    first_key, first_value, stride, positions, width = held
    panels = (positions + PANEL - 1) // PANEL
    packed_keys, of_keys = buffer(panels * PANEL * width)
    packed_values, of_values = buffer(positions * width)
    pack_keys(keys, first_key, stride, positions, width, packed_keys, of_keys)
    pack_values(values, first_value, stride, positions, width, packed_values, of_values)
    keys_at, values_at = packed_keys.ctypes.data + of_keys * 4, packed_values.ctypes.data + of_values * 4
    scores, zeros = np.empty((ROWS_MAX, panels * PANEL), np.float32), np.zeros(PANEL, np.float32)
    zeros_at, scores_at, score_stride = zeros.ctypes.data, scores.ctypes.data, panels * PANEL * 4
    row = 0
    while row < count:
        taken = rows_of_call(count - row, False)
        longest = visible + row + taken - 1 if is_causal else visible
        left = queries + row * query_stride
        for panel in range((longest + PANEL - 1) // PANEL):
            multiply_fp32(
                taken,
                (
                    left, query_stride, keys_at + panel * PANEL * width * 4, width, zeros_at, 0, 0, 0, zeros_at,
                    0, 0, scores_at + panel * PANEL * 4, score_stride, 0, 0,
                ),
            )  # fmt: skip
        for place in range(taken):
            seen = visible + row + place if is_causal else visible
            soften(scores[place, :seen], scale)
            scores[place, seen:longest] = np.float32(0.0)
        for panel in range(width // PANEL):
            multiply_fp32(
                taken,
                (
                    scores_at, score_stride, values_at + panel * positions * PANEL * 4, longest, zeros_at, 0, 0, 0,
                    zeros_at, 0, 0, out + row * out_stride + panel * PANEL * 4, out_stride, 0, 0,
                ),
            )  # fmt: skip
        row += taken
    scalar.keep(scores)
    for array in (packed_keys, packed_values, zeros):
        scalar.keep(array)


@njit(**SERIAL)
def attend_laid(qkv, row, seen, head, scale, out):
    """One head of a row, as attend_rows does it, of numbers that lie head by head.

    qkv (3 * heads, tokens, width): the heads of the queries, then those of the keys and of the values; row: its first
    token, and how many it has; seen: the first of them that attends, and the last + 1.
    """
    tokens, width = qkv.shape[1], qkv.shape[2]
    heads, (start, length), (first, stop) = qkv.shape[0] // 3, row, seen
    if first >= stop:
        return
    numbers = qkv.reshape(-1)
    at, part = (head * tokens + start) * width, heads * tokens * width
    attend_head(
        qkv.ctypes.data + (head * tokens + first) * width * 4, width * 4, stop - first, length, False, numbers, numbers,
        (at + part, at + 2 * part, width, length, width), scale,
        out.ctypes.data + (first * out.shape[1] + head * width) * 4, out.shape[1] * 4,
    )  # fmt: skip


@njit(**PARALLEL)
def attend_rows(qkv, starts, lengths, heads, scale, threads, out):
    """Every token of each row against all of its row, not causal.

    qkv (tokens, 3 * heads * width); starts, lengths (rows,) in tokens; out (tokens, heads * width).
    """
    all_width = out.shape[1]
    width = all_width // heads
    numbers = qkv.reshape(-1)
    counter = np.zeros(1, np.int64)
    for _ in prange(threads):
        task = take(counter.ctypes.data)
        while task < starts.size * heads:
            row, first = task // heads, task % heads * width
            start, length = starts[row], lengths[row]
            at = start * qkv.shape[1] + first
            attend_head(
                qkv.ctypes.data + at * 4, qkv.shape[1] * 4, length, length, False, numbers, numbers,
                (at + all_width, at + 2 * all_width, qkv.shape[1], length, width), scale,
                out.ctypes.data + (start * all_width + first) * 4, all_width * 4,
            )  # fmt: skip
            task = take(counter.ctypes.data)
    scalar.keep(counter)


@njit(**SERIAL)
def store_head(qkv, span, head, keys, values):
    """Write a head's keys and values of the tokens of a span, see attend_spans, to their places."""
    first, slot, start, count = span[0], span[1], span[2], span[3]
    width, all_width = keys.shape[3], qkv.shape[1] // 3
    for token in range(count):
        key, value = keys[slot, start + token, head], values[slot, start + token, head]
        new, column = qkv[first + token], all_width + head * width
        for place in range(width):
            key[place] = scalar.stored(new[column + place], key[place])
            value[place] = scalar.stored(new[column + all_width + place], value[place])


@njit(**SERIAL)
def attend_span(qkv, span, seen, head, keys, values, scale, out):
    """One head of one span, see attend_spans; seen: the first of its tokens that attends, and the last + 1."""
    store_head(qkv, span, head, keys, values)
    heads, width = keys.shape[2], keys.shape[3]
    slot, (first, stop) = span[1], seen
    if first >= stop:
        return
    before = span[2] - span[0]  # a token's position is so much more than its place in the batch
    at = (slot * keys.shape[1] * heads + head) * width
    attend_head(
        qkv.ctypes.data + first * qkv.strides[0] + head * width * 4, qkv.strides[0], stop - first, before + first + 1,
        True, keys.reshape(-1), values.reshape(-1), (at, at, heads * width, before + stop, width), scale,
        out.ctypes.data + (first * out.shape[1] + head * width) * 4, out.shape[1] * 4,
    )  # fmt: skip


@njit(**PARALLEL)
def attend_spans(qkv, spans, keys, values, scale, threads, out):
    """The tokens of each span, causally, against its slot, to which their own keys and values are written first.

    qkv (tokens, 3 * heads * width); spans (spans, 4): index of the first token in `qkv`, slot, position of that token,
    tokens; keys, values (slots, positions, heads, width) in fp32 or a bfloat16's 16 bits; out (tokens, heads * width).
    """
    heads = keys.shape[2]
    counter = np.zeros(1, np.int64)
    for _ in prange(threads):
        task = take(counter.ctypes.data)
        while task < spans.shape[0] * heads:
            span = spans[task // heads]
            attend_span(qkv, span, (span[0], span[0] + span[3]), task % heads, keys, values, scale, out)
            task = take(counter.ctypes.data)
    scalar.keep(counter)

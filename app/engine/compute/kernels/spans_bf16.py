"""spans.py's work in bfloat16 products, for int8 models: their keys and values are held in it anyway.

Scores and sums over values are fp32, in one order whatever else is computed beside them: no cut and no company changes
a bit. Weights of the softmax are multiplied as they come, at most 1; their sum divides the result.
"""

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from app.engine.compute.kernels import scalar
from app.engine.compute.kernels.halves import HALF_BYTES, bf16_of, lay, pack_keys, pack_values
from app.engine.compute.kernels.linear import PARALLEL, SERIAL
from app.engine.compute.kernels.microkernel import ROWS_MAX, multiply_bf16
from app.engine.compute.kernels.sums import ORDERED, total
from app.engine.compute.kernels.tasks import take
from app.engine.compute.kernels.vectors import PANEL

HALF = np.uint16(0)
ALIGNED = 16


@njit(**SERIAL)
def words(count):
    """Room for `count` pairs of bfloat16 numbers that starts at a multiple of 64 bytes, and what holds it."""
    held = np.empty(count + ALIGNED, np.int32)
    first = (-held.ctypes.data % 64) // 4
    return held[first : first + count], held


@njit(**ORDERED)
def weigh_near(scores, scale, weights):
    """weights (positions,) = exp(scale * (score - largest)) in bfloat16; returns the largest, and their sum.

    scores (positions,) hold the weights in fp32 then, of which that is the sum; scale is positive.
    """
    largest = scalar.largest(scores)
    factor = scale * np.float32(1.44269504)
    for position in range(scores.size):
        scores[position] = scalar.power_near((scores[position] - largest) * factor)
        weights[position] = bf16_of(scores[position])
    return largest, total(scores)


def lefts(queries, row, column, taken, width, room):
    """Where ROWS_MAX queries lie in bfloat16, and how many bytes apart: themselves, or rounded into `room`."""
    raise NotImplementedError


@overload(lefts)
def _lefts(queries, row, column, taken, width, room):
    if isinstance(queries.dtype, types.Float):

        def rounded(queries, row, column, taken, width, room):
            apart = queries.shape[1]
            lay(queries.reshape(-1), row * apart + column, apart, taken, width, room, 0, width)
            return room.ctypes.data, width * HALF_BYTES

        return rounded
    return lambda queries, row, column, taken, width, room: (
        queries.ctypes.data + (row * queries.shape[1] + column) * HALF_BYTES,
        queries.shape[1] * HALF_BYTES,
    )


@njit(**SERIAL)
def attend_head(queries, at, count, visible, is_causal, keys, values, held, scale, out, to):
    """`count` queries of one head of one row against its keys and values, as spans.attend_head does it.

    at and to say where: the row of the first query in queries (rows, …) and the first column of the head; and in out.
    Queries in bfloat16 are read in whole calls: ROWS_MAX - 1 rows more may be read than there are.
    """
    first_row, first_column = at
    out_row, out_column = to
    first_key, first_value, stride, positions, width = held
    pairs, steps = width // 2, (positions + 1) // 2
    panels = (positions + PANEL - 1) // PANEL
    packed_keys, of_keys = words(panels * PANEL * pairs)
    packed_values, of_values = words(steps * width)
    pack_keys(keys, first_key, stride, positions, width, packed_keys)
    pack_values(values, first_value, stride, positions, width, packed_values)
    left = np.zeros(ROWS_MAX * width, np.uint16)
    scores = np.empty((ROWS_MAX, panels * PANEL), np.float32)
    weights, factors = np.zeros((ROWS_MAX, 2 * steps), np.uint16), np.ones(ROWS_MAX, np.float32)
    found, ones = np.empty((ROWS_MAX, width), np.float32), np.ones(ROWS_MAX, np.float32)
    for row in range(0, count, ROWS_MAX):
        taken = min(ROWS_MAX, count - row)
        longest = visible + row + taken - 1 if is_causal else visible
        first, apart = lefts(queries, first_row + row, first_column, taken, width, left)
        for panel in range((longest + PANEL - 1) // PANEL):
            multiply_bf16(
                (
                    first, apart, packed_keys.ctypes.data + panel * PANEL * width * 2, pairs,
                    ones.ctypes.data, 0, 0, 0, 0, 0, 0, scores.ctypes.data + panel * PANEL * 4, panels * PANEL * 4,
                    0, 0,
                )
            )  # fmt: skip
        for place in range(taken):
            seen = visible + row + place if is_causal else visible
            _, weight = weigh_near(scores[place, :seen], scale, weights[place, :seen])
            factors[place] = np.float32(1.0) / weight
            weights[place, seen:] = HALF
        is_whole = taken == ROWS_MAX
        target = out.ctypes.data + ((out_row + row) * out.shape[1] + out_column) * 4 if is_whole else found.ctypes.data
        stride = out.shape[1] * 4 if is_whole else width * 4
        for panel in range(width // PANEL):
            multiply_bf16(
                (
                    weights.ctypes.data, steps * 4, packed_values.ctypes.data + panel * steps * PANEL * 4,
                    (longest + 1) // 2, factors.ctypes.data, 0, 0, 0, 0, 0, 0, target + panel * PANEL * 4, stride, 0, 0,
                )
            )  # fmt: skip
        if not is_whole:
            for place in range(taken):
                last = out[out_row + row + place, out_column : out_column + width]
                for column in range(width):
                    last[column] = found[place, column]
    scalar.keep(left)
    scalar.keep(weights)
    for room in (of_keys, of_values):
        scalar.keep(room)
    for matrix in (scores, found):
        scalar.keep(matrix)
    for column in (factors, ones):
        scalar.keep(column)


@njit(**SERIAL)
def attend_laid(qkv, row, seen, head, scale, out):
    """See spans.attend_laid; qkv are a bfloat16's 16 bits, and what follows the queries is keys."""
    tokens, width = qkv.shape[1], qkv.shape[2]
    heads, (start, length), (first, stop) = qkv.shape[0] // 3, row, seen
    if first >= stop:
        return
    numbers = qkv.reshape(-1)
    at, part = (head * tokens + start) * width, heads * tokens * width
    attend_head(
        qkv[head], (first, 0), stop - first, length, False, numbers, numbers,
        (at + part, at + 2 * part, width, length, width), scale, out, (first, head * width),
    )  # fmt: skip


@njit(**PARALLEL)
def attend_rows(qkv, starts, lengths, heads, scale, threads, out):
    """See spans.attend_rows."""
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
                qkv, (start, first), length, length, False, numbers, numbers,
                (at + all_width, at + 2 * all_width, qkv.shape[1], length, width), scale, out, (start, first),
            )  # fmt: skip
            task = take(counter.ctypes.data)
    scalar.keep(counter)


@njit(**SERIAL)
def store_head(qkv, span, head, keys, values):
    """spans.store_head, rounded by the processor."""
    first, slot, start, count = span[0], span[1], span[2], span[3]
    positions, heads, width = keys.shape[1], keys.shape[2], keys.shape[3]
    source, to, apart = qkv.reshape(-1), ((slot * positions + start) * heads + head) * width, heads * width
    key = first * 3 * apart + apart + head * width
    lay(source, key, 3 * apart, count, width, keys.reshape(-1), to, apart)
    lay(source, key + apart, 3 * apart, count, width, values.reshape(-1), to, apart)


@njit(**SERIAL)
def attend_span(qkv, span, seen, head, keys, values, scale, out):
    """See spans.attend_span; keys and values are a bfloat16's 16 bits."""
    store_head(qkv, span, head, keys, values)
    heads, width = keys.shape[2], keys.shape[3]
    slot, (first, stop) = span[1], seen
    if first >= stop:
        return
    before = span[2] - span[0]
    at = (slot * keys.shape[1] * heads + head) * width
    attend_head(
        qkv, (first, head * width), stop - first, before + first + 1, True, keys.reshape(-1), values.reshape(-1),
        (at, at, heads * width, before + stop, width), scale, out, (first, head * width),
    )  # fmt: skip


@njit(**PARALLEL)
def attend_spans(qkv, spans, keys, values, scale, threads, out):
    """See spans.attend_spans; keys and values are a bfloat16's 16 bits."""
    heads = keys.shape[2]
    counter = np.zeros(1, np.int64)
    for _ in prange(threads):
        task = take(counter.ctypes.data)
        while task < spans.shape[0] * heads:
            span = spans[task // heads]
            attend_span(qkv, span, (span[0], span[0] + span[3]), task % heads, keys, values, scale, out)
            task = take(counter.ctypes.data)
    scalar.keep(counter)

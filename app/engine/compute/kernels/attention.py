"""Attention of single queries against a slot cache, each row over its own length: the cache is read once, in place.

A row's positions are cut into parts, each with a softmax of its own, and the parts' results are merged (Dao et al.
2023, "Flash-Decoding"), so that several threads can read one row. Where the cuts are, the row's length alone decides:
with what others it is computed changes no bit.
"""

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from app.engine.compute.kernels import HAS_BF16_512, heads, scalar
from app.engine.compute.kernels.halves import lay
from app.engine.compute.kernels.heads import BLOCK, WIDTHS
from app.engine.compute.kernels.heads_bf16 import add_sums, dots_pairs, sums_pairs
from app.engine.compute.kernels.linear import PARALLEL, SERIAL
from app.engine.compute.kernels.spans import weigh
from app.engine.compute.kernels.spans_bf16 import weigh_near
from app.engine.compute.kernels.sums import ORDERED, total
from app.engine.compute.kernels.tasks import count_done, take

PART = 128
"""Positions of a part at most."""
WHOLE = 64
"""Positions of a row that is not cut: one thread reads them sooner than two have merged what they read."""
STEP = 16
"""A part's positions are a multiple of this, but for the last one's."""
AHEAD_BYTES = 12288
"""How far in front of what is read the cache is fetched: half of it is too late, more brings nothing."""
ROW, START, STOP = range(3)


@njit(**SERIAL)
def size_of_part(length):
    """Positions of each part of a row but the last: two parts at least, where that is worth a merging."""
    parts = max(2 if length > WHOLE else 1, (length + PART - 1) // PART)
    return (length + parts * STEP - 1) // (parts * STEP) * STEP


@njit(**SERIAL)
def cut(lengths):
    """Rows of these lengths in parts → (parts, 3): the row, and its positions from START to STOP; row by row."""
    count = 0
    for length in lengths:
        size = size_of_part(length)
        count += (length + size - 1) // size
    parts, place = np.empty((count, 3), np.int64), 0
    for row in range(lengths.size):
        size = size_of_part(lengths[row])
        for start in range(0, lengths[row], size):
            parts[place, ROW], parts[place, START] = row, start
            parts[place, STOP] = min(start + size, lengths[row])
            place += 1
    return parts


@njit(**SERIAL)
def begins_of(parts, rows):
    """The place of each row's first part, and how many parts there are: (rows + 1,)."""
    begins = np.zeros(rows + 1, np.int64)
    for place in range(parts.shape[0]):
        begins[parts[place, ROW] + 1] = place + 1
    return begins


@njit(**SERIAL)
def store_row(packed, offset, keys, values):
    """Write the heads in columns `offset` … of packed (columns,), all keys and then all values, to their places.

    keys, values (heads * width,).
    """
    for place in range(keys.size):
        keys[place] = scalar.stored(packed[offset + place], keys[place])
        values[place] = scalar.stored(packed[offset + keys.size + place], values[place])


@njit(**SERIAL)
def store(packed, offset, tokens, slots, positions, keys, values):
    """store_row of each of `tokens` (indices into the batch), to its slot and position; all but tokens (batch, …).

    keys, values (slots, positions, heads, width).
    """
    for token in tokens:
        slot, position = slots[token], positions[token]
        store_row(packed[token], offset, keys[slot, position].reshape(-1), values[slot, position].reshape(-1))


@njit(**ORDERED)
def attend_plainly(query, keys, values, start, stop, scale, sums, found):
    """attend_part for heads of any width."""
    count, width = keys.shape[1], keys.shape[2]
    scores, products, totals = np.empty(stop - start, np.float32), np.empty(width, np.float32), np.empty_like(sums)
    totals[:] = np.float32(0.0)
    for head in range(count):
        first = head * width
        for position in range(start, stop):
            for place in range(width):
                products[place] = query[first + place] * scalar.number(keys[position, head, place])
            scores[position - start] = total(products)
        found[0, head], found[1, head] = weigh(scores, scale)
        for position in range(start, stop):
            for place in range(width):
                totals[first + place] += scores[position - start] * scalar.number(values[position, head, place])
    sums[:] = totals


@njit(**SERIAL)
def ahead_of(place, last, following):
    """The address AHEAD_BYTES after `place`: of what lies up to `last`, and then of what is read next."""
    ahead = place + AHEAD_BYTES
    return ahead if ahead < last else following + ahead - last


def has_pairs(keys: types.Array) -> bool:
    """Whether heads_bf16.py reads a cache of this type."""
    return HAS_BF16_512 and not isinstance(keys.dtype, types.Float)


@njit(**SERIAL)
def whole(query, width):
    """The first `width` numbers of a query, in fp32 as they are."""
    return query[:width]


@njit(**SERIAL)
def rounded(query, width):
    """The first `width` numbers of a query in bfloat16."""
    found = np.empty(width, np.uint16)
    lay(query, 0, width, 1, width, found, 0, width)
    return found


@njit(**SERIAL)
def weigh_whole(scores, scale, _weights):
    """spans.weigh, of scores that are their own room for the weights."""
    return weigh(scores, scale)


@njit(**SERIAL)
def same(scores):
    """Room for weights in fp32."""
    return scores


@njit(**SERIAL)
def halves(scores):
    """Room for weights in bfloat16, with a 0 behind an odd number of them."""
    return np.zeros(scores.shape, np.uint16)


def attend_blocks(query, keys, values, start, stop, scale, sums, found):
    """attend_part for heads of one of WIDTHS; add_part reads the sums."""
    raise NotImplementedError


@overload(attend_blocks)
def _attend_blocks(query, keys, values, start, stop, scale, sums, found):
    if has_pairs(keys):
        ask, dots, room, weigh_some, add = rounded, dots_pairs, halves, weigh_near, sums_pairs
    else:
        is_fp32 = isinstance(keys.dtype, types.Float)
        dots, add = (heads.dots_fp32, heads.sums_fp32) if is_fp32 else (heads.dots_bf16, heads.sums_bf16)
        ask, room, weigh_some = whole, same, weigh_whole

    def attend(query, keys, values, start, stop, scale, sums, found):
        count, width, row = keys.shape[1], keys.shape[2], keys.strides[0]
        length = (stop - start + BLOCK - 1) // BLOCK * BLOCK
        asked, totals = ask(query, count * width), np.zeros(count * width, np.float32)
        scores = np.empty((count, length), np.float32)
        weights = room(scores)
        keys_at, keys_end = keys.ctypes.data + start * row, keys.ctypes.data + stop * row
        values_at, values_end = values.ctypes.data + start * row, values.ctypes.data + stop * row
        for first in range(0, stop - start, BLOCK):
            place, target = keys_at + first * row, scores.ctypes.data + 4 * first
            dots(width, asked.ctypes.data, place, count, target, 4 * length, ahead_of(place, keys_end, values_at))
        for head in range(count):
            seen = scores[head, : stop - start]
            found[0, head], found[1, head] = weigh_some(seen, scale, weights[head])
        for first in range(0, stop - start, BLOCK):
            place, few = values_at + first * row, min(BLOCK, stop - start - first)
            weights_at, apart = weights.ctypes.data + weights.itemsize * first, weights.itemsize * length
            ahead = ahead_of(place, values_end, keys_end)
            add(width, weights_at, apart, place, count, few, totals.ctypes.data, ahead)
        sums[:] = totals
        scalar.keep(asked)
        scalar.keep(scores)
        scalar.keep(weights)

    return attend


@njit(**SERIAL)
def attend_part(query, keys, values, start, stop, scale, sums, found):
    """One query of each head against the positions start … stop of a slot.

    query (…) holds the heads first; keys, values (positions, heads, width), of which a whole BLOCK is read; → sums
    (heads * width,), of the values by their weights; found (2, heads): the largest score, and the sum of the weights,
    which are exp(scale * (score - largest)). Each of their places is written once: two may do the same at a time.
    """
    if is_wide(keys.shape[2]):
        attend_blocks(query, keys, values, start, stop, scale, sums, found)
    else:
        attend_plainly(query, keys, values, start, stop, scale, sums, found)


@njit(**SERIAL)
def is_wide(width):
    """Whether heads.py has a kernel for heads of this width."""
    return width in WIDTHS


def add_part(keys, width, sums, factors, out):
    """out (heads * width,) += factors (heads,) times the sums of attend_part, which `keys` were read for."""
    raise NotImplementedError


@overload(add_part)
def _add_part(keys, width, sums, factors, out):
    are_pairs = has_pairs(keys)

    def add(keys, width, sums, factors, out):
        if are_pairs and is_wide(width):
            add_sums(width, sums.ctypes.data, factors.size, factors.ctypes.data, out.ctypes.data)
            return
        for head in range(factors.size):
            for place in range(head * width, (head + 1) * width):
                out[place] += factors[head] * sums[place]

    return add


@njit(**ORDERED)
def merge(keys, sums, found, scale, out):
    """What attend_part found for each part of a row, sums (parts, heads * width) and found (parts, 2, heads), → out."""
    parts, count = sums.shape[0], found.shape[2]
    factors = np.empty((parts, count), np.float32)
    for head in range(count):
        largest, weight = found[0, 0, head], np.float32(0.0)
        for part in range(1, parts):
            largest = max(largest, found[part, 0, head])
        for part in range(parts):
            factors[part, head] = scalar.exp((found[part, 0, head] - largest) * scale)
            weight += factors[part, head] * found[part, 1, head]
        for part in range(parts):
            factors[part, head] /= weight
    merged = np.zeros(out.size, np.float32)
    for part in range(parts):
        add_part(keys, out.size // count, sums[part], factors[part], merged)
    out[:] = merged
    scalar.keep(factors)


@njit(**PARALLEL)
def attend(tokens, queries, slots, lengths, keys, values, scale, threads, out):
    """Each of `tokens` (indices into the batch) against the first `lengths` positions of its slot.

    queries (batch, …) holds the heads in its first columns; slots, lengths (batch,); keys, values (slots, positions,
    heads, width), fp32 or a bfloat16's 16 bits; out (batch, heads * width).
    """
    parts = cut(lengths[tokens])
    begins = begins_of(parts, tokens.size)
    sums = np.empty((parts.shape[0], out.shape[1]), np.float32)
    found = np.empty((parts.shape[0], 2, keys.shape[2]), np.float32)
    counter, finished = np.zeros(1, np.int64), np.zeros(tokens.size, np.int64)
    for _ in prange(threads):
        task = take(counter.ctypes.data)
        while task < parts.shape[0]:
            row = parts[task, ROW]
            token = tokens[row]
            slot, begin, end = slots[token], begins[row], begins[row + 1]
            attend_part(
                queries[token], keys[slot], values[slot], parts[task, START], parts[task, STOP], scale, sums[task],
                found[task],
            )  # fmt: skip
            if count_done(finished[row:].ctypes.data) == end - begin - 1:
                merge(keys, sums[begin:end], found[begin:end], scale, out[token])
            task = take(counter.ctypes.data)
    scalar.keep(counter)

"""All int8 layers of a decoder over packed tokens, prompts' and single ones, in which the threads never meet.

See encoder.py: tiles are its tasks, with the norms before what they are for, and so are the heads of a prompt; a single
token is one task more. Of the last layer only what is wanted is computed, and what the cache keeps. The steps are
tiles.py's, spans.py's, attention.py's and rows.py's: a row gets the same bits.
"""

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from app.engine.compute.kernels import HAS_BF16_512, scalar, spans, spans_bf16
from app.engine.compute.kernels.attention import START, STOP, attend_part, cut, merge, store_row
from app.engine.compute.kernels.encoder import (
    COUNTER_WORDS,
    DOWN,
    OUT,
    QKV,
    UP,
    apply,
    covers_of,
    gather,
    normalise_rows,
    project_qkv,
    whole_of,
)
from app.engine.compute.kernels.linear import PARALLEL, SERIAL
from app.engine.compute.kernels.tasks import await_done, count_done, take
from app.engine.compute.kernels.tiles import ROWS_OF_TILE, edge, room_of, tiles_of


def attend_span(qkv, span, seen, head, keys, values, scale, out):
    """spans.attend_span, or spans_bf16's where it reads this kind of cache."""
    raise NotImplementedError


@overload(attend_span)
def _attend_span(qkv, span, seen, head, keys, values, scale, out):
    if HAS_BF16_512 and not isinstance(keys.dtype, types.Float):
        return lambda qkv, span, seen, head, keys, values, scale, out: spans_bf16.attend_span(
            qkv, span, seen, head, keys, values, scale, out
        )
    return lambda qkv, span, seen, head, keys, values, scale, out: spans.attend_span(
        qkv, span, seen, head, keys, values, scale, out
    )


@njit(**SERIAL)
def attend_single(qkv, keys, values, position, scale, out):
    """One token, qkv (3 * heads * width,), against its slot's keys and values (positions, heads, width) and its own."""
    store_row(qkv, out.size, keys[position].reshape(-1), values[position].reshape(-1))
    parts = cut(np.full(1, position + 1, np.int64))
    count = parts.shape[0]
    sums, found = np.empty((count, out.size), np.float32), np.empty((count, 2, keys.shape[1]), np.float32)
    for part in range(count):
        attend_part(qkv, keys, values, parts[part, START], parts[part, STOP], scale, sums[part], found[part])
    merge(keys, sums, found, scale, out)


@njit(**SERIAL)
def begin_tile(x, weights, norms, epsilon, covers, room, first, qkv):
    """What precedes attention: queries, keys and values of norm(x), x (rows, width), see encoder.project_qkv."""
    buffers, _, all_normed, _ = room
    normed = all_normed[: x.shape[0]]
    normalise_rows(x, norms[0], norms[1], epsilon, normed)
    project_qkv(normed, weights[QKV], covers, first, buffers, qkv)


@njit(**SERIAL)
def finish_tile(read, weights, norms, epsilon, activation, room, x):
    """What follows attention: h = out(read) + x, then down(act(up(norm(h)))) + h, in place of x (rows, width)."""
    rows, inner = x.shape[0], weights[UP, 4]
    buffers, all_summed, all_normed, flat = room
    summed, normed, wide = all_summed[:rows], all_normed[:rows], flat[: rows * inner].reshape(rows, inner)
    apply(read, weights[OUT], buffers, 0, x, summed)
    normalise_rows(summed, norms[2], norms[3], epsilon, normed)
    apply(normed, weights[UP], buffers, activation, np.empty((rows, 0), np.float32), wide)
    apply(wide, weights[DOWN], buffers, 0, summed, x)


@njit(**SERIAL)
def await_readers(start, stop, readers, layer):
    """Until those who read the tokens start … stop - 1 are through so many layers."""
    starts, lengths, tasks, readers_done = readers
    for reader in range(starts.size):
        if starts[reader] < stop and start < starts[reader] + lengths[reader]:
            await_done(readers_done[reader].ctypes.data, tasks[reader] * layer)


@njit(**SERIAL)
def take_tile(layer, tile, of_tiles, readers, covers, model, room, shared):
    """One task: the tile's end of the layer before `layer`, if there is one, then its start of `layer`.

    of_tiles: how many there are, and their counters; readers: see read, with their counters; covers: see
    encoder.project_qkv.
    """
    x, qkv, attended = shared
    tiles, tiles_done = of_tiles
    weights, norms, epsilon, activation, _ = model
    start, stop = edge(tile, tiles, x.shape[0]), edge(tile + 1, tiles, x.shape[0])
    if layer:
        await_readers(start, stop, readers, layer)
        before = layer - 1
        finish_tile(attended[start:stop], weights[before], norms[before], epsilon, activation, room, x[start:stop])
    begin_tile(x[start:stop], weights[layer], norms[layer], epsilon, covers, room, start, qkv[start:stop])
    count_done(tiles_done[tile].ctypes.data)


@njit(**SERIAL)
def take_last(tile, tiles, wanted, readers, model, room, shared, out):
    """One task: the end of the last layer and the last norm, of a tile of the tokens that are wanted."""
    x, _, attended = shared
    weights, norms, epsilon, activation, _ = model
    start, stop = edge(tile, tiles, wanted.size), edge(tile + 1, tiles, wanted.size)
    if start == stop:
        return
    layer, some = weights.shape[0], wanted[start:stop]
    await_readers(some[0], some[-1] + 1, readers, layer)
    both = np.empty((2, some.size, x.shape[1]), np.float32)
    gather(x, some, both[0])
    gather(attended, some, both[1])
    last = layer - 1
    finish_tile(both[1], weights[last], norms[last], epsilon, activation, room, both[0])
    normalise_rows(both[0], norms[layer, 0], norms[layer, 1], epsilon, out[start:stop])


@njit(**SERIAL)
def take_reader(layer, task, of_tiles, readers, covers, places, cache, scale, shared):
    """One task: a head of a prompt or, behind those, a single token, once the tiles that hold its tokens are there.

    covers (readers, 2): of each the first token that attends, and the last + 1.
    """
    x, qkv, attended = shared
    tiles, tiles_done = of_tiles
    starts, lengths, _, readers_done = readers
    prompts, slots, positions = places
    keys, values = cache
    heads = keys.shape[2]
    of_prompts = prompts.shape[0] * heads
    reader = task // heads if task < of_prompts else prompts.shape[0] + task - of_prompts
    start, stop = starts[reader], starts[reader] + lengths[reader]
    for tile in range(tiles):
        if edge(tile, tiles, x.shape[0]) < stop and start < edge(tile + 1, tiles, x.shape[0]):
            await_done(tiles_done[tile].ctypes.data, layer + 1)
    if task < of_prompts:
        seen = covers[reader, 0], covers[reader, 1]
        attend_span(qkv, prompts[reader], seen, task % heads, keys, values, scale, attended)
    else:
        slot = slots[start]
        attend_single(qkv[start], keys[slot], values[slot], positions[start], scale, attended[start])
    count_done(readers_done[reader].ctypes.data)


@njit(**PARALLEL)
def read(
    x, prompts, singles, wanted, slots, positions, weights, norms, epsilon, activation, scales, keys, values, threads,
    out,
):  # fmt: skip
    """Pre-norm layers over x (tokens, width), which is written to, and the last norm → out (wanted, width).

    prompts (prompts, 4): see spans.attend_spans; singles: indices of the other tokens, each its row's only one; wanted:
    indices of the tokens that anybody reads, in order, all singles among them; slots, positions (tokens,); the rest as
    decoder.step takes it.
    """
    tokens, width = x.shape
    heads, inner = keys.shape[3], weights[0, UP, 4]
    starts = np.concatenate((prompts[:, 0], singles))
    lengths = np.concatenate((prompts[:, 3], np.ones(singles.size, np.int64)))
    tasks = np.concatenate((np.full(prompts.shape[0], heads, np.int64), np.ones(singles.size, np.int64)))
    layers, tiles, of_readers = weights.shape[0], tiles_of(tokens, threads), tasks.sum()
    qkv, attended = np.empty((tokens, 3 * width), np.float32), np.empty((tokens, width), np.float32)
    tiles_done = np.zeros((tiles, COUNTER_WORDS), np.int64)
    readers_done = np.zeros((starts.size, COUNTER_WORDS), np.int64)
    shared, of_tiles, readers = (x, qkv, attended), (tiles, tiles_done), (starts, lengths, tasks, readers_done)
    everything, covers = np.array([[0, tokens]]), covers_of(wanted, starts, lengths)
    whole, last_tiles = whole_of(starts, lengths), tiles_of(wanted.size, threads)
    model, places = (weights, norms, epsilon, activation, scales), (prompts, slots, positions)
    counter = np.zeros(1, np.int64)
    for _ in prange(threads):
        summed, normed = np.empty((ROWS_OF_TILE, width), np.float32), np.empty((ROWS_OF_TILE, width), np.float32)
        flat = np.empty(ROWS_OF_TILE * inner, np.float32)
        room = room_of(max(width, inner)), summed, normed, flat
        number = take(counter.ctypes.data)
        while number < layers * (tiles + of_readers) + last_tiles:
            layer, task = number // (tiles + of_readers), number % (tiles + of_readers)
            is_last = layer == layers - 1
            if layer == layers:
                take_last(task, last_tiles, wanted, readers, model, room, shared, out)
            elif task < tiles:
                take_tile(layer, task, of_tiles, readers, covers if is_last else everything, model, room, shared)
            else:
                cache = keys[layer], values[layer]
                seen = covers if is_last else whole
                take_reader(layer, task - tiles, of_tiles, readers, seen, places, cache, scales[layer], shared)
            number = take(counter.ctypes.data)
    scalar.keep(counter)
    for held in (qkv, attended):
        scalar.keep(held)
    for counters in (tiles_done, readers_done):
        scalar.keep(counters)

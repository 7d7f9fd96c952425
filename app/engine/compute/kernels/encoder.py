"""All int8 layers of an encoder over packed rows of tokens, in which the threads never meet.

A task is a tile of rows, from the end of one layer's attention to the queries, keys and values of the next, or a head
of one row's attention. Threads take tasks in their order and wait only for those that a task reads from: these are done
or in another thread's hands, and so the next layer begins at one end while the last one is finished at the other. Of
the last layer only what is wanted of it is computed. The steps are tiles.py's, spans.py's and rows.py's: a row gets the
same bits as from them.
"""

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from app.engine.compute.kernels import scalar, spans, spans_bf16
from app.engine.compute.kernels.halves import lay
from app.engine.compute.kernels.linear import PARALLEL, SERIAL, pass_panels
from app.engine.compute.kernels.rows import normalise_row
from app.engine.compute.kernels.tasks import await_done, count_done, take
from app.engine.compute.kernels.tiles import ROWS_OF_TILE, edge, project, read_rows, room_of, tiles_of
from app.engine.compute.kernels.vectors import PANEL

QKV, OUT, UP, DOWN = 0, 1, 2, 3
"""Where a layer's four linear layers stand in `weights`."""
COUNTER_WORDS = 8
"""Counters lie in cache lines of their own."""


def attend_laid(qkv, row, seen, head, scale, out):
    """spans.attend_laid, or spans_bf16's when the elements of qkv are 16 bits of a bfloat16."""
    raise NotImplementedError


@overload(attend_laid)
def _attend_laid(qkv, row, seen, head, scale, out):
    if isinstance(qkv.dtype, types.Float):
        return lambda qkv, row, seen, head, scale, out: spans.attend_laid(qkv, row, seen, head, scale, out)
    return lambda qkv, row, seen, head, scale, out: spans_bf16.attend_laid(qkv, row, seen, head, scale, out)


@njit(**SERIAL)
def whole_of(starts, lengths):
    """The tokens of each row → (rows, 2): the first, and the last + 1."""
    return np.stack((starts, starts + lengths), 1)


@njit(**SERIAL)
def covers_of(wanted, starts, lengths):
    """The tokens of each row from the first that is wanted to the last → (rows, 2): the first, and the last + 1.

    wanted (…,) are in order; nothing of a row lies between 0 and 0.
    """
    covers = np.zeros((starts.size, 2), np.int64)
    for row in range(starts.size):
        low = np.searchsorted(wanted, starts[row])
        high = np.searchsorted(wanted, starts[row] + lengths[row])
        if low < high:
            covers[row, 0], covers[row, 1] = wanted[low], wanted[high - 1] + 1
    return covers


@njit(**SERIAL)
def gather(x, places, out):
    """These rows of x → out."""
    for place in range(places.size):
        row = x[places[place]]
        for column in range(row.size):
            out[place, column] = row[column]


@njit(**SERIAL)
def normalise_rows(x, weight, bias, epsilon, out):
    """Layer norm of every row."""
    for row in range(x.shape[0]):
        normalise_row(x[row], weight, bias, epsilon, out[row])


@njit(**SERIAL)
def apply(x, weights, buffers, activation, added, out):
    """A linear layer for a tile.

    weights (6,) are where its panels, scales, sums and bias lie, how many outputs it has, and whether it mixes.
    """
    addresses, panels = (weights[0], weights[1], weights[2], weights[3]), (weights[4] + PANEL - 1) // PANEL
    project(x, weights[5] != 0, addresses, panels, buffers, activation, added, out)


@njit(**SERIAL)
def project_qkv(x, weights, covers, first, buffers, out):
    """Keys and values of x (rows, width), which are the tokens from `first` on, and queries of those that covers hold.

    Columns of out (rows, 3 * width) that nobody asked for are left as they are. covers (covers, 2): the first token and
    the last + 1.
    """
    rows, width = x.shape
    addresses, nothing = (weights[0], weights[1], weights[2], weights[3]), np.empty((rows, 0), np.float32)
    of_queries, panels = width // PANEL, (weights[4] + PANEL - 1) // PANEL
    left, of_rows = read_rows(x, weights[5] != 0, buffers)
    pass_panels(True, (0, rows, of_queries, panels), width, left, of_rows, addresses, 0, nothing, out)
    start = stop = 0
    for cover in range(covers.shape[0]):
        low, high = max(covers[cover, 0] - first, 0), min(covers[cover, 1] - first, rows)
        if low < high:
            if low != stop:
                pass_panels(True, (start, stop, 0, of_queries), width, left, of_rows, addresses, 0, nothing, out)
                start = low
            stop = high
    pass_panels(True, (start, stop, 0, of_queries), width, left, of_rows, addresses, 0, nothing, out)


@njit(**SERIAL)
def begin_tile(x, weights, covers, room, first, qkv):
    """What precedes attention: see project_qkv."""
    rows, width = x.shape
    buffers, _, _, flat = room
    found = flat[: rows * 3 * width].reshape(rows, 3 * width)
    project_qkv(x, weights[QKV], covers, first, buffers, found)
    heads, tokens, of_head = qkv.shape
    for head in range(heads):
        at, to = head * of_head, (head * tokens + first) * of_head
        lay(found.reshape(-1), at, 3 * width, rows, of_head, qkv.reshape(-1), to, of_head)


@njit(**SERIAL)
def finish_tile(read, weights, norms, epsilons, activation, room, x, out):
    """What follows attention: h = norm(out(read) + x), then norm(down(act(up(h))) + h) → out (rows, width), or x."""
    rows, inner = x.shape[0], weights[UP, 4]
    buffers, all_summed, all_normed, flat = room
    summed, normed, wide = all_summed[:rows], all_normed[:rows], flat[: rows * inner].reshape(rows, inner)
    nothing = np.empty((rows, 0), np.float32)
    apply(read, weights[OUT], buffers, 0, x, summed)
    normalise_rows(summed, norms[0], norms[1], epsilons[0], normed)
    apply(normed, weights[UP], buffers, activation, nothing, wide)
    apply(wide, weights[DOWN], buffers, 0, normed, summed)
    normalise_rows(summed, norms[2], norms[3], epsilons[1], out)


@njit(**SERIAL)
def await_rows(start, stop, read_by, layer):
    """Until the heads of the rows that hold the tokens start … stop - 1 are through so many layers."""
    starts, lengths, heads_done, heads = read_by
    for row in range(starts.size):
        if starts[row] < stop and start < starts[row] + lengths[row]:
            await_done(heads_done[row].ctypes.data, heads * layer)


@njit(**SERIAL)
def take_tile(layer, tile, of_tiles, read_by, covers, model, room, shared):
    """One task: the tile's end of the layer before `layer`, if there is one, then its start of `layer`.

    of_tiles: how many there are, and their counters; read_by: starts and lengths of the rows, the counters of their
    heads, and how many heads a layer has; covers: see project_qkv.
    """
    x, qkv, read = shared
    tiles, tiles_done = of_tiles
    weights, norms, epsilons, activation = model
    start, stop = edge(tile, tiles, x.shape[0]), edge(tile + 1, tiles, x.shape[0])
    some = x[start:stop]
    if layer:
        await_rows(start, stop, read_by, layer)
        before = layer - 1
        finish_tile(read[start:stop], weights[before], norms[before], epsilons, activation, room, some, some)
    begin_tile(some, weights[layer], covers, room, start, qkv)
    count_done(tiles_done[tile].ctypes.data)


@njit(**SERIAL)
def take_last(tile, tiles, wanted, read_by, model, room, shared, out):
    """One task: the end of the last layer, of a tile of the tokens that are wanted."""
    x, _, read = shared
    weights, norms, epsilons, activation = model
    start, stop = edge(tile, tiles, wanted.size), edge(tile + 1, tiles, wanted.size)
    if start == stop:
        return
    layer, some = weights.shape[0], wanted[start:stop]
    await_rows(some[0], some[-1] + 1, read_by, layer)
    both = np.empty((2, some.size, x.shape[1]), np.float32)
    gather(x, some, both[0])
    gather(read, some, both[1])
    last = layer - 1
    finish_tile(both[1], weights[last], norms[last], epsilons, activation, room, both[0], out[start:stop])


@njit(**SERIAL)
def take_head(layer, task, of_tiles, read_by, covers, scale, shared):
    """One task: the head `task % heads` of the row `task // heads`, once the tiles that hold the row are there.

    covers (rows, 2): the first token that attends, and the last + 1.
    """
    x, qkv, read = shared
    tiles, tiles_done = of_tiles
    starts, lengths, heads_done, heads = read_by
    row = task // heads
    start, stop = starts[row], starts[row] + lengths[row]
    for tile in range(tiles):
        if edge(tile, tiles, x.shape[0]) < stop and start < edge(tile + 1, tiles, x.shape[0]):
            await_done(tiles_done[tile].ctypes.data, layer + 1)
    attend_laid(qkv, (start, lengths[row]), (covers[row, 0], covers[row, 1]), task % heads, scale, read)
    count_done(heads_done[row].ctypes.data)


@njit(**PARALLEL)
def encode(x, starts, lengths, wanted, weights, norms, epsilons, activation, scale, qkv, threads, out):
    """Post-norm layers over x (tokens, width), which is written to → out (wanted, width).

    starts, lengths (rows,) in tokens; wanted: the tokens that anybody reads, in order; weights (layers, 4, 6): see
    apply, in the order QKV, OUT, UP, DOWN; norms (layers, 4, width): weight and bias of the norm after attention, and
    of the last one; epsilons (2,) of both; qkv: room for a layer's queries, keys and values, see spans.attend_laid.
    """
    tokens, width = x.shape
    heads, inner = qkv.shape[0] // 3, weights[0, UP, 4]
    layers, tiles, attended = weights.shape[0], tiles_of(tokens, threads), starts.size * heads
    read, last_tiles = np.empty((tokens, width), np.float32), tiles_of(wanted.size, threads)
    tiles_done = np.zeros((tiles, COUNTER_WORDS), np.int64)
    heads_done = np.zeros((starts.size, COUNTER_WORDS), np.int64)
    shared, of_tiles, read_by = (x, qkv, read), (tiles, tiles_done), (starts, lengths, heads_done, heads)
    everything, covers = np.array([[0, tokens]]), covers_of(wanted, starts, lengths)
    whole = whole_of(starts, lengths)
    model = weights, norms, epsilons, activation
    counter = np.zeros(1, np.int64)
    for _ in prange(threads):
        summed, normed = np.empty((ROWS_OF_TILE, width), np.float32), np.empty((ROWS_OF_TILE, width), np.float32)
        flat = np.empty(ROWS_OF_TILE * max(3 * width, inner), np.float32)
        room = room_of(max(width, inner)), summed, normed, flat
        number = take(counter.ctypes.data)
        while number < layers * (tiles + attended) + last_tiles:
            layer, task = number // (tiles + attended), number % (tiles + attended)
            is_last = layer == layers - 1
            if layer == layers:
                take_last(task, last_tiles, wanted, read_by, model, room, shared, out)
            elif task < tiles:
                take_tile(layer, task, of_tiles, read_by, covers if is_last else everything, model, room, shared)
            else:
                take_head(layer, task - tiles, of_tiles, read_by, covers if is_last else whole, scale, shared)
            number = take(counter.ctypes.data)
    scalar.keep(counter)
    scalar.keep(read)
    for held in (tiles_done, heads_done):
        scalar.keep(held)

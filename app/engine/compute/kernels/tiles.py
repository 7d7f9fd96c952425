"""What follows attention in an encoder's int8 layer, for one tile of rows after another.

A tile's numbers stay in the second cache of the core that computes it from the first product to the last norm, and the
threads meet once a layer instead of eight times. The steps are linear.py's and rows.py's: a row gets the same bits.
"""

import numpy as np
from numba import njit, prange

from app.engine.compute.kernels import scalar
from app.engine.compute.kernels.linear import PARALLEL, SERIAL, TILE_ROWS, pass_panels, quantise_row
from app.engine.compute.kernels.rows import normalise_row
from app.engine.compute.kernels.tasks import take

WHOLE_CALLS = 4
"""Tiles start at multiples of this many rows: no call of the product takes fewer, but the last."""
ROWS_OF_TILE = TILE_ROWS + WHOLE_CALLS
"""More than any tile has."""


@njit(**SERIAL)
def edge(tile, tiles, rows):
    """Where the tile of this number begins."""
    return min(rows, tile * rows // tiles // WHOLE_CALLS * WHOLE_CALLS) if tile < tiles else rows


@njit(**SERIAL)
def project(x, layer, buffers, activation, added, out):
    """x (rows, inputs) quantised, times the weights of layer (panels, scales, sums, bias), as linear_int8 does it."""
    panels, weight_scales, weight_sums, bias = layer
    held, scales, zeros = buffers
    rows, inputs = x.shape
    quantised = held[: rows * inputs].reshape(rows, inputs)
    for row in range(rows):
        scales[row], zeros[row] = quantise_row(x[row], quantised[row])
    weights = (panels.ctypes.data, weight_scales.ctypes.data, weight_sums.ctypes.data, bias.ctypes.data)
    of_rows = (scales.ctypes.data, zeros.ctypes.data)
    span = (0, rows, 0, panels.shape[0])
    pass_panels(True, span, inputs, quantised.ctypes.data, of_rows, weights, activation, added, out)


@njit(**SERIAL)
def normalise_rows(x, weight, bias, epsilon, out):
    """Layer norm of every row."""
    for row in range(x.shape[0]):
        normalise_row(x[row], weight, bias, epsilon, out[row])


@njit(**SERIAL)
def room_of(numbers):
    """What a thread quantises the rows of a tile into: its bytes, scales and zeros."""
    rows = ROWS_OF_TILE
    return np.empty(rows * numbers, np.uint8), np.empty(rows, np.float32), np.empty(rows, np.int32)


@njit(**SERIAL)
def finish_tile(read, x, dense, up, down, norms, epsilons, activation, room, out):
    """finish_layer for the rows of one tile; room: buffers, and (ROWS_OF_TILE, width or inner width) numbers."""
    rows = x.shape[0]
    buffers, all_summed, all_normed, all_wide = room
    summed, normed, wide = all_summed[:rows], all_normed[:rows], all_wide[:rows]
    nothing = np.empty((rows, 0), np.float32)
    project(read, dense, buffers, 0, x, summed)
    normalise_rows(summed, norms[0], norms[1], epsilons[0], normed)
    project(normed, up, buffers, activation, nothing, wide)
    project(wide, down, buffers, 0, normed, summed)
    normalise_rows(summed, norms[2], norms[3], epsilons[1], out)


@njit(**PARALLEL)
def finish_layer(read, x, dense, up, down, norms, epsilons, activation, threads, out):
    """A post-norm layer after its attention: h = norm(read * dense + x), then norm(act(h * up) * down + h).

    read, x, out (rows, width); dense, up, down: (panels, scales, sums, bias) as linear_int8 takes them; norms: weight
    and bias of the first norm and of the second.
    """
    rows, width = x.shape
    inner = down[0].shape[1] * 4
    tiles = (rows + threads * TILE_ROWS - 1) // (threads * TILE_ROWS) * threads
    counter = np.zeros(1, np.int64)
    for _ in prange(threads):
        summed, normed = np.empty((ROWS_OF_TILE, width), np.float32), np.empty((ROWS_OF_TILE, width), np.float32)
        wide = np.empty((ROWS_OF_TILE, inner), np.float32)
        room = room_of(max(width, inner)), summed, normed, wide
        tile = take(counter.ctypes.data)
        while tile < tiles:
            part = slice(edge(tile, tiles, rows), edge(tile + 1, tiles, rows))
            finish_tile(read[part], x[part], dense, up, down, norms, epsilons, activation, room, out[part])
            tile = take(counter.ctypes.data)
    scalar.keep(counter)


@njit(**PARALLEL)
def project_tiles(x, layer, activation, added, threads, out):
    """linear_int8 of x (rows, inputs), quantised on the way."""
    rows, inputs = x.shape
    tiles = (rows + threads * TILE_ROWS - 1) // (threads * TILE_ROWS) * threads
    counter = np.zeros(1, np.int64)
    for _ in prange(threads):
        buffers = room_of(inputs)
        tile = take(counter.ctypes.data)
        while tile < tiles:
            part = slice(edge(tile, tiles, rows), edge(tile + 1, tiles, rows))
            project(x[part], layer, buffers, activation, added[part], out[part])
            tile = take(counter.ctypes.data)
    scalar.keep(counter)

"""What follows attention in an encoder's int8 layer, for one tile of rows after another.

A tile's numbers stay in the second cache of the core that computes it from the first product to the last norm, and the
threads meet once a layer instead of eight times. The steps are linear.py's and rows.py's: a row gets the same bits.
"""

import numpy as np
from numba import njit, prange

from app.engine.compute.kernels.linear import PARALLEL, SERIAL, TILE_ROWS, pass_panels, quantise_row
from app.engine.compute.kernels.rows import normalise_row

WHOLE_CALLS = 4
"""Tiles start at multiples of this many rows: no call of the product takes fewer, but the last."""


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
def finish_tile(read, x, dense, up, down, norms, epsilons, activation, out):
    """finish_layer for the rows of one tile."""
    rows, width = x.shape
    inner = down[0].shape[1] * 4
    buffers = np.empty(rows * max(inner, width), np.uint8), np.empty(rows, np.float32), np.empty(rows, np.int32)
    summed, normed = np.empty((rows, width), np.float32), np.empty((rows, width), np.float32)
    wide, nothing = np.empty((rows, inner), np.float32), np.empty((rows, 0), np.float32)
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
    rows = x.shape[0]
    tiles = (rows + threads * TILE_ROWS - 1) // (threads * TILE_ROWS) * threads
    for tile in prange(tiles):
        part = slice(edge(tile, tiles, rows), edge(tile + 1, tiles, rows))
        finish_tile(read[part], x[part], dense, up, down, norms, epsilons, activation, out[part])


@njit(**PARALLEL)
def project_tiles(x, layer, activation, added, threads, out):
    """linear_int8 of x (rows, inputs), quantised on the way."""
    rows, inputs = x.shape
    tiles = (rows + threads * TILE_ROWS - 1) // (threads * TILE_ROWS) * threads
    for tile in prange(tiles):
        part = slice(edge(tile, tiles, rows), edge(tile + 1, tiles, rows))
        count = part.stop - part.start
        buffers = np.empty(count * inputs, np.uint8), np.empty(count, np.float32), np.empty(count, np.int32)
        project(x[part], layer, buffers, activation, added[part], out[part])

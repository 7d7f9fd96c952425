"""Int8 linear layers for one tile of rows after another: what a tile holds stays in the second cache of its core.

The steps are linear.py's and rows.py's: a row gets the same bits.
"""

import numpy as np
from numba import njit, prange

from app.engine.compute.kernels import scalar
from app.engine.compute.kernels.linear import PARALLEL, SERIAL, TILE_ROWS, pass_panels, read_row
from app.engine.compute.kernels.sixteen import ROOM
from app.engine.compute.kernels.tasks import take

WHOLE_CALLS = 4
"""Tiles start at multiples of this many rows: no call of the product takes fewer, but the last."""
ROWS_OF_TILE = TILE_ROWS + WHOLE_CALLS
"""More than any tile has."""


@njit(**SERIAL)
def tiles_of(rows, threads):
    """Into how many tiles so many rows are cut: as many for each thread."""
    return (rows + threads * TILE_ROWS - 1) // (threads * TILE_ROWS) * threads


@njit(**SERIAL)
def edge(tile, tiles, rows):
    """Where the tile of this number begins."""
    return min(rows, tile * rows // tiles // WHOLE_CALLS * WHOLE_CALLS) if tile < tiles else rows


@njit(**SERIAL)
def room_of(numbers):
    """What a thread quantises the rows of a tile into: its numbers, scales and zeros, and a row that is mixed."""
    rows, mixed = ROWS_OF_TILE, np.empty(numbers, np.float32)
    return np.empty(rows * numbers * ROOM, np.uint8), np.empty(rows, np.float32), np.empty(rows, np.int32), mixed


@njit(**SERIAL)
def read_rows(x, is_mixed, buffers):
    """read_row of every row of x (rows, inputs) → the addresses of the rows, and of their scales and zeros."""
    held, scales, zeros, room = buffers
    rows, inputs = x.shape
    quantised, mixed = held[: rows * inputs * ROOM].reshape(rows, inputs * ROOM), room[:inputs]
    for row in range(rows):
        scales[row], zeros[row] = read_row(x[row], is_mixed, mixed, quantised[row])
    return quantised.ctypes.data, (scales.ctypes.data, zeros.ctypes.data)


@njit(**SERIAL)
def project(x, is_mixed, weights, panels, buffers, activation, added, out):
    """x (rows, inputs) quantised, times so many panels, as linear_int8 does it; weights as pass_panels takes them."""
    left, of_rows = read_rows(x, is_mixed, buffers)
    pass_panels(True, (0, x.shape[0], 0, panels), x.shape[1], left, of_rows, weights, activation, added, out)


@njit(**PARALLEL)
def project_tiles(x, is_mixed, layer, activation, added, threads, out):
    """linear_int8 of x (rows, inputs), quantised on the way."""
    rows, inputs = x.shape
    panels, weight_scales, weight_sums, bias = layer
    weights = (panels.ctypes.data, weight_scales.ctypes.data, weight_sums.ctypes.data, bias.ctypes.data)
    tiles = tiles_of(rows, threads)
    counter = np.zeros(1, np.int64)
    for _ in prange(threads):
        buffers = room_of(inputs)
        tile = take(counter.ctypes.data)
        while tile < tiles:
            part = slice(edge(tile, tiles, rows), edge(tile + 1, tiles, rows))
            project(x[part], is_mixed, weights, panels.shape[0], buffers, activation, added[part], out[part])
            tile = take(counter.ctypes.data)
    scalar.keep(counter)

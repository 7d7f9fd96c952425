"""Linear layers over packed weights: the product, its scales, bias, activation and residual in one pass over the tiles.

Each row is computed by itself, in an order that does not depend on how many rows there are: company never changes a
result.
"""

import numpy as np
from numba import njit, prange

from app.engine.compute.kernels import scalar
from app.engine.compute.kernels.microkernel import PANEL, ROWS_MAX, multiply_fp32, multiply_int8, rows_of_call

PARALLEL = {
    "parallel": True,
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz"},
}
SERIAL = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
TILE_BYTES = 192 * 1024
"""Of the left matrix, so that a tile stays in a core's second cache while the panels pass by."""
WHOLE_ROWS = 16
"""Fewer rows than this are prepared by one thread: waking another costs more than it saves."""
INFINITY_BITS = 0x7F800000


@njit(**SERIAL)
def quantise_row(x, quantised):
    """x (inputs,) → its nearest multiples of a scale in [-127, 127]; returns (scale, sum of the multiples).

    A row that is not finite gets the scale NaN, so that all its results are NaN and the row fails.
    """
    largest_bits = np.int32(0)
    for place in range(x.size):
        bits = scalar.bits_of_float(x[place]) & np.int32(0x7FFFFFFF)
        largest_bits = bits if bits > largest_bits else largest_bits
    if largest_bits >= INFINITY_BITS:
        quantised[:] = 0
        return np.float32(np.nan), np.int32(0)
    largest = scalar.float_of_bits(largest_bits)
    if largest < np.float32(1e-30):
        quantised[:] = 0
        return np.float32(0.0), np.int32(0)
    inverse = np.float32(127.0) / largest
    total = np.int32(0)
    for place in range(x.size):
        multiple = np.int32(scalar.nearest(x[place] * inverse))
        quantised[place] = multiple
        total += multiple
    return largest / np.float32(127.0), total


@njit(**PARALLEL)
def quantise(x, quantised, scales, totals):
    """Every row of x (rows, inputs)."""
    if x.shape[0] < WHOLE_ROWS:
        for row in range(x.shape[0]):
            scales[row], totals[row] = quantise_row(x[row], quantised[row])
    else:
        for row in prange(x.shape[0]):
            scales[row], totals[row] = quantise_row(x[row], quantised[row])


@njit(**SERIAL)
def activate(values, activation):
    """Apply the activation of this number (activations.py) to each of `values`, in place."""
    if activation == 1:
        for place in range(values.size):
            values[place] = scalar.gelu_tanh(values[place])
    elif activation == 2:
        for place in range(values.size):
            values[place] = scalar.gelu(values[place])
    elif activation == 3:
        for place in range(values.size):
            values[place] = values[place] if values[place] > np.float32(0.0) else np.float32(0.0) * values[place]
    elif activation == 4:
        for place in range(values.size):
            values[place] = values[place] / (np.float32(1.0) + scalar.exp(-values[place]))
    elif activation == 5:
        for place in range(values.size):
            values[place] = scalar.tanh(values[place])


@njit(**SERIAL)
def finish(values, bias, activation, added, out):
    """out = activation(values + bias) + added; `added` may be empty."""
    for place in range(out.size):
        values[place] += bias[place]
    if activation:
        activate(values[: out.size], activation)
    if added.size:
        for place in range(out.size):
            out[place] = values[place] + added[place]
    else:
        for place in range(out.size):
            out[place] = values[place]


@njit(**SERIAL)
def tile_rows(rows, row_bytes):
    """Rows of one tile: as few equal tiles as fit the cache, in whole calls of ROWS_MAX rows."""
    tiles = (rows * row_bytes + TILE_BYTES - 1) // TILE_BYTES
    return min(rows, ((rows + tiles - 1) // tiles + ROWS_MAX - 1) // ROWS_MAX * ROWS_MAX)


@njit(**PARALLEL)
def linear_int8(quantised, scales, totals, panels, weight_scales, bias, activation, added, out):
    """Quantised rows times packed int8 weights → fp32.

    quantised (rows, inputs) int8; panels (panels, inputs / 4, PANEL, 4) uint8, weights + 128; weight_scales, bias
    (panels * PANEL,); added (rows, outputs) or (rows, 0); out (rows, outputs).
    """
    rows, inputs = quantised.shape
    outputs, count = out.shape[1], panels.shape[0]
    of_tile = tile_rows(rows, inputs)
    tiles = (rows + of_tile - 1) // of_tile
    for task in prange(tiles * count):
        panel = task % count
        row = task // count * of_tile
        stop = min(rows, row + of_tile)
        sums = np.empty((ROWS_MAX, PANEL), np.int32)
        values = np.empty(PANEL, np.float32)
        first = panel * PANEL
        last = min(outputs, first + PANEL)
        while row < stop:
            taken = rows_of_call(stop - row)
            multiply_int8(
                taken, quantised.ctypes.data + row * inputs, inputs, panels[panel].ctypes.data, inputs // 4,
                sums.ctypes.data, PANEL * 4,
            )  # fmt: skip
            for place in range(taken):
                scale, offset = scales[row + place], np.int32(128) * totals[row + place]
                for column in range(PANEL):
                    values[column] = np.float32(sums[place, column] - offset) * (scale * weight_scales[first + column])
                finish(
                    values, bias[first:last], activation, added[row + place, first : min(last, added.shape[1])],
                    out[row + place, first:last],
                )  # fmt: skip
            row += taken


@njit(**PARALLEL)
def linear_fp32(x, panels, bias, activation, added, out):
    """x (rows, inputs) times packed weights, panels (panels, inputs, PANEL) → out (rows, outputs); all fp32."""
    rows, inputs = x.shape
    outputs, count = out.shape[1], panels.shape[0]
    of_tile = tile_rows(rows, inputs * 4)
    tiles = (rows + of_tile - 1) // of_tile
    for task in prange(tiles * count):
        panel = task % count
        row = task // count * of_tile
        stop = min(rows, row + of_tile)
        sums = np.empty((ROWS_MAX, PANEL), np.float32)
        first = panel * PANEL
        last = min(outputs, first + PANEL)
        while row < stop:
            taken = rows_of_call(stop - row)
            multiply_fp32(
                taken, x.ctypes.data + row * inputs * 4, inputs * 4, panels[panel].ctypes.data, inputs,
                sums.ctypes.data, PANEL * 4,
            )  # fmt: skip
            for place in range(taken):
                finish(
                    sums[place], bias[first:last], activation, added[row + place, first : min(last, added.shape[1])],
                    out[row + place, first:last],
                )  # fmt: skip
            row += taken

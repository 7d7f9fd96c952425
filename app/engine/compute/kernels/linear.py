"""Linear layers over packed weights: the product, its scales, bias, activation and residual in one pass over the tiles.

Each row is computed by itself, in an order that does not depend on how many rows there are: company never changes a
result.
"""

import numpy as np
from numba import njit, prange

from app.engine.compute.kernels import scalar
from app.engine.compute.kernels.microkernel import (
    PANEL,
    ROWS_MAX,
    multiply_fp32,
    multiply_int8,
    rows_of_call,
    store_rows,
)

PARALLEL = {
    "parallel": True,
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz"},
}
SERIAL = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz"}}
TILE_ROWS = 48
"""Rows that a panel passes by before the next one: few, so that what they write lies in few pages."""
GROUP_BYTES = 384 * 1024
"""Of panels, so that a group stays in a core's second cache while the tiles pass by."""
TASKS = 32
"""Enough tasks that the last thread does not work alone for long."""
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
def quantise(x, quantised, scales, offsets):
    """Every row of x (rows, inputs); its offset is what its sums are too large by, as the weights are held + 128."""
    if x.shape[0] < WHOLE_ROWS:
        for row in range(x.shape[0]):
            scales[row], total = quantise_row(x[row], quantised[row])
            offsets[row] = np.int32(128) * total
    else:
        for row in prange(x.shape[0]):
            scales[row], total = quantise_row(x[row], quantised[row])
            offsets[row] = np.int32(128) * total


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
def tile_rows(rows):
    """Rows of one tile: equal tiles of at most TILE_ROWS, in whole calls of ROWS_MAX rows."""
    tiles = (rows + TILE_ROWS - 1) // TILE_ROWS
    return ((rows + tiles - 1) // tiles + ROWS_MAX - 1) // ROWS_MAX * ROWS_MAX


@njit(**SERIAL)
def group_panels(tiles, panels, panel_bytes):
    """Panels that a task passes by its tile, in equal groups.

    As many as stay in a core's second cache, and few enough that there are tasks for all threads.
    """
    if tiles == 1:
        return 1
    most = max(1, min(GROUP_BYTES // panel_bytes, tiles * panels // TASKS))
    groups = (panels + most - 1) // most
    return (panels + groups - 1) // groups


@njit(**SERIAL)
def pass_tile(is_int8, task, shape, left, scales, panels, weight_scales, bias, activation, added, out):
    """One task: the tile of rows `task % tiles` times the panels of the group `task // tiles`.

    shape is (rows, bytes of a row of the left matrix, tiles, rows of a tile, panels, panels of a group); left, panels,
    weight_scales and bias are addresses, scales the addresses of the rows' scales and offsets.
    """
    rows, row_bytes, tiles, of_tile, count, of_group = shape
    start, group = task % tiles * of_tile, task // tiles * of_group
    stop = min(rows, start + of_tile)
    outputs = out.shape[1]
    stride = outputs * 4
    values = np.empty(ROWS_MAX * PANEL, np.float32)
    for panel in range(group, min(count, group + of_group)):
        first = panel * PANEL
        width = min(outputs - first, PANEL)
        row = start
        while row < stop:
            taken = rows_of_call(stop - row)
            target = out.ctypes.data + row * stride + first * 4
            other = added.ctypes.data + row * stride + first * 4 if added.shape[1] else 0
            is_direct = activation == 0 and width == PANEL
            call = (
                left + row * row_bytes, row_bytes, panels + panel * row_bytes * PANEL, row_bytes // 4,
                scales[0] + row * 4, scales[1] + row * 4, weight_scales + first * 4, bias + first * 4,
                other if is_direct else 0, stride,
                target if is_direct else values.ctypes.data, stride if is_direct else PANEL * 4,
            )  # fmt: skip
            if is_int8:
                multiply_int8(taken, call)
            else:
                multiply_fp32(taken, call)
            if not is_direct:
                if activation:
                    activate(values[: taken * PANEL], activation)
                if width == PANEL:
                    store_rows(taken, values.ctypes.data, other, target, stride)
                else:
                    store_some(values, width, added, out, row, row + taken)
            row += taken


@njit(**SERIAL)
def store_some(values, width, added, out, start, stop):
    """The last `width` columns of rows start … stop - 1, from values (rows, PANEL): a panel that is not full."""
    first = out.shape[1] - width
    for row in range(start, stop):
        for column in range(width):
            value = values[(row - start) * PANEL + column]
            out[row, first + column] = value + added[row, first + column] if added.shape[1] else value


@njit(**SERIAL)
def shape_of(rows, row_bytes, panels):
    """How the work is cut into tasks, see pass_tile; and how many tasks that makes."""
    of_tile = tile_rows(rows)
    tiles = (rows + of_tile - 1) // of_tile
    of_group = group_panels(tiles, panels, row_bytes * PANEL)
    return (rows, row_bytes, tiles, of_tile, panels, of_group), tiles * ((panels + of_group - 1) // of_group)


@njit(**PARALLEL)
def linear_int8(quantised, scales, offsets, panels, weight_scales, bias, activation, added, out):
    """Quantised rows times packed int8 weights → fp32.

    quantised (rows, inputs) int8; panels (panels, inputs / 4, PANEL, 4) uint8, weights + 128; weight_scales, bias
    (panels * PANEL,); added (rows, outputs) or (rows, 0); out (rows, outputs).
    """
    shape, tasks = shape_of(quantised.shape[0], quantised.shape[1], panels.shape[0])
    for task in prange(tasks):
        pass_tile(
            True, task, shape, quantised.ctypes.data, (scales.ctypes.data, offsets.ctypes.data), panels.ctypes.data,
            weight_scales.ctypes.data, bias.ctypes.data, activation, added, out,
        )  # fmt: skip


@njit(**PARALLEL)
def linear_fp32(x, panels, bias, activation, added, out):
    """x (rows, inputs) times packed weights, panels (panels, inputs, PANEL) → out (rows, outputs); all fp32."""
    shape, tasks = shape_of(x.shape[0], x.shape[1] * 4, panels.shape[0])
    for task in prange(tasks):
        pass_tile(
            False, task, shape, x.ctypes.data, (0, 0), panels.ctypes.data, 0, bias.ctypes.data, activation, added, out
        )

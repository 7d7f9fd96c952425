"""Linear layers over packed weights: the product, its scales, bias, activation and residual in one pass over the tiles.

Each row is computed by itself, in an order that does not depend on how many rows there are: company never changes a
result.
"""

import numpy as np
from numba import njit, prange

from app.engine.compute.kernels import HAS_512, scalar
from app.engine.compute.kernels.microkernel import (
    ROWS_MAX,
    multiply_fp32,
    multiply_int8,
    rows_of_call,
    store_rows,
)
from app.engine.compute.kernels.mixing import mix_row
from app.engine.compute.kernels.scalar import SERIAL
from app.engine.compute.kernels.sixteen import IN_16_BITS, LEVELS, LEVELS_LEAST, ROOM, SPREAD_MOST, lay_row
from app.engine.compute.kernels.sums import ORDERED, spread
from app.engine.compute.kernels.tasks import take
from app.engine.compute.kernels.vectors import PANEL, VECTOR_BYTES, VECTORS

PARALLEL = {**SERIAL, "parallel": True}
TILE_ROWS = 48
"""Rows that a panel passes by before the next one: few, so that what they write lies in few pages."""
GROUP_BYTES = 384 * 1024
"""Of panels, so that a group stays in a core's second cache while the tiles pass by."""
STEPS = 256
"""Of a panel that rows in fp32 make at a time at most, without HAS_512: the quickest of 128 to 768. They are 32 KB, and
stay in the second cache beside the rows and what comes next."""
ASKING = 4
"""Calls in int8 that ask for the next panel, without HAS_512."""
TASKS = 32
"""Enough tasks that the last thread does not work alone for long."""
WHOLE_ROWS = 16
"""Fewer rows than this are prepared by one thread: waking another costs more than it saves."""
INFINITY_BITS = 0x7F800000
SIGN_BIT = 0x80000000
WHOLE = np.float32(3 * 2**22)
"""What is added to this rounds to a whole number (half to even), whose low bits are the sum's."""


@njit(**SERIAL)
def extremes(x):
    """The least number of x (inputs,) or 0, the largest or 0, and whether all are finite."""
    most, least = np.int32(0), np.uint32(0)
    for place in range(x.size):  # of signed bits the largest are the largest number's, of unsigned ones the least's
        bits = scalar.bits_of_float(x[place])
        unsigned = np.uint32(bits)
        most = bits if bits > most else most
        least = unsigned if unsigned > least else least
    low = scalar.float_of_bits(np.int32(least)) if least > SIGN_BIT else np.float32(0.0)
    return low, scalar.float_of_bits(most), most < INFINITY_BITS and least < SIGN_BIT + INFINITY_BITS


@njit(**ORDERED)
def levels_for(low, high, apart):
    """How many levels a row gets in 16 bits, from its extremes and its spread, which may be no number: the fewest."""
    most = np.float32(SPREAD_MOST) * (high - low) / apart
    if most >= np.float32(LEVELS):
        return LEVELS
    return np.int64(most) if most >= np.float32(LEVELS_LEAST) else LEVELS_LEAST


@njit(**SERIAL)
def quantise_to(levels, x, low, high, quantised):
    """quantise_row of x, whose extremes are known, to about so many numbers."""
    inverse = np.float32(levels) / (high - low)
    zero = -scalar.floor(low * inverse)
    above = zero + WHOLE
    for place in range(x.size):
        quantised[place] = np.uint8(scalar.bits_of_float(x[place] * inverse + above) & np.int32(255))
    return (high - low) / np.float32(levels), np.int32(zero)


@njit(**SERIAL)
def quantise_row(x, quantised):
    """x (inputs,) → whole numbers of 8 bits that are its values in multiples of a scale, above a zero.

    Returns (scale, zero): x = scale * (quantised - zero), to half a scale. What an activation gave lies mostly on one
    side of 0, and so gets all the numbers: LEVELS, or what levels_for says. A row that is not finite gets the scale
    NaN, so that all its results are NaN and the row fails.
    """
    low, high, is_finite = extremes(x)
    if not is_finite or high - low < np.float32(1e-30):
        quantised[:] = 0
        return np.float32(0.0) if is_finite else np.float32(np.nan), np.int32(0)
    return quantise_to(levels_for(low, high, spread(x)) if IN_16_BITS else LEVELS, x, low, high, quantised)


@njit(**SERIAL)
def ready_row(x, room):
    """quantise_row of x (inputs,) → room (inputs * ROOM,) as multiply_int8 reads a row; returns its scale and zero.

    Each place of the room is written once, two may do the same row at a time.
    """
    if IN_16_BITS:
        numbers = np.empty(x.size, np.uint8)
        scale, zero = quantise_row(x, numbers)
        return scale, lay_row(numbers, zero, room)
    return quantise_row(x, room)


@njit(**SERIAL)
def read_row(x, is_mixed, mixed, room):
    """ready_row of x, mixed first where the layer's weights are: mixed is room for that, of x's size if needed."""
    if is_mixed:
        mix_row(x, mixed)
        return ready_row(mixed, room)
    return ready_row(x, room)


@njit(**SERIAL)
def quantise(x, quantised, scales, zeros):
    """quantise_row of every row of x (rows, inputs)."""
    for row in range(x.shape[0]):
        scales[row], zeros[row] = quantise_row(x[row], quantised[row])


@njit(**PARALLEL)
def ready(x, is_mixed, room, scales, zeros):
    """read_row of every row of x (rows, inputs)."""
    mixed = np.empty((x.shape[0], x.shape[1] if is_mixed else 0), np.float32)
    if x.shape[0] < WHOLE_ROWS:
        for row in range(x.shape[0]):
            scales[row], zeros[row] = read_row(x[row], is_mixed, mixed[row], room[row])
    else:
        for row in prange(x.shape[0]):
            scales[row], zeros[row] = read_row(x[row], is_mixed, mixed[row], room[row])


@njit(**SERIAL)
def activate(values, count, activation, is_int8):
    """Apply the activation of this number (activations.py) to the first `count` of `values`, in place; near in int8."""
    if activation == 1 and is_int8:
        for place in range(count):
            values[place] = scalar.gelu_tanh_near(values[place])
    elif activation == 2 and is_int8:
        for place in range(count):
            values[place] = scalar.gelu_near(values[place])
    elif activation == 1:
        for place in range(count):
            values[place] = scalar.gelu_tanh(values[place])
    elif activation == 2:
        for place in range(count):
            values[place] = scalar.gelu(values[place])
    elif activation == 3:
        for place in range(count):
            values[place] = values[place] if values[place] > np.float32(0.0) else np.float32(0.0) * values[place]
    elif activation == 4:
        for place in range(count):
            values[place] = values[place] / (np.float32(1.0) + scalar.exp(-values[place]))
    elif activation == 5:
        for place in range(count):
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
    most = max(1, min(GROUP_BYTES // panel_bytes, tiles * panels // TASKS))
    groups = (panels + most - 1) // most
    return (panels + groups - 1) // groups


@njit(**SERIAL)
def steps_at_once(steps, is_int8):
    """How many steps of a panel all rows make before any row goes on: an equal part. In int8 a call makes them all."""
    parts = 1 if is_int8 or HAS_512 else (steps + STEPS - 1) // STEPS
    return (steps + parts - 1) // parts


@njit(**SERIAL)
def paces(rows, steps, is_int8):
    """How far on each step of a call asks, in bytes, how far on each following call of these rows begins to, and how
    many calls ask.

    Where registers are few the calls together ask for the panel's next steps, each for an equal part: asked for by the
    first call alone, more would be on its way than there is room for. Of int8's, whose steps are so short that asking
    costs them a twelfth, only the first few calls do; the pace of the others is 0, and they ask for what they have.
    """
    calls, row = 0, 0
    while row < rows:
        row += rows_of_call(rows - row, is_int8)
        calls += 1
    if HAS_512 or (is_int8 and calls == 1):
        return VECTOR_BYTES, steps * 4 * PANEL // 2, calls
    asking = min(calls, ASKING) if is_int8 else calls
    pace = (VECTOR_BYTES + asking - 1) // asking
    return pace, VECTORS * pace * steps, asking


@njit(**SERIAL)
def finish(values, taken, activation, is_int8, added, out, row, first):
    """values (taken, PANEL), sums of rows from `row` on, activated and added to → out, in columns from `first` on."""
    if activation:
        activate(values, taken * PANEL, activation, is_int8)
    outputs = out.shape[1]
    if first + PANEL > outputs:
        store_some(values, outputs - first, added, out, row, row + taken)
        return
    place = (row * outputs + first) * 4
    other = added.ctypes.data + place if added.shape[1] else 0
    store_rows(taken, values.ctypes.data, other, out.ctypes.data + place, outputs * 4)


@njit(**SERIAL)
def pass_panels(is_int8, span, column_bytes, left, scales, weights, activation, added, out):
    """Rows times panels, span = (first row, last + 1, first panel, last + 1), and what follows → out (rows, outputs).

    left is the address of the left matrix, in int8 of rows as ready_row makes them, and column_bytes what a column of
    a panel takes; scales are the addresses of the rows' scales and zeros, weights those of the panels, their scales,
    their sums and the bias; added (rows, outputs) or (rows, 0).
    """
    start, stop, first_panel, last_panel = span
    if start >= stop:
        return
    panels, weight_scales, weight_sums, bias = weights
    outputs, stride, row_bytes = out.shape[1], out.shape[1] * 4, PANEL * 4
    left_bytes = column_bytes * ROOM if is_int8 else column_bytes
    steps = column_bytes // 4
    some = steps_at_once(steps, is_int8)
    first_pace, apart, asking = paces(stop - start, some, is_int8)
    values, zeros = np.empty(max(ROWS_MAX, stop - start) * PANEL, np.float32), np.zeros(PANEL, np.float32)
    values_at, zeros_at = values.ctypes.data + np.int64(0), zeros.ctypes.data + np.int64(0)
    for panel in range(first_panel, last_panel):
        first = panel * PANEL
        for step in range(0, steps, some):
            count, is_last = min(some, steps - step), step + some >= steps
            is_direct = is_last and activation == 0 and first + PANEL <= outputs
            row, ahead, left_asking = start, count * 4 * PANEL, asking
            while row < stop:
                pace = first_pace if left_asking > 0 else 0
                taken = rows_of_call(stop - row, is_int8)
                target = out.ctypes.data + row * stride + first * 4
                other = added.ctypes.data + row * stride + first * 4 if added.shape[1] else 0
                place = 0 if HAS_512 else row - start
                held = values_at + place * row_bytes
                before, before_apart = (held, row_bytes) if step else (zeros_at, 0)
                call = (
                    left + row * left_bytes + step * 4, left_bytes, panels + (panel * steps + step) * 4 * PANEL, count,
                    scales[0] + row * 4 if is_int8 else before, scales[1] + row * 4 if is_int8 else before_apart,
                    weight_scales + first * 4, weight_sums + first * 4,
                    bias + first * 4 if is_last else zeros_at, other if is_direct else 0, stride,
                    target if is_direct else held, stride if is_direct else row_bytes, ahead if pace else 0, pace,
                )  # fmt: skip
                if is_int8:
                    multiply_int8(taken, call)
                else:
                    multiply_fp32(taken, call)
                if HAS_512 and is_last and not is_direct:
                    finish(values, taken, activation, is_int8, added, out, row, first)
                row += taken
                ahead += apart
                left_asking -= 1
            if not HAS_512 and is_last and not is_direct:
                finish(values, stop - start, activation, is_int8, added, out, start, first)
    scalar.keep(values)
    scalar.keep(zeros)


@njit(**SERIAL)
def pass_tile(is_int8, task, shape, left, scales, weights, activation, added, out):
    """One task: the tile of rows `task % tiles` times the panels of the group `task // tiles`, as pass_panels does it.

    shape is (rows, bytes of a column of the panels, tiles, rows of a tile, panels, panels of a group).
    """
    rows, column_bytes, tiles, of_tile, count, of_group = shape
    start, group = task % tiles * of_tile, task // tiles * of_group
    span = (start, min(rows, start + of_tile), group, min(count, group + of_group))
    pass_panels(is_int8, span, column_bytes, left, scales, weights, activation, added, out)


@njit(**SERIAL)
def store_some(values, width, added, out, start, stop):
    """The last `width` columns of rows start … stop - 1, from values (rows, PANEL): a panel that is not full."""
    first = out.shape[1] - width
    for row in range(start, stop):
        for column in range(width):
            value = values[(row - start) * PANEL + column]
            out[row, first + column] = value + added[row, first + column] if added.shape[1] else value


@njit(**SERIAL)
def shape_of(rows, column_bytes, panels):
    """How the work is cut into tasks, see pass_tile; and how many tasks that makes."""
    of_tile = tile_rows(rows)
    tiles = (rows + of_tile - 1) // of_tile
    of_group = group_panels(tiles, panels, column_bytes * PANEL)
    return (rows, column_bytes, tiles, of_tile, panels, of_group), tiles * ((panels + of_group - 1) // of_group)


@njit(**PARALLEL)
def linear_int8(x, is_mixed, layer, activation, added, threads, out):
    """x (rows, inputs) fp32, mixed where the weights are, quantised, times packed int8 weights → out (rows, outputs).

    layer: panels (panels, inputs / 4, PANEL, 4) int8, and their scales, sums and bias (panels * PANEL,); added
    (rows, outputs) or (rows, 0).
    """
    panels, weight_scales, weight_sums, bias = layer
    room = np.empty((x.shape[0], x.shape[1] * ROOM), np.uint8)
    scales, zeros = np.empty(x.shape[0], np.float32), np.empty(x.shape[0], np.int32)
    ready(x, is_mixed, room, scales, zeros)
    shape, tasks = shape_of(x.shape[0], x.shape[1], panels.shape[0])
    weights = (panels.ctypes.data, weight_scales.ctypes.data, weight_sums.ctypes.data, bias.ctypes.data)
    of_rows = (scales.ctypes.data, zeros.ctypes.data)
    left = room.ctypes.data
    counter = np.zeros(1, np.int64)
    for _ in prange(threads):
        task = take(counter.ctypes.data)
        while task < tasks:
            pass_tile(True, task, shape, left, of_rows, weights, activation, added, out)
            task = take(counter.ctypes.data)
    scalar.keep(counter)
    scalar.keep(room)
    scalar.keep(scales)
    scalar.keep(zeros)


@njit(**PARALLEL)
def linear_fp32(x, panels, bias, activation, added, threads, out):
    """x (rows, inputs) times packed weights, panels (panels, inputs, PANEL) → out (rows, outputs); all fp32."""
    shape, tasks = shape_of(x.shape[0], x.shape[1] * 4, panels.shape[0])
    weights = (panels.ctypes.data, 0, 0, bias.ctypes.data)
    counter = np.zeros(1, np.int64)
    for _ in prange(threads):
        task = take(counter.ctypes.data)
        while task < tasks:
            pass_tile(False, task, shape, x.ctypes.data, (0, 0), weights, activation, added, out)
            task = take(counter.ctypes.data)
    scalar.keep(counter)

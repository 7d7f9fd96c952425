"""A step's layers in stages that nobody holds up: what decoder.py and translator.py have in common.

A stage is cut into tasks, which threads take as they come; it is over when all are done. A thread that lost its core
keeps the task that it had: who has waited for it a while does that task again. Both write the same bits, to places that
no later stage writes to, so that it does not matter how late the other one comes back. The steps are those of
linear.py, rows.py and attention.py: a row gets the same bits as from them.
"""

from numba import njit

from app.engine.compute.kernels.attention import ROW, START, STOP, attend_part, merge, store_row
from app.engine.compute.kernels.linear import SERIAL, pass_tile, ready_row, shape_of
from app.engine.compute.kernels.rows import normalise_row
from app.engine.compute.kernels.sixteen import ROOM
from app.engine.compute.kernels.tasks import count_done, done, mark, pause, take
from app.engine.compute.kernels.vectors import PANEL

ROWS_OF_TASK = 4
"""Rows that one task norms and quantises."""
PATIENCE_INT8, PATIENCE_FP32 = 300, 1200
"""How often a thread looks before it does what another has in hand: about 8 and 30 us, as long as a task takes."""


@njit(**SERIAL)
def row_tasks(rows):
    """Into how many tasks the norms, bytes and merged parts of so many rows are cut."""
    return (rows + ROWS_OF_TASK - 1) // ROWS_OF_TASK


@njit(**SERIAL)
def product_tasks(rows, inputs, linear, is_int8):
    """Into how many tasks a product is cut; linear (6,): see encoder.apply."""
    return shape_of(rows, inputs if is_int8 else inputs * 4, (linear[4] + PANEL - 1) // PANEL)[1]


@njit(**SERIAL)
def norm_some(task, x, weight, bias, epsilon, out):
    """One task: the norm of some rows of x (rows, width)."""
    for row in range(task * ROWS_OF_TASK, min(x.shape[0], (task + 1) * ROWS_OF_TASK)):
        normalise_row(x[row], weight, bias, epsilon, out[row])


@njit(**SERIAL)
def quantise_some(task, x, quantised, scales, zeros):
    """One task: some rows of x (rows, inputs) in 8 bits."""
    for row in range(task * ROWS_OF_TASK, min(x.shape[0], (task + 1) * ROWS_OF_TASK)):
        scales[row], zeros[row] = ready_row(x[row], quantised[row])


@njit(**SERIAL)
def multiply_some(is_int8, task, linear, reads, quantised, of_rows, activation, added, result):
    """One task of a product; reads (rows, inputs), in int8 as `quantised`, whose scales and zeros are of_rows."""
    column_bytes, left = reads.shape[1] * 4, reads.ctypes.data
    if is_int8:
        column_bytes, left = quantised.shape[1] // ROOM, quantised.ctypes.data
    scales, zeros = of_rows
    shape, _ = shape_of(reads.shape[0], column_bytes, (linear[4] + PANEL - 1) // PANEL)
    addresses, of_left = (linear[0], linear[1], linear[2], linear[3]), (scales.ctypes.data, zeros.ctypes.data)
    pass_tile(is_int8, task, shape, left, of_left, addresses, activation, added, result)


@njit(**SERIAL)
def read_some(part, queries, slots, parts, keys, values, scale, sums, found):
    """One task: a part of the positions that a row's query, the first columns of queries (rows, …), is held against."""
    row = parts[part, ROW]
    slot = slots[row]
    attend_part(
        queries[row], keys[slot], values[slot], parts[part, START], parts[part, STOP], scale, sums[part], found[part]
    )


@njit(**SERIAL)
def attend_some(part, qkv, places, keys, values, scale, sums, found):
    """read_some of a row's own positions; the new key and value are stored first where the part is the last one."""
    slots, positions, parts, begins = places
    row = parts[part, ROW]
    slot, position, width = slots[row], positions[row], keys.shape[2] * keys.shape[3]
    if part + 1 == begins[row + 1]:
        store_row(qkv[row], width, keys[slot, position].reshape(-1), values[slot, position].reshape(-1))
    read_some(part, qkv, slots, parts, keys, values, scale, sums, found)


@njit(**SERIAL)
def merge_some(task, begins, keys, sums, found, scale, out):
    """One task: of some rows, what was found for their parts."""
    for row in range(task * ROWS_OF_TASK, min(out.shape[0], (task + 1) * ROWS_OF_TASK)):
        begin, end = begins[row], begins[row + 1]
        merge(keys, sums[begin:end], found[begin:end], scale, out[row])


def run_task(stage, task, model, places, cache, room):
    """One task of any stage: decoder.py's, or translator.py's where the cache has sources too."""
    raise NotImplementedError


@njit(**SERIAL)
def finish_stage(stage, counters, marks, patience, model, places, cache, room):
    """Take the stage's tasks, look `patience` times for the others' and then do them: return when all are done."""
    taken, finished, tasks = counters[0].ctypes.data, counters[1].ctypes.data, marks.size
    task = take(taken)
    while task < tasks:
        run_task(stage, task, model, places, cache, room)
        if mark(marks[task:].ctypes.data) == 0:
            count_done(finished)
        task = take(taken)
    looks = 0
    while done(finished) < tasks and looks < patience:
        pause()
        looks += 1
    if done(finished) >= tasks:
        return
    for other in range(tasks):
        if done(marks[other:].ctypes.data) == 0:
            run_task(stage, other, model, places, cache, room)
            if mark(marks[other:].ctypes.data) == 0:
                count_done(finished)

"""All layers of a decoder's step in which each row feeds one token, in stages that nobody holds up.

A stage is cut into tasks, which threads take as they come; it is over when all are done. A thread that lost its core
keeps the task that it had: who has waited for it a while does that task again. Both write the same bits, to places that
no later stage writes to, so that it does not matter how late the other one comes back. The steps are those of
linear.py, rows.py and attention.py: a row gets the same bits as from them.
"""

import numpy as np
from numba import njit, prange

from app.engine.compute.kernels.attention import ROW, START, STOP, attend_part, begins_of, cut, merge, store_row
from app.engine.compute.kernels.encoder import COUNTER_WORDS, DOWN, OUT, QKV, UP
from app.engine.compute.kernels.linear import PARALLEL, SERIAL, pass_tile, quantise_row, shape_of
from app.engine.compute.kernels.microkernel import PANEL
from app.engine.compute.kernels.rows import normalise_row
from app.engine.compute.kernels.tasks import count_done, done, mark, pause, take

ATTEND = 2
"""A layer's third stage. The others are two for each linear layer: what it reads, then its product; what OUT reads is
what attention's parts come to."""
STAGES = 9
"""Of a layer; the last norm is one more."""
ROWS_OF_TASK = 4
"""Rows that one task norms and quantises."""
PATIENCE_INT8, PATIENCE_FP32 = 300, 1200
"""How often a thread looks before it does what another has in hand: about 8 and 30 us, as long as a task takes."""


@njit(**SERIAL)
def linear_of(stage):
    """Which linear layer a stage belongs to, and whether it is the product."""
    place = stage % STAGES
    place = place if place < ATTEND else place - 1
    return place // 2, place % 2 == 1


@njit(**SERIAL)
def tasks_of(stage, rows, parts, weights, is_int8):
    """Into how many tasks a stage is cut; into none where there is nothing to do."""
    layer = stage // STAGES
    if layer < weights.shape[0] and stage % STAGES == ATTEND:
        return parts
    number, is_product = linear_of(stage)
    if layer < weights.shape[0] and is_product:
        inputs = weights[layer, UP, 4] if number == DOWN else weights[layer, OUT, 4]
        row_bytes = inputs if is_int8 else inputs * 4
        return shape_of(rows, row_bytes, (weights[layer, number, 4] + PANEL - 1) // PANEL)[1]
    has_work = layer == weights.shape[0] or is_int8 or number != DOWN
    return (rows + ROWS_OF_TASK - 1) // ROWS_OF_TASK if has_work else 0


@njit(**SERIAL)
def norm_some(task, x, weight, bias, epsilon, out):
    """One task: the norm of some rows of x (rows, width)."""
    for row in range(task * ROWS_OF_TASK, min(x.shape[0], (task + 1) * ROWS_OF_TASK)):
        normalise_row(x[row], weight, bias, epsilon, out[row])


@njit(**SERIAL)
def quantise_some(task, x, quantised, scales, zeros):
    """One task: some rows of x (rows, inputs) in 8 bits."""
    for row in range(task * ROWS_OF_TASK, min(x.shape[0], (task + 1) * ROWS_OF_TASK)):
        scales[row], zeros[row] = quantise_row(x[row], quantised[row])


@njit(**SERIAL)
def attend_some(part, qkv, places, keys, values, scale, sums, found):
    """One task: a part of a row's positions; the new keys and values are stored first where it is the last one."""
    slots, positions, parts, begins = places
    row = parts[part, ROW]
    slot, position, width = slots[row], positions[row], keys.shape[2] * keys.shape[3]
    if part + 1 == begins[row + 1]:
        store_row(qkv[row], width, keys[slot, position].reshape(-1), values[slot, position].reshape(-1))
    attend_part(
        qkv[row], keys[slot], values[slot], parts[part, START], parts[part, STOP], scale, sums[part], found[part]
    )


@njit(**SERIAL)
def merge_some(task, begins, keys, sums, found, scale, out):
    """One task: of some rows, what was found for their parts."""
    for row in range(task * ROWS_OF_TASK, min(out.shape[0], (task + 1) * ROWS_OF_TASK)):
        begin, end = begins[row], begins[row + 1]
        merge(keys, sums[begin:end], found[begin:end], scale, out[row])


@njit(**SERIAL)
def run_linear(task, layer, number, is_product, model, room):
    """One task of a linear layer: of what it reads, normed or in 8 bits or both, or of the product."""
    weights, norms, epsilon, activation, _, is_int8 = model
    start, _, qkv, read, between, wide, after, normed, few_bytes, many_bytes, of_rows, zeros, _, _ = room
    before = after[layer - 1] if layer else start
    source, result, added = before, qkv[layer], before[:, :0]
    if number == OUT:
        source, result, added = read[layer], between[layer], before
    elif number == UP:
        source, result = between[layer], wide[layer]
    elif number == DOWN:
        source, result, added = wide[layer], after[layer], between[layer]
    has_norm = number in (QKV, UP)
    reads = normed[layer, number // 2] if has_norm else source
    quantised = many_bytes[layer] if number == DOWN else few_bytes[layer, number]
    scales, zero = of_rows[layer, number], zeros[layer, number]
    if not is_product:
        if has_norm:
            norm_some(task, source, norms[layer, number], norms[layer, number + 1], epsilon, reads)
        if is_int8:
            quantise_some(task, reads, quantised, scales, zero)
        return
    linear = weights[layer, number]
    row_bytes, left = reads.shape[1] * 4, reads.ctypes.data
    if is_int8:
        row_bytes, left = quantised.shape[1], quantised.ctypes.data
    shape, _ = shape_of(reads.shape[0], row_bytes, (linear[4] + PANEL - 1) // PANEL)
    addresses, of_left = (linear[0], linear[1], linear[2], linear[3]), (scales.ctypes.data, zero.ctypes.data)
    pass_tile(is_int8, task, shape, left, of_left, addresses, activation if number == UP else 0, added, result)


@njit(**SERIAL)
def run_task(stage, task, model, places, cache, room):
    """One task of any stage: see step, whose arguments these are, and whose room for what its stages write."""
    weights, norms, epsilon, _, scales, _ = model
    start, out, qkv, read, after, sums, found = room[0], room[1], room[2], room[3], room[6], room[12], room[13]
    layer = stage // STAGES
    if layer == weights.shape[0]:
        last = after[layer - 1] if layer else start
        norm_some(task, last, norms[layer, 0], norms[layer, 1], epsilon, out)
    elif stage % STAGES == ATTEND:
        keys, values = cache
        attend_some(task, qkv[layer], places, keys[layer], values[layer], scales[layer], sums[layer], found[layer])
    else:
        number, is_product = linear_of(stage)
        if number == OUT and not is_product:
            merge_some(task, places[3], cache[0][layer], sums[layer], found[layer], scales[layer], read[layer])
        run_linear(task, layer, number, is_product, model, room)


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


@njit(**PARALLEL)
def step(start, slots, positions, weights, is_int8, norms, epsilon, activation, scales, keys, values, threads, out):
    """Pre-norm layers over start (rows, width), a token a row, and the last norm → out (rows, width).

    slots, positions (rows,): where each token's key and value belong, no slot twice; weights (layers, 4, 6): see
    encoder.apply, in the order QKV, OUT, UP, DOWN, and none mixes (fp32 layers have panels and a bias alone); norms
    (layers + 1, 4, width): weight and bias of the norm before attention and of the one before UP, and of the last one;
    scales (layers,) of the scores; keys, values (layers, slots, positions, heads, head_dim): fp32, or a bfloat16's 16
    bits.
    """
    rows, width = start.shape
    layers, heads, inner = weights.shape[0], keys.shape[3], weights[0, UP, 4]
    qkv, wide = np.empty((layers, rows, 3 * width), np.float32), np.empty((layers, rows, inner), np.float32)
    read, between = np.empty((layers, rows, width), np.float32), np.empty((layers, rows, width), np.float32)
    after, normed = np.empty((layers, rows, width), np.float32), np.empty((layers, 2, rows, width), np.float32)
    few_bytes, many_bytes = np.empty((layers, 3, rows, width), np.uint8), np.empty((layers, rows, inner), np.uint8)
    of_rows, zeros = np.empty((layers, 4, rows), np.float32), np.empty((layers, 4, rows), np.int32)
    parts = cut(positions + 1)
    begins = begins_of(parts, rows)
    sums = np.empty((layers, parts.shape[0], width), np.float32)
    found = np.empty((layers, parts.shape[0], 2, heads), np.float32)
    stages = layers * STAGES + 1
    counters = np.zeros((stages, 2, COUNTER_WORDS), np.int64)
    ends = np.empty(stages, np.int64)
    tasks = 0
    for stage in range(stages):
        tasks += tasks_of(stage, rows, parts.shape[0], weights, is_int8)
        ends[stage] = tasks
    marks = np.zeros(tasks, np.int64)
    model, cache = (weights, norms, epsilon, activation, scales, is_int8), (keys, values)
    places = (slots, positions, parts, begins)
    room = (start, out, qkv, read, between, wide, after, normed, few_bytes, many_bytes, of_rows, zeros, sums, found)
    patience = PATIENCE_INT8 if is_int8 else PATIENCE_FP32
    for _ in prange(threads):
        begin = 0
        for stage in range(stages):
            finish_stage(stage, counters[stage], marks[begin : ends[stage]], patience, model, places, cache, room)
            begin = ends[stage]

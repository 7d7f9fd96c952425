"""All int8 layers of a decoder's step in which each row feeds one token, in stages that nobody holds up.

A stage is cut into tasks, which threads take as they come; it is over when all are done. A thread that lost its core
keeps the task that it had: who has waited for it a while does that task again. Both write the same bits, to places that
no later stage writes to, so that it does not matter how late the other one comes back. The steps are those of
linear.py, rows.py and attention.py: a row gets the same bits as from them.
"""

import numpy as np
from numba import njit, prange

from app.engine.compute.kernels.attention import attend_head_bf16, store_head
from app.engine.compute.kernels.encoder import COUNTER_WORDS, DOWN, OUT, QKV, UP
from app.engine.compute.kernels.linear import PARALLEL, SERIAL, pass_tile, quantise_row, shape_of
from app.engine.compute.kernels.microkernel import PANEL
from app.engine.compute.kernels.rows import normalise_row
from app.engine.compute.kernels.tasks import count_done, done, mark, pause, take

ATTEND = 2
"""A layer's third stage. The others are two for each linear layer: what it reads in 8 bits, then its product."""
STAGES = 9
"""Of a layer; the last norm is one more."""
ROWS_OF_TASK = 4
"""Rows that one task norms and quantises."""
PATIENCE = 300
"""How often a thread looks before it does what another has in hand: about 8 us, as long as a task takes."""


@njit(**SERIAL)
def linear_of(stage):
    """Which linear layer a stage belongs to, and whether it is the product."""
    place = stage % STAGES
    place = place if place < ATTEND else place - 1
    return place // 2, place % 2 == 1


@njit(**SERIAL)
def tasks_of(stage, rows, heads, weights):
    """Into how many tasks a stage is cut."""
    layer = stage // STAGES
    if layer < weights.shape[0] and stage % STAGES == ATTEND:
        return rows * heads
    number, is_product = linear_of(stage)
    if layer == weights.shape[0] or not is_product:
        return (rows + ROWS_OF_TASK - 1) // ROWS_OF_TASK
    inputs = weights[layer, UP, 4] if number == DOWN else weights[layer, OUT, 4]
    return shape_of(rows, inputs, (weights[layer, number, 4] + PANEL - 1) // PANEL)[1]


@njit(**SERIAL)
def quantise_some(task, x, norm, epsilon, held):
    """One task: some rows of x (rows, inputs), normed if there is a norm (2, inputs); held: bytes, scales and zeros."""
    quantised, scales, zeros = held
    normed = np.empty(x.shape[1], np.float32)
    for row in range(task * ROWS_OF_TASK, min(x.shape[0], (task + 1) * ROWS_OF_TASK)):
        if norm.shape[0]:
            normalise_row(x[row], norm[0], norm[1], epsilon, normed)
            scales[row], zeros[row] = quantise_row(normed, quantised[row])
        else:
            scales[row], zeros[row] = quantise_row(x[row], quantised[row])


@njit(**SERIAL)
def project_some(task, held, weights, activation, added, out):
    """One task: some outputs of a linear layer for rows as quantise_some held them; weights as encoder.apply's."""
    quantised, scales, zeros = held
    shape, _ = shape_of(quantised.shape[0], quantised.shape[1], (weights[4] + PANEL - 1) // PANEL)
    addresses, of_rows = (weights[0], weights[1], weights[2], weights[3]), (scales.ctypes.data, zeros.ctypes.data)
    pass_tile(True, task, shape, quantised.ctypes.data, of_rows, addresses, activation, added, out)


@njit(**SERIAL)
def attend_some(task, qkv, places, keys, values, scale, out):
    """One task: the head `task % heads` of the row `task // heads`, whose new key and value are stored first."""
    slots, positions = places
    heads, width = keys.shape[1], keys.shape[3]
    row, head = task // heads, task % heads
    position, first = positions[row], head * width
    key, value = keys[slots[row], head], values[slots[row], head]
    store_head(qkv[row], heads * width + first, key[position])
    store_head(qkv[row], 2 * heads * width + first, value[position])
    query, target = qkv[row, first : first + width], out[row, first : first + width]
    attend_head_bf16(query, key, value, position + 1, scale, target)


@njit(**SERIAL)
def run_task(stage, task, model, places, cache, room):
    """One task of any stage: see step, whose arguments these are, and whose room for what its stages write."""
    weights, norms, epsilon, activation, scales = model
    start, out, qkv, read, between, wide, after, few_bytes, many_bytes, of_rows, zeros = room
    layer = stage // STAGES
    before = after[layer - 1] if layer else start
    if layer == weights.shape[0]:
        for row in range(task * ROWS_OF_TASK, min(out.shape[0], (task + 1) * ROWS_OF_TASK)):
            normalise_row(before[row], norms[layer, 0], norms[layer, 1], epsilon, out[row])
        return
    if stage % STAGES == ATTEND:
        attend_some(task, qkv[layer], places, cache[0][layer], cache[1][layer], scales[layer], read[layer])
        return
    number, is_product = linear_of(stage)
    quantised = many_bytes[layer] if number == DOWN else few_bytes[layer, number]
    held, linear = (quantised, of_rows[layer, number], zeros[layer, number]), weights[layer, number]
    if number == QKV:
        if is_product:
            project_some(task, held, linear, 0, before[:, :0], qkv[layer])
        else:
            quantise_some(task, before, norms[layer, :2], epsilon, held)
    elif number == OUT:
        if is_product:
            project_some(task, held, linear, 0, before, between[layer])
        else:
            quantise_some(task, read[layer], norms[layer, :0], epsilon, held)
    elif number == UP:
        if is_product:
            project_some(task, held, linear, activation, before[:, :0], wide[layer])
        else:
            quantise_some(task, between[layer], norms[layer, 2:], epsilon, held)
    elif is_product:
        project_some(task, held, linear, 0, between[layer], after[layer])
    else:
        quantise_some(task, wide[layer], norms[layer, :0], epsilon, held)


@njit(**SERIAL)
def finish_stage(stage, counters, marks, model, places, cache, room):
    """Take the stage's tasks, wait a while for the others' and then do them: return when all are done."""
    taken, finished, tasks = counters[0].ctypes.data, counters[1].ctypes.data, marks.size
    task = take(taken)
    while task < tasks:
        run_task(stage, task, model, places, cache, room)
        if mark(marks[task:].ctypes.data) == 0:
            count_done(finished)
        task = take(taken)
    looks = 0
    while done(finished) < tasks and looks < PATIENCE:
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
def step(start, slots, positions, weights, norms, epsilon, activation, scales, keys, values, threads, out):
    """Pre-norm layers over start (rows, width), a token a row, and the last norm → out (rows, width).

    slots, positions (rows,): where each token's key and value belong, no slot twice; weights (layers, 4, 6): see
    encoder.apply, in the order QKV, OUT, UP, DOWN, and none mixes; norms (layers + 1, 4, width): weight and bias of the
    norm before attention and of the one before UP, and of the last one; scales (layers,) of the scores; keys, values
    (layers, slots, heads, positions, head_dim): a bfloat16's 16 bits.
    """
    rows, width = start.shape
    layers, heads, inner = weights.shape[0], keys.shape[2], weights[0, UP, 4]
    qkv, wide = np.empty((layers, rows, 3 * width), np.float32), np.empty((layers, rows, inner), np.float32)
    read, between = np.empty((layers, rows, width), np.float32), np.empty((layers, rows, width), np.float32)
    after = np.empty((layers, rows, width), np.float32)
    few_bytes, many_bytes = np.empty((layers, 3, rows, width), np.uint8), np.empty((layers, rows, inner), np.uint8)
    of_rows, zeros = np.empty((layers, 4, rows), np.float32), np.empty((layers, 4, rows), np.int32)
    stages = layers * STAGES + 1
    counters = np.zeros((stages, 2, COUNTER_WORDS), np.int64)
    ends = np.empty(stages, np.int64)
    tasks = 0
    for stage in range(stages):
        tasks += tasks_of(stage, rows, heads, weights)
        ends[stage] = tasks
    marks = np.zeros(tasks, np.int64)
    model, places, cache = (weights, norms, epsilon, activation, scales), (slots, positions), (keys, values)
    room = (start, out, qkv, read, between, wide, after, few_bytes, many_bytes, of_rows, zeros)
    for _ in prange(threads):
        begin = 0
        for stage in range(stages):
            finish_stage(stage, counters[stage], marks[begin : ends[stage]], model, places, cache, room)
            begin = ends[stage]

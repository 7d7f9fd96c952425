"""All layers of a decoder's step in which each row feeds one token, in the stages of stages.py: GPT-2's."""

import numpy as np
from numba import njit, prange
from numba.extending import overload

from app.engine.compute.kernels.attention import begins_of, cut
from app.engine.compute.kernels.encoder import COUNTER_WORDS, DOWN, OUT, QKV, UP
from app.engine.compute.kernels.linear import PARALLEL, SERIAL
from app.engine.compute.kernels.sixteen import ROOM
from app.engine.compute.kernels.stages import (
    PATIENCE_FP32,
    PATIENCE_INT8,
    attend_some,
    finish_stage,
    merge_some,
    multiply_some,
    norm_some,
    product_tasks,
    quantise_some,
    row_tasks,
    run_task,
)

ATTEND = 2
"""A layer's third stage. The others are two for each linear layer: what it reads, then its product; what OUT reads is
what attention's parts come to."""
STAGES = 9
"""Of a layer; the last norm is one more."""


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
        return product_tasks(rows, inputs, weights[layer, number], is_int8)
    has_work = layer == weights.shape[0] or is_int8 or number != DOWN
    return row_tasks(rows) if has_work else 0


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
    multiply_some(
        is_int8, task, weights[layer, number], reads, quantised, (scales, zero), activation if number == UP else 0,
        added, result,
    )  # fmt: skip


@njit(**SERIAL)
def run(stage, task, model, places, cache, room):
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


@overload(run_task)
def _run_task(stage, task, model, places, cache, room):
    if len(cache) == 2:
        return lambda stage, task, model, places, cache, room: run(stage, task, model, places, cache, room)
    return None


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
    few_bytes, many_bytes = (
        np.empty((layers, 3, rows, width * ROOM), np.uint8),
        np.empty((layers, rows, inner * ROOM), np.uint8),
    )
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

"""All layers of a step in which each row feeds one token to a decoder that reads a source, as stages.py: Marian's."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange
from numba.extending import overload

from app.engine.compute.kernels.attention import begins_of, cut
from app.engine.compute.kernels.encoder import COUNTER_WORDS
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
    read_some,
    row_tasks,
    run_task,
)

QKV, OUT, CROSS_QUERY, CROSS_OUT, UP, DOWN = range(6)
"""Where a layer's linear layers stand in `weights`."""
ATTEND, CROSS_ATTEND = 2, 7
"""The stages of a layer that attend: to the row's own positions, and to its source's. The others are two for each
linear layer: what it reads, then its product; what OUT and CROSS_OUT read is what attention's parts come to."""
STAGES = 14
"""Of a layer; the last norm is one more."""
AFTER_OWN, AFTER_CROSS, AFTER_ALL = range(3)
"""A layer's norms; each precedes what the layer, or the next one, reads."""
OWN, CROSS = range(2)
Array = np.ndarray[Any, np.dtype[Any]]


class Room(NamedTuple):
    """What the stages write, each layer to places of its own."""

    start: Array
    """(rows, width): what the first layer reads; nothing writes it."""
    out: Array
    qkv: Array
    query: Array
    read: Array
    """(layers, 2, rows, width): what attention gave, OWN and CROSS."""
    between: Array
    """(layers, 2, rows, width): the same through OUT and CROSS_OUT, and what was there before."""
    wide: Array
    after: Array
    normed: Array
    """(layers, 3, rows, width), the last layer's last one in `out` instead."""
    few_bytes: Array
    """(layers, 5, rows, width): what the linear layers before DOWN read."""
    many_bytes: Array
    of_rows: Array
    """(layers, 6, rows): scales of what the linear layers read, and `zeros`."""
    zeros: Array
    sums: Array
    found: Array
    """Of the parts of a row's own positions, see attention.attend_part; of its source's the next two."""
    source_sums: Array
    source_found: Array


@njit(**SERIAL)
def linear_of(stage):
    """Which linear layer a stage belongs to, and whether it is the product."""
    place = stage % STAGES
    place -= (1 if place > ATTEND else 0) + (1 if place > CROSS_ATTEND else 0)
    return place // 2, place % 2 == 1


@njit(**SERIAL)
def tasks_of(stage, rows, parts, source_parts, weights, is_int8):
    """Into how many tasks a stage is cut; into none where there is nothing to do."""
    layer, place = stage // STAGES, stage % STAGES
    if layer == weights.shape[0]:
        return row_tasks(rows)
    if place == ATTEND:
        return parts
    if place == CROSS_ATTEND:
        return source_parts
    number, is_product = linear_of(stage)
    if is_product:
        inputs = weights[layer, UP, 4] if number == DOWN else weights[layer, OUT, 4]
        return product_tasks(rows, inputs, weights[layer, number], is_int8)
    has_work = is_int8 or not (number == DOWN or (number == QKV and layer == 0))
    return row_tasks(rows) if has_work else 0


@njit(**SERIAL)
def norm_of(layer, number):
    """Which norm, of which layer, precedes a linear layer; layer -1 has none."""
    if number == QKV:
        return layer - 1, AFTER_ALL
    return layer, AFTER_OWN if number == CROSS_QUERY else AFTER_CROSS


@njit(**SERIAL)
def norm_for(task, layer, which, model, room, out):
    """One task: some rows of a layer's norm, → out (rows, width)."""
    _, norms, epsilon, _, _, _ = model
    source = room.after[layer] if which == AFTER_ALL else room.between[layer, which]
    norm_some(task, source, norms[layer, 2 * which], norms[layer, 2 * which + 1], epsilon, out)


@njit(**SERIAL)
def multiply(task, layer, number, reads, quantised, of_rows, model, room):
    """One task of a linear layer's product, with what is added to it."""
    weights, _, _, activation, _, is_int8 = model
    before = room.normed[layer - 1, AFTER_ALL] if layer else room.start
    result, added = room.qkv[layer], before[:, :0]
    if number == OUT:
        result, added = room.between[layer, OWN], before
    elif number == CROSS_QUERY:
        result = room.query[layer]
    elif number == CROSS_OUT:
        result, added = room.between[layer, CROSS], room.normed[layer, AFTER_OWN]
    elif number == UP:
        result = room.wide[layer]
    elif number == DOWN:
        result, added = room.after[layer], room.normed[layer, AFTER_CROSS]
    activation = activation if number == UP else 0
    multiply_some(is_int8, task, weights[layer, number], reads, quantised, of_rows, activation, added, result)


@njit(**SERIAL)
def run_linear(task, layer, number, is_product, model, room):
    """One task of a linear layer: of what it reads, normed or in 8 bits or both, or of the product."""
    _, _, _, _, _, is_int8 = model
    of_layer, which = norm_of(layer, number)
    has_norm = number in (QKV, CROSS_QUERY, UP) and of_layer >= 0
    reads = room.normed[of_layer, which] if has_norm else room.start
    if number in (OUT, CROSS_OUT):
        reads = room.read[layer, OWN if number == OUT else CROSS]
    elif number == DOWN:
        reads = room.wide[layer]
    quantised = room.many_bytes[layer] if number == DOWN else room.few_bytes[layer, number]
    scales, zeros = room.of_rows[layer, number], room.zeros[layer, number]
    if is_product:
        multiply(task, layer, number, reads, quantised, (scales, zeros), model, room)
        return
    if has_norm:
        norm_for(task, of_layer, which, model, room, reads)
    if is_int8:
        quantise_some(task, reads, quantised, scales, zeros)


@njit(**SERIAL)
def run(stage, task, model, places, cache, numbers):
    """One task of any stage: see step, whose arguments these are; numbers are those of a Room."""
    room, scale = Room(*numbers), model[4]
    slots, positions, parts, begins, source_slots, source_parts, source_begins = places
    keys, values, source_keys, source_values = cache
    layer, place = stage // STAGES, stage % STAGES
    if layer == room.after.shape[0]:
        norm_for(task, layer - 1, AFTER_ALL, model, room, room.out)
    elif place == ATTEND:
        held, found = (keys[layer], values[layer]), (room.sums[layer], room.found[layer])
        attend_some(task, room.qkv[layer], (slots, positions, parts, begins), *held, scale, *found)
    elif place == CROSS_ATTEND:
        held, found = (source_keys[layer], source_values[layer]), (room.source_sums[layer], room.source_found[layer])
        read_some(task, room.query[layer], source_slots, source_parts, *held, scale, *found)
    else:
        number, is_product = linear_of(stage)
        if number == OUT and not is_product:
            read = room.read[layer, OWN]
            merge_some(task, begins, keys[layer], room.sums[layer], room.found[layer], scale, read)
        elif number == CROSS_OUT and not is_product:
            found, read = (room.source_sums[layer], room.source_found[layer]), room.read[layer, CROSS]
            merge_some(task, source_begins, source_keys[layer], *found, scale, read)
        run_linear(task, layer, number, is_product, model, room)


@overload(run_task)
def _run_task(stage, task, model, places, cache, room):
    if len(cache) == 4:
        return lambda stage, task, model, places, cache, room: run(stage, task, model, places, cache, room)
    return None


@njit(**SERIAL)
def room_of(start, out, layers, heads, inner, parts, source_parts):
    """The arrays of a Room, for a step of start (rows, width) whose rows and sources are cut into so many parts.

    A loop over threads takes no named tuple.
    """
    rows, width = start.shape
    return (
        start, out,
        np.empty((layers, rows, 3 * width), np.float32),
        np.empty((layers, rows, width), np.float32),
        np.empty((layers, 2, rows, width), np.float32),
        np.empty((layers, 2, rows, width), np.float32),
        np.empty((layers, rows, inner), np.float32),
        np.empty((layers, rows, width), np.float32),
        np.empty((layers, 3, rows, width), np.float32),
        np.empty((layers, 5, rows, width * ROOM), np.uint8),
        np.empty((layers, rows, inner * ROOM), np.uint8),
        np.empty((layers, 6, rows), np.float32),
        np.empty((layers, 6, rows), np.int32),
        np.empty((layers, parts, width), np.float32),
        np.empty((layers, parts, 2, heads), np.float32),
        np.empty((layers, source_parts, width), np.float32),
        np.empty((layers, source_parts, 2, heads), np.float32),
    )  # fmt: skip


@njit(**PARALLEL)
def step(start, own, sources, weights, is_int8, norms, epsilon, activation, scale, caches, threads, out):
    """Post-norm layers over start (rows, width), a token a row → out (rows, width), which is not start.

    own: slots and positions (rows,), where each token's key and value belong, no slot twice; sources: slots and lengths
    (rows,) of what it reads besides; weights (layers, 6, 6): see encoder.apply, in the order of QKV …, none mixes (fp32
    layers have panels and a bias alone); norms (layers, 6, width): weight and bias of AFTER_OWN, then of the others;
    scale of the scores; caches: keys and values (layers, slots, positions, heads, head_dim), then the sources': fp32,
    or a bfloat16's 16 bits.
    """
    slots, positions = own
    source_slots, lengths = sources
    rows, layers = start.shape[0], weights.shape[0]
    parts, source_parts = cut(positions + 1), cut(lengths)
    begins, source_begins = begins_of(parts, rows), begins_of(source_parts, rows)
    counts = parts.shape[0], source_parts.shape[0]
    room = room_of(start, out, layers, caches[0].shape[3], weights[0, UP, 4], *counts)
    stages = layers * STAGES + 1
    counters = np.zeros((stages, 2, COUNTER_WORDS), np.int64)
    ends = np.empty(stages, np.int64)
    tasks = 0
    for stage in range(stages):
        tasks += tasks_of(stage, rows, *counts, weights, is_int8)
        ends[stage] = tasks
    marks = np.zeros(tasks, np.int64)
    model = (weights, norms, epsilon, activation, scale, is_int8)
    places = (slots, positions, parts, begins, source_slots, source_parts, source_begins)
    patience = PATIENCE_INT8 if is_int8 else PATIENCE_FP32
    for _ in prange(threads):
        begin = 0
        for stage in range(stages):
            finish_stage(stage, counters[stage], marks[begin : ends[stage]], patience, model, places, caches, room)
            begin = ends[stage]

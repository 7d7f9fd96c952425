"""The best output of a linear layer for each row, without the outputs: a vocabulary's are more than a cache holds.

A thread looks through some panels' outputs while they lie in its second cache, and keeps the best of each row.
"""

import numpy as np
from numba import njit, prange

from app.engine.compute.kernels import scalar
from app.engine.compute.kernels.linear import PARALLEL, SERIAL, pass_panels, ready, shape_of
from app.engine.compute.kernels.sixteen import ROOM
from app.engine.compute.kernels.tasks import take
from app.engine.compute.kernels.tops import blocks_of, tops_of_blocks
from app.engine.compute.kernels.vectors import PANEL

NONE = -1
"""In place of an output: a score is NaN or +infinity, or none is more than -infinity."""


@njit(**SERIAL)
def place_of(scores, score):
    """The first of these scores that is as large; NONE when none is."""
    for place in range(scores.size):
        if scores[place] == score:
            return place
    return NONE


@njit(**SERIAL)
def look_through(scores, first, tops, bests, places):
    """Keep of each row of scores (rows, …), outputs from `first` on, the best so far and its place.

    A row with a NaN or +infinity keeps +infinity and NONE. tops is room for a row's blocks, see tops_of_blocks.
    """
    for row in range(scores.shape[0]):
        if not tops_of_blocks(scores[row], tops):
            bests[row], places[row] = np.float32(np.inf), NONE
            continue
        best = scalar.largest(tops)
        if best > bests[row]:
            bests[row], places[row] = best, first + place_of(scores[row], best)


@njit(**SERIAL)
def merge_bests(bests, places, found):
    """What threads found, bests and places (threads, rows) → each row's place: the first of equals."""
    for row in range(found.size):
        best, place = np.float32(-np.inf), np.int64(NONE)
        for thread in range(bests.shape[0]):
            score, at = bests[thread, row], places[thread, row]
            if score > best or (score == best and at < place):
                best, place = score, at
        found[row] = place


@njit(**PARALLEL)
def best_outputs(x, is_int8, is_mixed, layer, banned, threads, found):
    """rows.best_of_rows of a linear layer's outputs for x (rows, inputs), those in `banned` taken for -infinity.

    layer (5,): where its panels, scales, sums and bias lie (of fp32 panels and bias), and how many outputs it has;
    found (rows,).
    """
    rows, inputs = x.shape
    room = np.empty((rows, inputs * ROOM if is_int8 else 0), np.uint8)
    scales, zeros = np.empty(rows, np.float32), np.empty(rows, np.int32)
    if is_int8:
        ready(x, is_mixed, room, scales, zeros)
    column_bytes, outputs = inputs if is_int8 else inputs * 4, layer[4]
    left, left_bytes = (room.ctypes.data, inputs * ROOM) if is_int8 else (x.ctypes.data, inputs * 4)
    bests, places = np.full((threads, rows), -np.inf, np.float32), np.full((threads, rows), NONE, np.int64)
    shape, tasks = shape_of(rows, column_bytes, (outputs + PANEL - 1) // PANEL)
    _, _, tiles, of_tile, panels, of_group = shape
    counter = np.zeros(1, np.int64)
    for thread in prange(threads):
        held, nothing = np.empty(of_tile * of_group * PANEL, np.float32), np.empty((0, 0), np.float32)
        task = take(counter.ctypes.data)
        while task < tasks:
            start, group = task % tiles * of_tile, task // tiles * of_group
            some, count, first = min(of_tile, rows - start), min(of_group, panels - group), group * PANEL
            scores = held[: some * count * PANEL].reshape(some, count * PANEL)
            pass_panels(
                is_int8, (0, some, 0, count), column_bytes, left + start * left_bytes,
                (scales.ctypes.data + start * 4, zeros.ctypes.data + start * 4),
                (layer[0] + first * column_bytes, layer[1] + first * 4, layer[2] + first * 4, layer[3] + first * 4),
                0, nothing, scores,
            )  # fmt: skip
            seen = scores[:, : min(count * PANEL, outputs - first)]
            for place in range(banned.size):
                if first <= banned[place] < first + seen.shape[1]:
                    seen[:, banned[place] - first] = np.float32(-np.inf)
            tops, stop = np.empty(blocks_of(seen[0]), np.float32), start + some
            look_through(seen, first, tops, bests[thread, start:stop], places[thread, start:stop])
            task = take(counter.ctypes.data)
    merge_bests(bests, places, found)
    scalar.keep(counter)
    scalar.keep(room)
    scalar.keep(scales)
    scalar.keep(zeros)

"""The most probable next tokens of every beam, with their log-probabilities: two passes over the scores, no sorting."""

import numpy as np
from numba import njit, prange

from app.engine.compute.kernels import scalar
from app.engine.compute.kernels.linear import PARALLEL, SERIAL
from app.engine.compute.kernels.tops import BLOCK, blocks_of, tops_of_blocks


@njit(**SERIAL)
def log_of_sum(scores, largest):
    """log(sum(exp(scores - largest))), in blocks, so that rounding does not grow with the vocabulary."""
    total = 0.0
    for start in range(0, scores.size, BLOCK):
        part = np.float32(0.0)
        for place in range(start, min(start + BLOCK, scores.size)):
            part += scalar.exp(scores[place] - largest)
        total += part
    return np.float32(np.log(total))


@njit(**SERIAL)
def keep(ids, values, count, token, value):
    """Put a token into its place among the `count` best so far, best first; returns how many there are then."""
    place = min(count, ids.size - 1)
    while place > 0 and values[place - 1] < value:
        ids[place], values[place] = ids[place - 1], values[place - 1]
        place -= 1
    ids[place], values[place] = token, value
    return min(count + 1, ids.size)


@njit(**SERIAL)
def best_of_hypothesis(scores, banned, ids, values):
    """The best tokens of scores (vocabulary,) that are not banned, best first, ties to the lower id.

    ids, values: as many as are wanted. Where there are fewer, or where a score is NaN or +infinity, ids are -1.
    """
    ids[:] = -1
    tops = np.empty(blocks_of(scores), np.float32)
    is_sound = tops_of_blocks(scores, tops)
    largest = tops.max()
    if not is_sound or largest == np.float32(-np.inf):
        return
    shift = log_of_sum(scores, largest)
    count, least = 0, np.float32(-np.inf)
    for block in range(tops.size):
        if not tops[block] > least:
            continue
        start, stop = block * BLOCK, min((block + 1) * BLOCK, scores.size)
        for place in range(start, stop):
            value = scores[place]
            if not value > least:
                continue
            is_banned = False
            for token in banned:
                is_banned |= token == place
            if not is_banned:
                count = keep(ids, values, count, place, value)
                least = values[count - 1] if count == ids.size else least
    for place in range(count):
        values[place] = values[place] - largest - shift


@njit(**PARALLEL)
def best_of_hypotheses(scores, banned, ids, values):
    """best_of_hypothesis of every row of scores (rows, vocabulary) into ids, values (rows, wanted)."""
    for row in prange(scores.shape[0]):
        best_of_hypothesis(scores[row], banned, ids[row], values[row])

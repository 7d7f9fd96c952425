"""Draws a token from a row of scores: temperature, top-k, top-p, min-p, without sorting the vocabulary.

Probabilities are positive fp32 numbers, so their bits sort as they do: a histogram of the upper bits finds where
top-k and top-p cut, and only the tokens of one bucket are ever ordered. Ties go to the lower id.
"""

import numpy as np
from numba import njit, prange

from app.engine.compute.kernels import scalar
from app.engine.compute.kernels.linear import PARALLEL, SERIAL

SHIFT = 14
BUCKETS = (0x3F800000 >> SHIFT) + 1
"""Of the numbers from 0 to 1."""
BLOCK = 64


@njit(**SERIAL)
def probabilities(scores, largest, temperature, out):
    """exp((scores - largest) / temperature), not normalised; 0 where the score is -infinity."""
    for place in range(scores.size):
        value = scalar.exp((scores[place] - largest) / temperature)
        out[place] = value if scores[place] - largest > np.float32(-87.0) * temperature else np.float32(0.0)


@njit(**SERIAL)
def cut(weights, counts, masses, limit, mass_limit):
    """Where to cut: keep weights above the returned one, and of its equals those up to the returned id.

    Keeps the `limit` largest, or the fewest whose sum reaches `mass_limit`, whichever is less. counts, masses: a
    histogram.
    """
    kept, mass = 0, 0.0
    bucket = BUCKETS - 1
    while bucket > 0 and kept + counts[bucket] < limit and mass + masses[bucket] < mass_limit:
        kept += counts[bucket]
        mass += masses[bucket]
        bucket -= 1
    inside = np.empty(counts[bucket], np.int64)
    found = 0
    for place in range(weights.size):
        if scalar.bits_of_float(weights[place]) >> SHIFT == bucket and found < inside.size:
            inside[found] = place
            found += 1
    values = np.empty(found, np.float32)
    for place in range(found):
        values[place] = -weights[inside[place]]
    order = np.argsort(values, kind="mergesort")
    last = 0
    for place in range(found):
        last = inside[order[place]]
        kept += 1
        mass += weights[last]
        if kept >= limit or mass >= mass_limit:
            break
    return weights[last], last, mass


@njit(**SERIAL)
def draw_row(scores, temperature, top_k, top_p, min_p, uniform):
    """One token of scores (vocabulary,), all finite or -infinity; `uniform` lies in [0, 1)."""
    largest = scores[0]
    for place in range(scores.size):
        largest = scores[place] if scores[place] > largest else largest
    weights = np.empty(scores.size, np.float32)
    probabilities(scores, largest, temperature, weights)
    least, last = np.float32(0.0), scores.size
    if top_k or top_p < 1.0:
        counts, masses = np.zeros(BUCKETS, np.int64), np.zeros(BUCKETS, np.float64)
        for place in range(weights.size):
            bucket = scalar.bits_of_float(weights[place]) >> SHIFT
            counts[bucket] += 1
            masses[bucket] += weights[place]
        total, limit = masses.sum(), weights.size
        if top_k and top_k < limit:
            limit = top_k
            least, last, total = cut(weights, counts, masses, limit, np.inf)
            last = scores.size  # transformers keeps every token that ties with the k-th
        if top_p < 1.0:
            least, last, total = cut(weights, counts, masses, limit, top_p * total)
        for place in range(weights.size):
            is_kept = weights[place] > least or (weights[place] == least and place <= last)
            weights[place] = weights[place] if is_kept else np.float32(0.0)
    if min_p > np.float32(0.0):  # the largest weight is 1
        for place in range(weights.size):
            weights[place] = weights[place] if weights[place] >= min_p else np.float32(0.0)
    sums = np.zeros((weights.size + BLOCK - 1) // BLOCK, np.float64)
    for block in range(sums.size):
        for place in range(block * BLOCK, min(weights.size, (block + 1) * BLOCK)):
            sums[block] += weights[place]
    left = uniform * sums.sum()
    chosen = 0
    for block in range(sums.size):
        if sums[block] <= left:
            left -= sums[block]
            continue
        for place in range(block * BLOCK, min(weights.size, (block + 1) * BLOCK)):
            if weights[place] > np.float32(0.0):
                chosen = place
                if left < weights[place]:
                    return chosen
                left -= weights[place]
        return chosen
    for place in range(weights.size):  # rounding ate the last of it: the last token that may be drawn
        chosen = place if weights[place] > np.float32(0.0) else chosen
    return chosen


@njit(**PARALLEL)
def draw_rows(scores, places, temperatures, top_ks, top_ps, min_ps, uniforms, found):
    """draw_row for the rows `places` of scores (rows, vocabulary), each with its own parameters, into found[place]."""
    for index in prange(places.size):
        found[places[index]] = draw_row(
            scores[places[index]],
            temperatures[index],
            top_ks[index],
            top_ps[index],
            min_ps[index],
            uniforms[index],
        )

"""Layer norm, and the choice of the best token, row by row."""

import numpy as np
from numba import njit, prange

from app.engine.compute.kernels import scalar
from app.engine.compute.kernels.linear import PARALLEL, SERIAL, WHOLE_ROWS
from app.engine.compute.kernels.sums import ORDERED, total
from app.engine.compute.kernels.tops import BLOCK, blocks_of, tops_of_blocks


@njit(**ORDERED)
def normalise_row(x, weight, bias, epsilon, out):
    """Layer norm of x (width,), with the mean taken first, as torch does it. Each place of out is written once."""
    mean = total(x) / np.float32(x.size)
    squares = np.empty(x.size, np.float32)
    for place in range(x.size):
        squares[place] = (x[place] - mean) * (x[place] - mean)
    inverse = np.float32(1.0) / np.sqrt(total(squares) / np.float32(x.size) + epsilon)
    for place in range(x.size):
        out[place] = (x[place] - mean) * inverse * weight[place] + bias[place]


@njit(**PARALLEL)
def normalise(x, weight, bias, epsilon, out):
    """Layer norm of every row of x (rows, width)."""
    if x.shape[0] < WHOLE_ROWS:
        for row in range(x.shape[0]):
            normalise_row(x[row], weight, bias, epsilon, out[row])
    else:
        for row in prange(x.shape[0]):
            normalise_row(x[row], weight, bias, epsilon, out[row])


@njit(**SERIAL)
def best_of_row(scores):
    """The place of the largest of `scores` (the first of equals); -1 when one of them is NaN or +infinity."""
    tops = np.empty(blocks_of(scores), np.float32)
    if not tops_of_blocks(scores, tops):
        return -1
    best = scalar.largest(tops)
    if best == np.float32(-np.inf):
        return -1
    for block in range(tops.size):
        if tops[block] == best:
            for place in range(block * BLOCK, min((block + 1) * BLOCK, scores.size)):
                if scores[place] == best:
                    return place
    return -1


@njit(**PARALLEL)
def best_of_rows(scores, found):
    """best_of_row of every row of scores (rows, vocabulary)."""
    for row in prange(scores.shape[0]):
        found[row] = best_of_row(scores[row])

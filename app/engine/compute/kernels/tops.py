"""The largest scores of a row, block by block: what both the best token and the best few are looked for in."""

import numpy as np
from numba import njit

from app.engine.compute.kernels import scalar
from app.engine.compute.kernels.linear import INFINITY_BITS, SERIAL

BLOCK = 64
MINUS_INFINITY_BITS = -8388608


@njit(**SERIAL)
def sortable(bits):
    """A number's bits as an integer that sorts as the number does, and back."""
    return np.int32(bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@njit(**SERIAL)
def blocks_of(scores):
    """Into how many blocks the scores are cut."""
    return (scores.size + BLOCK - 1) // BLOCK


@njit(**SERIAL)
def tops_of_blocks(scores, tops):
    """The largest score of each block; returns whether none is NaN or +infinity.

    Compared as integers that sort as the numbers do: a loop that looks for a largest float is never vector code.
    """
    bad = np.int32(0)
    for block in range(tops.size):
        start, stop = block * BLOCK, min((block + 1) * BLOCK, scores.size)
        top = np.int32(-2147483648)
        for place in range(start, stop):
            bits = scalar.bits_of_float(scores[place])
            top = max(top, sortable(bits))
            is_large = (bits & np.int32(0x7FFFFFFF)) >= np.int32(INFINITY_BITS)
            bad |= np.int32(is_large) & np.int32(bits != np.int32(MINUS_INFINITY_BITS))
        tops[block] = scalar.float_of_bits(sortable(top))
    return bad == 0

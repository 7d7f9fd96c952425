"""Rows for int8 products that sum pairs in 16 bits: AVX2's `vpmaddubsw`, which saturates there.

Three instructions make 32 products of bytes, where numbers of 16 bits take four and the splitting of both sides; but a
pair's products need 17 bits. So a row keeps what 16 bits hold the products of, whatever the weights are, and the rests
of the few other numbers (in rows of normal ones a step of four in 20) follow it as numbers of their own: the sums stay
exact.
"""

import numpy as np
from numba import njit

from app.engine.compute.kernels.microkernel import VECTOR_BYTES, VECTORS
from app.engine.compute.kernels.scalar import SERIAL

PAIR_MOST = 128
"""What the two numbers of a pair may add up to, either way: times 255, the largest number of a panel, that is less than
2^15. Each by itself is less than this."""
PANEL_ZERO = 128
"""A panel's numbers are this much more than the weights: the instruction wants one side unsigned."""
LARGEST = 254
"""Of the numbers that a row is quantised to."""


@njit(**SERIAL)
def part_of_pair(one, other):
    """A part of each number of a pair, as much as PAIR_MOST allows."""
    of_one = of_other = PAIR_MOST - 1
    if (one < 0) == (other < 0):
        of_one = min(of_one, max(PAIR_MOST - abs(other), PAIR_MOST // 2))
        of_other = min(of_other, PAIR_MOST - min(of_one, abs(one)))
    return max(-of_one, min(of_one, one)), max(-of_other, min(of_other, other))


@njit(**SERIAL)
def word_of(a, b, c, d):
    """Four numbers as the bytes of a word."""
    return np.int32((a & 255) | (b & 255) << 8 | (c & 255) << 16 | (d & 255) << 24)


@njit(**SERIAL)
def split_step(words, center, step, rests, count):
    """Keep of the four numbers of a step what pairs allow, and add the others to the rests → how many there are."""
    word = np.int64(words[step])
    a, b = (word & 255) - center, (word >> 8 & 255) - center
    c, d = (word >> 16 & 255) - center, (word >> 24 & 255) - center
    is_kept = True
    while is_kept or a != 0 or b != 0 or c != 0 or d != 0:
        e, f = part_of_pair(a, b)
        g, h = part_of_pair(c, d)
        if is_kept:
            words[step] = word_of(e + center, f + center, g + center, h + center)
            is_kept = False
        else:
            count += 1
            rests[2 * count], rests[2 * count + 1] = step * VECTOR_BYTES * VECTORS, word_of(e, f, g, h)
        a, b, c, d = a - e, b - f, c - g, d - h
    return count


@njit(**SERIAL)
def pair_row(numbers, zero, room):
    """A row's numbers (inputs,) above a zero → room: signed ones around a center, and what follows them, see ROOM.

    Each place of the room is written once, the numbers are used up. Returns the zero less the center. A center in the
    middle of most numbers leaves few rests, wherever the zero is; so far from both ends that three words hold the
    largest of a step.
    """
    inputs, pairs = numbers.size, numbers.size // 2
    total = np.uint32(0)
    for place in range(inputs):
        total = np.uint32(total + np.uint32(numbers[place]))
    center = min(max(np.int64(total) // inputs, PAIR_MOST // 2), LARGEST - PAIR_MOST // 2)
    two, flags = numbers.view(np.uint16), np.zeros((pairs + 7) // 8 * 8, np.uint8)
    least = max(0, center - PAIR_MOST + 1)
    low, low_of_both = np.uint16(least), np.uint16(2 * center - PAIR_MOST)
    span = np.uint16(min(255, center + PAIR_MOST - 1) - least)
    for pair in range(pairs):  # in 16 bits, which wrap: what is below the least is far above it
        one, other = np.uint16(two[pair] & np.uint16(255)), np.uint16(two[pair] >> np.uint16(8))
        most = max(np.uint16(one - low), np.uint16(other - low))
        both = np.uint16(one + other - low_of_both)
        flags[pair] = np.uint8(most > span) | np.uint8(both > np.uint16(2 * PAIR_MOST))
    words, rests, blocks = numbers.view(np.int32), room[inputs:].view(np.int32), flags.view(np.uint64)
    count = 0
    for block in range(blocks.size):
        if blocks[block] != 0:
            for step in range(4 * block, min(inputs // 4, 4 * block + 4)):
                if flags[2 * step] | flags[2 * step + 1]:
                    count = split_step(words, center, step, rests, count)
    for place in range(inputs):
        room[place] = np.uint8(numbers[place] - np.uint8(center))
    rests[0], rests[1] = count, -PANEL_ZERO * (np.int64(total) - inputs * center)
    return np.int32(zero - center)

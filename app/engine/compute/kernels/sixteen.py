"""Int8 products that are summed in 16 bits first, exactly: two and two by AVX2's `vpmaddubsw`, then those of two steps.

Five instructions, three of them multiplications, make 64 products of bytes, where numbers of 16 bits take eight and the
splitting of both sides. But `vpmaddubsw` saturates, and sums of four products need 18 bits. So a row keeps what 16 bits
hold the products of, whatever the weights are, and the rests of the few other numbers (in rows of normal ones in a
double step of fourteen) follow it as numbers of their own.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from app.engine.compute.kernels import HAS_512, HAS_FMA, HAS_VNNI_512
from app.engine.compute.kernels.scalar import SERIAL
from app.engine.compute.kernels.vectors import (
    INT8_BITS,
    INT16,
    INT32,
    INT64,
    LANES,
    VECTOR_BYTES,
    VECTORS,
    WORDS,
    Builder,
    fused,
    scalar_at,
    splat,
    vectors_at,
)

IN_16_BITS = HAS_FMA and not HAS_VNNI_512
"""Whether int8 products are summed so, and read rows and panels that are laid out for it."""
ROOM = 7 if IN_16_BITS else 1
"""Bytes of a row in an int8 product for each of its numbers. The numbers come first; in 16 bits they are signed, and
what those would not hold the products of follows: how many rests there are, what to add to the row's sums, and the
rests, in the mean hardly more than five for two steps, each as the place of a step's vectors in a panel and four
numbers more for it (4 bytes each). Whatever the numbers are, rows of any width have no more rests than there is room
for, of 8 numbers just as many: what 5.04, the most that a center in the middle of a row's numbers allows, comes from is
MOST, CENTER_LEAST, LEVELS and how pairs are parted."""
INPUTS_OF = 8 if IN_16_BITS else 4
"""Rows of an int8 product have a multiple of so many numbers."""
LEVELS, LEVELS_LEAST = 254, 160
"""The largest of the numbers that a row is quantised to, and where SPREAD_MOST asks for fewer the least."""
SPREAD_MOST = 22
"""How far from their mean a row's numbers may lie in the mean. Of normal rows with 254 levels 37 % of the double steps
had rests, with 220 22 %, with 200 14 %, with the 176 that this gives 7 %; and a rest costs about as much as a double
step. A row with a few numbers far from the others keeps all levels."""
MOST = 127
"""What four numbers whose products are summed may add up to, those above 0 and those below: times 255, the largest
number of a panel, that is less than 2^15."""
CENTER_LEAST = MOST // 4
"""Four numbers that are 0 may lie below the center."""
PANEL_ZERO = 128
"""A panel's numbers are this much more than the weights: the instruction wants one side unsigned."""
STEP_BYTES, REST_BYTES = VECTOR_BYTES * VECTORS, 8
BLOCK = 32
"""Numbers that are looked at together: a register's."""
TOGETHER, ALONE = 3, 15 << 16
"""Of what _over says of a block's first double step."""
PAIR_BYTES, WORD_BYTES, EACH_BYTE, HIGH_BITS = 0xFFFF, 0xFFFFFFFF, 0x01010101, 0x80808080
HALF = LANES // 2
BYTES, PAIR_SUMS = ir.VectorType(INT8_BITS, BLOCK), ir.VectorType(INT16, BLOCK // 2)
FOUR_SUMS = ir.VectorType(INT64, BLOCK // 8)


def _ones() -> Any:
    return ir.Constant(PAIR_SUMS, [1] * LANES)


def _pair_sums(builder: Builder, unsigned: Any, signed: Any) -> Any:
    numbers = [builder.bitcast(each, BYTES) for each in (unsigned, signed)]
    return fused(builder, "llvm.x86.avx2.pmadd.ub.sw", PAIR_SUMS, numbers)


def _splat_byte(builder: Builder, number: Any) -> Any:
    byte = builder.trunc(number, INT8_BITS)
    one = builder.insert_element(ir.Constant(BYTES, ir.Undefined), byte, ir.Constant(INT32, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(INT32, BLOCK), [0] * BLOCK))


def _pinned(builder: Builder, sums: Any) -> Any:
    """The same, in a register at this place: the compiler moves neither what made it nor a load across.

    Left to itself it begins so many products at a time that the sums leave their registers, where these are few.
    """
    if HAS_512:
        return sums
    kind = ir.FunctionType(sums.type, [sums.type])
    return builder.call(ir.InlineAsm(kind, "", "=x,0,~{memory}", side_effect=True), [sums])


def add_in_16_bits(builder: Builder, total: Any, panels: Sequence[Any], lefts: Sequence[Any]) -> Any:
    """total += in each lane and step four unsigned bytes of the panel times four signed bytes of the row."""
    sums = []
    for start in (0, HALF):
        places = ir.Constant(ir.VectorType(INT32, HALF), list(range(start, start + HALF)))
        before, found = builder.shuffle_vector(total, total, places), None
        for words in zip(panels, lefts, strict=True):
            pairs = _pair_sums(builder, *(builder.shuffle_vector(each, each, places) for each in words))
            found = pairs if found is None else builder.add(found, pairs)
        wide = fused(builder, "llvm.x86.avx2.pmadd.wd", before.type, [found, _ones()])
        sums.append(_pinned(builder, builder.add(wide, before)))
    return builder.shuffle_vector(*sums, ir.Constant(WORDS, list(range(LANES))))


def add_rests(builder: Builder, call: Any, start: Any, sums: list[Any]) -> list[Any]:
    """A row's sums of all vectors of a panel, with what follows the row's numbers, which lie at `start`: see ROOM."""
    panel, steps = call[2:4]
    held = builder.add(start, builder.mul(steps, ir.Constant(INT64, 4)))
    count = builder.zext(scalar_at(builder, held, ir.Constant(INT64, 0), INT32), INT64)
    offset = splat(builder, scalar_at(builder, held, ir.Constant(INT64, 4), INT32))
    sums = [builder.add(each, offset) for each in sums]
    before = builder.block
    loop, done = builder.append_basic_block("rest"), builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", count, ir.Constant(INT64, 0)), loop, done)
    builder.position_at_end(loop)
    index = builder.phi(INT64)
    index.add_incoming(ir.Constant(INT64, 0), before)
    totals = [builder.phi(WORDS) for _ in sums]
    following = builder.add(index, ir.Constant(INT64, 1))
    place = builder.mul(following, ir.Constant(INT64, REST_BYTES))
    at_panel = builder.zext(scalar_at(builder, held, place, INT32), INT64)
    word = splat(builder, scalar_at(builder, held, builder.add(place, ir.Constant(INT64, 4)), INT32))
    panels = vectors_at(builder, panel, at_panel, WORDS, VECTOR_BYTES)
    found = [add_in_16_bits(builder, total, [each], [word]) for total, each in zip(totals, panels, strict=True)]
    index.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
    builder.position_at_end(done)
    ends = [builder.phi(WORDS) for _ in sums]
    for total, end, first, last in zip(totals, ends, sums, found, strict=True):
        total.add_incoming(first, before)
        total.add_incoming(last, loop)
        end.add_incoming(first, before)
        end.add_incoming(last, loop)
    return ends


@intrinsic
def _over(typing, address, center):
    """Of the BLOCK numbers at this address, above a center: four bits for each double step, and as many 16 bits on.

    The first ones say whether MOST is less than the first pair of both steps together, the second pair of both, and
    the pairs of the second step; the others whether it is less than each of the four pairs.
    """

    def generate(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
        if not HAS_FMA:
            return ir.Constant(INT64, 0)  # never called (Int8Linear)
        numbers = builder.load(builder.inttoptr(arguments[0], BYTES.as_pointer()), align=1)
        centers = _splat_byte(builder, arguments[1])
        ones, most, over = ir.Constant(BYTES, [1] * BLOCK), ir.Constant(PAIR_SUMS, [MOST] * LANES), []
        for pair in ((numbers, centers), (centers, numbers)):
            apart = fused(builder, f"llvm.usub.sat.v{BLOCK}i8", BYTES, list(pair))
            pairs = _pair_sums(builder, apart, ones)
            later = builder.lshr(builder.bitcast(pairs, FOUR_SUMS), ir.Constant(FOUR_SUMS, [INT32.width] * 4))
            both = builder.add(pairs, builder.bitcast(later, PAIR_SUMS))
            over.append([builder.icmp_unsigned(">", sums, most) for sums in (both, pairs)])
        marks = [builder.zext(builder.bitcast(builder.or_(*each), INT16), INT64) for each in zip(*over, strict=True)]
        return builder.or_(marks[0], builder.shl(marks[1], ir.Constant(INT64, INT16.width)))

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _sum_of_block(typing, address):
    """The sum of the BLOCK numbers at this address."""

    def generate(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
        if not HAS_FMA:
            return ir.Constant(INT64, 0)  # never called (Int8Linear)
        numbers = builder.load(builder.inttoptr(arguments[0], BYTES.as_pointer()), align=1)
        sums = fused(builder, "llvm.x86.avx2.psad.bw", FOUR_SUMS, [numbers, ir.Constant(BYTES, [0] * BLOCK)])
        lanes = (builder.extract_element(sums, ir.Constant(INT32, lane)) for lane in range(FOUR_SUMS.count))
        return reduce(builder.add, lanes)

    return types.int64(types.int64), generate


@njit(**SERIAL)
def sum_of(numbers):
    """Of bytes (inputs,)."""
    found, start, whole = np.int64(0), numbers.ctypes.data, numbers.size // BLOCK * BLOCK
    for first in range(0, whole, BLOCK):
        found += _sum_of_block(start + first)
    for place in range(whole, numbers.size):
        found += np.int64(numbers[place])
    return found


@njit(**SERIAL)
def part_of_pair(one, other):
    """A part of each number of a pair, as much as MOST allows."""
    of_one = of_other = MOST
    if (one < 0) == (other < 0):
        of_one = min(abs(one), max(MOST - abs(other), MOST // 2))
        of_other = MOST - of_one
    return max(-of_one, min(of_one, one)), max(-of_other, min(of_other, other))


@njit(**SERIAL)
def fits(a, b, c, d):
    """Whether the products of four numbers, times any of a panel, fit in 16 bits."""
    above = max(a, 0) + max(b, 0) + max(c, 0) + max(d, 0)
    return above <= MOST and above - (a + b + c + d) <= MOST


@njit(**SERIAL)
def word_of(a, b, c, d):
    """Four numbers as the bytes of a word."""
    return np.int32((a & 255) | (b & 255) << 8 | (c & 255) << 16 | (d & 255) << 24)


@njit(**SERIAL)
def numbers_of(word, center):
    """The four bytes of a word, less a center."""
    held = np.int64(word)
    return (held & 255) - center, (held >> 8 & 255) - center, (held >> 16 & 255) - center, (held >> 24 & 255) - center


@njit(**SERIAL)
def add_to_rests(a, b, c, d, step, rests, count):
    """Add these numbers of a step to a row's rests, in parts that pairs allow → how many rests there are."""
    while a != 0 or b != 0 or c != 0 or d != 0:
        e, f = part_of_pair(a, b)
        g, h = part_of_pair(c, d)
        count += 1
        rests[2 * count], rests[2 * count + 1] = step * STEP_BYTES, word_of(e, f, g, h)
        a, b, c, d = a - e, b - f, c - g, d - h
    return count


@njit(**SERIAL)
def split_double_step(words, center, step, rests, count):
    """Keep what fits of the numbers of two steps, and add the others to the rests → how many there are."""
    a, b, c, d = numbers_of(words[step], center)
    e, f, g, h = numbers_of(words[step + 1], center)
    i, j = part_of_pair(e, f)
    k, m = part_of_pair(g, h)
    n, o, p, q = a, b, c, d
    if not fits(a, b, i, j):
        n = o = 0
    if not fits(c, d, k, m):
        p = q = 0
    words[step] = word_of(n + center, o + center, p + center, q + center)
    words[step + 1] = word_of(i + center, j + center, k + center, m + center)
    count = add_to_rests(a - n, b - o, c - p, d - q, step, rests, count)
    return add_to_rests(e - i, f - j, g - k, h - m, step + 1, rests, count)


@njit(**SERIAL)
def move_pairs(words, center, step, pairs, rests, count):
    """Move the pairs of a step, of which the low two bits of `pairs` tell, to a rest of their own → how many rests."""
    moved = (PAIR_BYTES if pairs & 1 else np.int64(0)) | (PAIR_BYTES << 16 if pairs & 2 else np.int64(0))
    word, centers = np.int64(words[step]) & WORD_BYTES, np.int64(center) * EACH_BYTE
    words[step] = np.int32((word & ~moved) | (centers & moved))
    less = ((word | HIGH_BITS) - (centers & ~HIGH_BITS)) ^ ((word ^ ~centers) & HIGH_BITS)  # byte by byte
    count += 1
    rests[2 * count], rests[2 * count + 1] = step * STEP_BYTES, np.int32(less & moved)
    return count


@njit(**SERIAL)
def lay_row(numbers, zero, room):
    """A row's numbers (inputs,) above a zero → room: signed ones around a center, and what follows them, see ROOM.

    Each place of the room is written once, the numbers are used up. Returns the zero less the center. A center in the
    middle of most numbers leaves few rests, wherever the zero is.
    """
    inputs = numbers.size
    total = sum_of(numbers)
    center = min(max(total // inputs, CENTER_LEAST), LEVELS - CENTER_LEAST)
    words, rests = numbers.view(np.int32), room[inputs:].view(np.int32)
    count = 0
    numbers_at = numbers.ctypes.data
    whole, marked = inputs // BLOCK * BLOCK, 0
    found = np.empty(inputs // 8 + 1, np.int64)
    for first in range(0, whole, BLOCK):
        marks = _over(numbers_at + first, center)
        if marks == 0:
            continue
        for double in range(BLOCK // 8):  # no branches, which nothing could foresee
            found[marked] = marks << 32 | (first // 4 + 2 * double)
            marked += (marks & (TOGETHER | ALONE)) != 0
            marks >>= 4
    for mark in range(marked):
        marks, step = found[mark] >> 32, found[mark] & WORD_BYTES
        if marks & ALONE:
            count = split_double_step(words, center, step, rests, count)
        else:
            count = move_pairs(words, center, step, marks, rests, count)
    for step in range(whole // 4, inputs // 4, 2):
        count = split_double_step(words, center, step, rests, count)
    for place in range(inputs):
        room[place] = np.uint8(numbers[place] - np.uint8(center))
    rests[0], rests[1] = count, -PANEL_ZERO * (total - inputs * center)
    return np.int32(zero - center)

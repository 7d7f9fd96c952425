"""heads.py's loops over a bfloat16 cache by pairs of numbers, where the processor multiplies such pairs in one step.

A dot takes two following numbers of a key at a time, a sum over values the same number of two following positions.
What is added is fp32.
"""

from typing import Any

from llvmlite import ir
from numba import njit

from app.engine.compute.kernels.heads import (
    BLOCK,
    at,
    close_loop,
    for_widths,
    open_loop,
    prefetch,
    read,
    write,
)
from app.engine.compute.kernels.microkernel import add_pairs, add_products
from app.engine.compute.kernels.vectors import FLOAT, FLOATS, INT32, INT64, LANES, VECTOR_BYTES, WORDS, splat

HALVES = ir.VectorType(ir.IntType(16), 2 * LANES)
Builder = Any


def _halved(vectors: list[Any], bit: int, builder: Builder) -> list[Any]:
    """Pairs of vectors as their sums: of lanes that differ in this bit, those without it are the first one's."""
    low = [place if not place & bit else LANES + place - bit for place in range(LANES)]
    high = [place + bit if not place & bit else LANES + place for place in range(LANES)]
    masks = [ir.Constant(WORDS, places) for places in (low, high)]
    pairs = zip(vectors[::2], vectors[1::2], strict=True)
    return [builder.fadd(*(builder.shuffle_vector(*pair, mask) for mask in masks)) for pair in pairs]


def _in_lanes(builder: Builder, totals: list[Any]) -> Any:
    """The sum over the lanes of each of BLOCK vectors, in a lane of its own: (BLOCK,)."""
    bit = 1
    while bit < BLOCK:
        totals, bit = _halved(totals, bit, builder), 2 * bit
    found, lanes = totals[0], LANES
    while lanes > BLOCK:
        lanes //= 2
        masks = [ir.Constant(ir.VectorType(INT32, lanes), list(range(start, start + lanes))) for start in (0, lanes)]
        found = builder.fadd(*(builder.shuffle_vector(found, found, mask) for mask in masks))
    return found


def _dots(builder: Builder, width: int, given: list[Any]) -> None:
    queries, keys, heads, scores, apart, ahead = given
    places = range(0, 2 * width, VECTOR_BYTES)
    row = builder.mul(heads, ir.Constant(INT64, 2 * width))
    head = open_loop(builder, heads)
    prefetch(builder, at(builder, ahead, (head.index, BLOCK * 2 * width)), BLOCK * 2 * width)
    query = at(builder, queries, (head.index, 2 * width))
    parts = [read(builder, at(builder, query, place), WORDS, 2) for place in places]
    totals = []
    key = at(builder, keys, (head.index, 2 * width))
    for _ in range(BLOCK):
        total = ir.Constant(FLOATS, [0.0] * LANES)
        for place, part in zip(places, parts, strict=True):
            total = add_pairs(builder, total, read(builder, at(builder, key, place), WORDS, 2), part)
        totals.append(total)
        key = at(builder, key, row)
    write(builder, _in_lanes(builder, totals), at(builder, scores, (head.index, apart)))
    close_loop(builder, head)


def _interleaved(builder: Builder, first: Any, second: Any) -> list[Any]:
    """The numbers of two positions as pairs, (lower, upper): each quarter's lower four numbers, and its upper four."""
    masks = [
        [place for quarter in range(4) for number in range(4) for place in _pair(8 * quarter + upper + number)]
        for upper in (0, 4)
    ]
    kind = ir.VectorType(INT32, 2 * LANES)
    return [builder.shuffle_vector(first, second, ir.Constant(kind, mask)) for mask in masks]


def _pair(number: int) -> tuple[int, int]:
    return number, 2 * LANES + number


def _in_order(builder: Builder, lower: Any, upper: Any) -> list[Any]:
    """Sums of `_interleaved` pairs → those of the first LANES numbers, and of the others."""
    places = [number // 8 * 4 + number % 4 + (LANES if number % 8 >= 4 else 0) for number in range(2 * LANES)]
    masks = [ir.Constant(WORDS, places[:LANES]), ir.Constant(WORDS, places[LANES:])]
    return [builder.shuffle_vector(lower, upper, mask) for mask in masks]


def _sums(builder: Builder, width: int, given: list[Any]) -> None:
    weights, apart, values, heads, count, sums, ahead = given
    one, two = ir.Constant(INT64, 1), ir.Constant(INT64, 2)
    row = builder.mul(heads, ir.Constant(INT64, 2 * width))
    head = open_loop(builder, heads)
    prefetch(builder, at(builder, ahead, (head.index, BLOCK * 2 * width)), BLOCK * 2 * width)
    targets = [at(builder, sums, (head.index, 4 * width), place) for place in range(0, 4 * width, VECTOR_BYTES)]
    befores = [read(builder, target, FLOATS, 4) for target in targets]
    step = open_loop(builder, builder.udiv(builder.add(count, one), two))
    totals = [builder.phi(FLOATS) for _ in targets]
    weight = splat(builder, read(builder, at(builder, weights, (head.index, apart), (step.index, 4)), INT32, 2))
    first = builder.mul(step.index, two)
    second = builder.add(first, one)
    second = builder.select(builder.icmp_signed("<", second, count), second, first)
    rows = [at(builder, values, (place, row), (head.index, 2 * width)) for place in (first, second)]
    pairs = [
        pair
        for place in range(0, 2 * width, VECTOR_BYTES)
        for pair in _interleaved(builder, *(read(builder, at(builder, row, place), HALVES, 2) for row in rows))
    ]
    for total, before, pair in zip(totals, befores, pairs, strict=True):
        total.add_incoming(before, step.before)
        total.add_incoming(add_pairs(builder, total, weight, pair), step.body)
    close_loop(builder, step)
    for target, total in zip(targets, totals, strict=True):
        write(builder, total.incomings[1][0], target)
    close_loop(builder, head)


def _finish(builder: Builder, width: int, given: list[Any]) -> None:
    sums, heads, factors, out = given
    head = open_loop(builder, heads)
    factor = splat(builder, read(builder, at(builder, factors, (head.index, 4)), FLOAT, 4))
    for place in range(0, 4 * width, 2 * VECTOR_BYTES):
        first = at(builder, sums, (head.index, 4 * width), place)
        found = [read(builder, at(builder, first, part), FLOATS, 4) for part in (0, VECTOR_BYTES)]
        for part, ordered in enumerate(_in_order(builder, *found)):
            target = at(builder, out, (head.index, 4 * width), place + VECTOR_BYTES * part)
            write(builder, add_products(builder, read(builder, target, FLOATS, 4), ordered, factor), target)
    close_loop(builder, head)


_dot_pairs, _sum_pairs, _finish_pairs = for_widths(_dots, 6), for_widths(_sums, 7), for_widths(_finish, 4)


@njit(nogil=True, cache=True)
def dots_pairs(width, queries, keys, heads, scores, apart, ahead):
    """heads.dots_fp32 in bfloat16, the queries' too."""
    _dot_pairs(width, (queries, keys, heads, scores, apart, ahead))


@njit(nogil=True, cache=True)
def sums_pairs(width, weights, apart, values, heads, count, sums, ahead):
    """heads.sums_fp32 in bfloat16; an odd number of weights is followed by a 0, and `add_sums` reads the sums."""
    _sum_pairs(width, (weights, apart, values, heads, count, sums, ahead))


@njit(nogil=True, cache=True)
def add_sums(width, sums, heads, factors, out):
    """out (heads, width) += factors (heads,) times what sums_pairs has summed; addresses of fp32."""
    _finish_pairs(width, (sums, heads, factors, out))

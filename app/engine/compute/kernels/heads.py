"""The inner loops of attention for one query of each of some heads, as LLVM instructions: dots and weighted sums.

A query, or a sum, stays in registers while some positions of its head pass by. There is a pair of loops for each kind
of cache; heads_bf16.py has a third.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from app.engine.compute.kernels.microkernel import add_products
from app.engine.compute.kernels.vectors import FLOAT, FLOATS, INT64, LANES, WORDS, fused, prefetch_line, splat

WIDTHS = (32, 64, 96, 128)
"""Widths of a head, in numbers, that have a kernel."""
BLOCK = 4
"""Positions of a head that are read before the next head's."""
LINE_BYTES = 64
HALVES = ir.VectorType(ir.IntType(16), LANES)
FAST = ("reassoc", "contract", "nsz")
Builder = Any


class Loop(NamedTuple):
    """A loop that is open: what the builder adds runs for each `index`."""

    before: Any
    body: Any
    index: Any
    after: Any
    count: Any


def open_loop(builder: Builder, count: Any) -> Loop:
    """Over 0 … count - 1, count at least 1."""
    before = builder.block
    body, after = builder.append_basic_block("body"), builder.append_basic_block("after")
    builder.branch(body)
    builder.position_at_end(body)
    index = builder.phi(INT64)
    index.add_incoming(ir.Constant(INT64, 0), before)
    return Loop(before, body, index, after, count)


def close_loop(builder: Builder, loop: Loop) -> None:
    """What the builder adds from now on follows the loop."""
    following = builder.add(loop.index, ir.Constant(INT64, 1))
    loop.index.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, loop.count), loop.body, loop.after)
    builder.position_at_end(loop.after)


def at(builder: Builder, base: Any, *steps: Any) -> Any:
    """The address `base` and some bytes: each step is a number of them, or how many times how many."""
    for step in steps:
        count, size = step if isinstance(step, tuple) else (step, 1)
        one, other = (each if isinstance(each, ir.Value) else ir.Constant(INT64, each) for each in (count, size))
        base = builder.add(base, builder.mul(one, other))
    return base


def read(builder: Builder, address: Any, kind: ir.Type, align: int) -> Any:
    """What lies at an address."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def write(builder: Builder, number: Any, address: Any) -> None:
    """Numbers of 4 bytes to an address."""
    builder.store(number, builder.inttoptr(address, number.type.as_pointer()), align=4)


def prefetch(builder: Builder, address: Any, count: int) -> None:
    """Begins to bring `count` bytes nearer, and waits for none of them; an address may be anything.

    The loops read a head of some positions, then the next head: no order in which the processor would read ahead.
    """
    for line in range(0, count, LINE_BYTES):
        prefetch_line(builder, at(builder, address, line))


def for_widths(emit: Callable[[Builder, int, list[Any]], None], arguments: int) -> Any:
    """An intrinsic that takes a width of WIDTHS and a tuple of integers, and runs what `emit` adds for that width."""

    @intrinsic
    def called(typing, width, others):
        def generate(context: Any, builder: Builder, _signature: Any, values: Any) -> Any:
            given = [builder.extract_value(values[1], place) for place in range(arguments)]
            for each in WIDTHS:
                with builder.if_then(builder.icmp_signed("==", values[0], ir.Constant(INT64, each))):
                    emit(builder, each, given)
            return context.get_dummy_value()

        return types.void(types.int64, types.UniTuple(types.int64, arguments)), generate

    return called


def _held(builder: Builder, address: Any, *, is_bf16: bool) -> Any:
    """Sixteen stored numbers, as fp32."""
    if not is_bf16:
        return read(builder, address, FLOATS, 4)
    words = builder.zext(read(builder, address, HALVES, 2), WORDS)
    return builder.bitcast(builder.shl(words, ir.Constant(WORDS, [16] * LANES)), FLOATS)


def _dots(*, is_bf16: bool) -> Any:
    size = 2 if is_bf16 else 4

    def emit(builder: Builder, width: int, given: list[Any]) -> None:
        queries, keys, heads, scores, apart, ahead = given
        starts = range(0, width, LANES)
        row = builder.mul(heads, ir.Constant(INT64, size * width))
        head = open_loop(builder, heads)
        prefetch(builder, at(builder, ahead, (head.index, BLOCK * size * width)), BLOCK * size * width)
        parts = [read(builder, at(builder, queries, (head.index, 4 * width), 4 * start), FLOATS, 4) for start in starts]
        first = at(builder, keys, (head.index, size * width))
        for position in range(BLOCK):
            total = None
            for start, part in zip(starts, parts, strict=True):
                held = _held(builder, at(builder, first, size * start), is_bf16=is_bf16)
                total = builder.fmul(part, held) if total is None else add_products(builder, total, part, held)
            nothing = ir.Constant(FLOAT, -0.0)
            score = fused(builder, "llvm.vector.reduce.fadd.v16f32", FLOAT, [nothing, total], fastmath=FAST)
            write(builder, score, at(builder, scores, (head.index, apart), 4 * position))
            first = at(builder, first, row)
        close_loop(builder, head)

    return for_widths(emit, 6)


def _sums(*, is_bf16: bool) -> Any:
    size = 2 if is_bf16 else 4

    def emit(builder: Builder, width: int, given: list[Any]) -> None:
        weights, apart, values, heads, count, sums, ahead = given
        starts = range(0, width, LANES)
        row = builder.mul(heads, ir.Constant(INT64, size * width))
        head = open_loop(builder, heads)
        prefetch(builder, at(builder, ahead, (head.index, BLOCK * size * width)), BLOCK * size * width)
        places = [at(builder, sums, (head.index, 4 * width), 4 * start) for start in starts]
        before = [read(builder, place, FLOATS, 4) for place in places]
        position = open_loop(builder, count)
        totals = [builder.phi(FLOATS) for _ in starts]
        weight = splat(builder, read(builder, at(builder, weights, (head.index, apart), (position.index, 4)), FLOAT, 4))
        first = at(builder, values, (position.index, row), (head.index, size * width))
        for start, total, sum_before in zip(starts, totals, before, strict=True):
            held = _held(builder, at(builder, first, size * start), is_bf16=is_bf16)
            total.add_incoming(sum_before, position.before)
            total.add_incoming(add_products(builder, total, weight, held), position.body)
        close_loop(builder, position)
        for place, total in zip(places, totals, strict=True):
            write(builder, total.incomings[1][0], place)
        close_loop(builder, head)

    return for_widths(emit, 7)


_dots_fp32, _dots_bf16 = _dots(is_bf16=False), _dots(is_bf16=True)
_sums_fp32, _sums_bf16 = _sums(is_bf16=False), _sums(is_bf16=True)


@njit(nogil=True, cache=True)
def dots_fp32(width, queries, keys, heads, scores, apart, ahead):
    """Scores of BLOCK positions, for each of their heads: its query · each key.

    Addresses: queries (heads, width) of fp32; keys (BLOCK, heads, width); scores of fp32, a head's `apart` bytes after
    those of the one before; ahead, of as many bytes as the keys', which will be read soon. width: one of WIDTHS.
    """
    _dots_fp32(width, (queries, keys, heads, scores, apart, ahead))


@njit(nogil=True, cache=True)
def dots_bf16(width, queries, keys, heads, scores, apart, ahead):
    """dots_fp32 with keys in bfloat16."""
    _dots_bf16(width, (queries, keys, heads, scores, apart, ahead))


@njit(nogil=True, cache=True)
def sums_fp32(width, weights, apart, values, heads, count, sums, ahead):
    """Adds weights[p] * values[p] of `count` positions, at most BLOCK, to each head's sum, (heads, width)."""
    _sums_fp32(width, (weights, apart, values, heads, count, sums, ahead))


@njit(nogil=True, cache=True)
def sums_bf16(width, weights, apart, values, heads, count, sums, ahead):
    """sums_fp32 of values in bfloat16."""
    _sums_bf16(width, (weights, apart, values, heads, count, sums, ahead))

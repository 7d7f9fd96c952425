"""The innermost loop of a matrix product, generated as LLVM instructions for the 512-bit vector units, or 256-bit ones.

One call multiplies `rows` rows of the left matrix with a panel of PANEL columns of the packed right one and keeps
every sum in a register: the loop reads the panel once and writes nothing. (Goto and van de Geijn, "Anatomy of high-
performance matrix multiplication", 2008; the panel layout is layers.py's.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from app.engine.compute.kernels import HAS_512, HAS_VNNI_512
from app.engine.compute.kernels.sixteen import IN_16_BITS, add_in_16_bits, add_rests
from app.engine.compute.kernels.vectors import (
    FLOAT,
    FLOATS,
    INT32,
    INT64,
    LANES,
    PAIRS,
    PANEL,
    VECTOR_BYTES,
    VECTORS,
    WORDS,
    Builder,
    fused,
    prefetch_line,
    scalar_at,
    splat,
    store_at,
    vectors_at,
)

CALL_FIELDS = 15
ROWS_MAX = 12
"""Rows of a call: 12 x 2 sums, two panel vectors and a broadcast fill 27 of the 32 registers."""
ROWS_MAX_256 = 6
"""The same of registers half as wide, for half a panel at a time: 6 x 2 sums, two parts of a panel vector and a
broadcast fill 15 of the 16."""
ROWS_IN_16_BITS = 4
"""In 16 bits 4 x 2 sums, two steps of the panel and what is between bytes and sums fill all."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How numbers of a kind are multiplied and summed."""

    sums: ir.VectorType
    read: ir.Type
    """Four bytes of a row and of a column, as they are loaded."""
    step: Callable[[Builder, Any, Any, Any], Any]
    """A vector's sums, a step of the panel and of a row, or lists of them → the sums with their products."""
    finish: Callable[[Builder, list[list[Any]], Any, Sequence[int]], list[list[Any]]]
    goes_on: bool = False
    """Whether sums begin as those of earlier steps: fields 4 and 5 of a call are their address and a row's stride."""
    at_once: int = 1
    """Steps that are summed together; of more than one, something follows each row's numbers, see sixteen.ROOM."""


def _add_bytes(builder: Builder, total: Any, panel: Any, left: Any) -> Any:
    """total += four unsigned bytes of the row times four signed bytes of the panel, in each lane."""
    if not HAS_VNNI_512:
        return total  # compiled beside the fp32 kernels, and never called (Int8Linear)
    return fused(builder, "llvm.x86.avx512.vpdpbusd.512", WORDS, [total, left, panel])


def add_products(builder: Builder, total: Any, panel: Any, left: Any) -> Any:
    """total += the row's number times the panel's, in each lane."""
    return fused(builder, "llvm.fma.v16f32", FLOATS, [panel, left, total])


def add_pairs(builder: Builder, total: Any, panel: Any, left: Any) -> Any:
    """total += two bfloat16 numbers of the row times two of the panel, in each lane."""
    pairs = [builder.bitcast(words, PAIRS) for words in (left, panel)]
    return fused(builder, "llvm.x86.avx512bf16.dpbf16ps.512", FLOATS, [total, *pairs])


def _accumulate(
    builder: Builder, starts: list[Any], kind: Kind, call: Any, places: Sequence[int], lines: int
) -> list[list[Any]]:  # fmt: skip
    """The loop over the steps → each row's sums, of these vectors of the panel."""
    panel, steps, rows = call[2], call[3], len(starts)
    ahead, pace = builder.add(panel, call[13]), call[14]
    if 0 not in places:
        ahead = builder.add(ahead, builder.mul(steps, pace))
    firsts = [[ir.Constant(kind.sums, [0] * LANES)] * len(places)] * rows
    if kind.goes_on:
        offsets = [builder.mul(call[5], ir.Constant(INT64, row)) for row in range(rows)]
        firsts = [vectors_at(builder, call[4], offset, kind.sums, 4, places) for offset in offsets]
    before = builder.block
    loop, done = builder.append_basic_block("step"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    index = builder.phi(INT64)
    index.add_incoming(ir.Constant(INT64, 0), before)
    totals = [[builder.phi(kind.sums) for _ in places] for _ in range(rows)]
    for total, first in zip(chain.from_iterable(totals), chain.from_iterable(firsts), strict=True):
        total.add_incoming(first, before)
    panels, offsets = [], []
    for step in range(kind.at_once):
        number = builder.add(index, ir.Constant(INT64, step))
        panel_offset = builder.mul(number, ir.Constant(INT64, VECTOR_BYTES * VECTORS))
        panels.append(vectors_at(builder, panel, panel_offset, ir.VectorType(kind.read, LANES), 64, places))
        offsets.append(builder.mul(number, ir.Constant(INT64, 4)))
        if step < lines:
            prefetch_line(builder, builder.add(ahead, builder.mul(number, pace)))
    found: list[list[Any]] = []
    for start, of_row in zip(starts, totals, strict=True):
        lefts = [splat(builder, scalar_at(builder, start, offset, kind.read)) for offset in offsets]
        both = [(held, lefts) if len(held) > 1 else (held[0], lefts[0]) for held in zip(*panels, strict=True)]
        found.append([kind.step(builder, total, *each) for total, each in zip(of_row, both, strict=True)])
    following = builder.add(index, ir.Constant(INT64, kind.at_once))
    index.add_incoming(following, loop)
    for total, new in zip(chain.from_iterable(totals), chain.from_iterable(found), strict=True):
        total.add_incoming(new, loop)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, done)
    builder.position_at_end(done)
    return found


def _finish_int8(builder: Builder, sums: list[list[Any]], call: Any, places: Sequence[int]) -> list[list[Any]]:
    """Minus the row's zero times the sum of the column's weights, times both scales, plus the bias."""
    scales, zeros, weight_scales, weight_sums, bias = call[4:9]
    start = ir.Constant(INT64, 0)
    factors, columns, biases = (
        vectors_at(builder, base, start, vector, 4, places)
        for base, vector in ((weight_scales, FLOATS), (weight_sums, WORDS), (bias, FLOATS))
    )
    finished = []
    for row, totals in enumerate(sums):
        place = ir.Constant(INT64, 4 * row)
        zero = splat(builder, scalar_at(builder, zeros, place, INT32))
        scale = splat(builder, scalar_at(builder, scales, place, FLOAT))
        whole = [builder.sub(total, builder.mul(zero, column)) for total, column in zip(totals, columns, strict=True)]
        finished.append(
            [
                builder.fadd(builder.fmul(builder.sitofp(each, FLOATS), builder.fmul(scale, factor)), added)
                for each, factor, added in zip(whole, factors, biases, strict=True)
            ]
        )
    return finished


def _finish_fp32(builder: Builder, sums: list[list[Any]], call: Any, places: Sequence[int]) -> list[list[Any]]:
    """Plus the bias."""
    biases = vectors_at(builder, call[8], ir.Constant(INT64, 0), FLOATS, 4, places)
    return [[builder.fadd(total, added) for total, added in zip(totals, biases, strict=True)] for totals in sums]


def _finish_bf16(builder: Builder, sums: list[list[Any]], call: Any, _places: Sequence[int]) -> list[list[Any]]:
    """Times the row's scale."""
    scales = [
        splat(builder, scalar_at(builder, call[4], ir.Constant(INT64, 4 * row), FLOAT)) for row in range(len(sums))
    ]
    return [[builder.fmul(total, scale) for total in totals] for totals, scale in zip(sums, scales, strict=True)]


def _store_sums(builder: Builder, results: list[list[Any]], call: Any, places: Sequence[int]) -> None:
    """To the rows of `out`, each of these vectors; plus those of `added`, unless its address is 0."""
    added, added_stride, out, stride = call[9:13]
    plain = builder.append_basic_block("plain")
    plus, after = builder.append_basic_block("plus"), builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed("==", added, ir.Constant(INT64, 0)), plain, plus)
    for block, is_plain in ((plain, True), (plus, False)):
        builder.position_at_end(block)
        for row, values in enumerate(results):
            if not is_plain:
                offset = builder.mul(added_stride, ir.Constant(INT64, row))
                others = vectors_at(builder, added, offset, FLOATS, 4, places)
                values = [builder.fadd(value, other) for value, other in zip(values, others, strict=True)]
            store_at(builder, out, builder.mul(stride, ir.Constant(INT64, row)), values, places)
        builder.branch(after)
    builder.position_at_end(after)


def _kernel(rows: int, kind: Kind, lines: int = 1) -> Any:
    """An intrinsic over addresses and strides in bytes: `rows` rows of the left matrix times a panel, and what follows.

    A step reads 4 bytes of each row of `left` and VECTORS vectors of the panel; where registers are few, each has a
    loop of its own. The sums then become fp32 numbers as the kind says, get, unless its address is 0, the row of
    `added`, and are stored to `out`. The first step also asks for a line that lies as many bytes after the panel as the
    last field but one says, each following step for one so much further on as the last says; a second loop goes on so.
    Of the steps that are made at once only the first `lines` do so.
    """

    def generate(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
        call = [builder.extract_value(arguments[0], place) for place in range(CALL_FIELDS)]
        starts = [builder.add(call[0], builder.mul(call[1], ir.Constant(INT64, row))) for row in range(rows)]
        parts = [range(VECTORS)] if HAS_512 else [[place] for place in range(VECTORS)]
        if kind.at_once > 1:  # rests of whole panels: what a row has of them is found out once
            found = [_accumulate(builder, starts, kind, call, places, lines) for places in parts]
            sums = [list(chain.from_iterable(of_row)) for of_row in zip(*found, strict=True)]
            sums = [add_rests(builder, call, *each) for each in zip(starts, sums, strict=True)]
            _store_sums(builder, kind.finish(builder, sums, call, range(VECTORS)), call, range(VECTORS))
            return context.get_dummy_value()
        for places in parts:
            sums = _accumulate(builder, starts, kind, call, places, lines)
            _store_sums(builder, kind.finish(builder, sums, call, places), call, places)
        return context.get_dummy_value()

    @intrinsic
    def kernel(typing, call):
        return types.void(types.UniTuple(types.intp, CALL_FIELDS)), generate

    return kernel


@intrinsic
def store_rows(typing, rows, values, added, out, stride):
    """Copy fp32 `values` (rows, PANEL) to rows of `out`, plus `added` (same stride) unless its address is 0."""

    def generate(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
        count, source, other, target, step = arguments
        zero, before = ir.Constant(INT64, 0), builder.block
        loops = [builder.append_basic_block(name) for name in ("plain", "plus")]
        after = builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed("==", other, zero), *loops)
        for loop, is_plain in zip(loops, (True, False), strict=True):
            builder.position_at_end(loop)
            index = builder.phi(INT64)
            index.add_incoming(zero, before)
            held = vectors_at(builder, source, builder.mul(index, ir.Constant(INT64, PANEL * 4)), FLOATS, 4)
            place = builder.mul(index, step)
            if not is_plain:
                others = vectors_at(builder, other, place, FLOATS, 4)
                held = [builder.fadd(value, more) for value, more in zip(held, others, strict=True)]
            store_at(builder, target, place, held)
            following = builder.add(index, ir.Constant(INT64, 1))
            index.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate


INT8 = Kind(WORDS, INT32, _add_bytes, _finish_int8)
if IN_16_BITS:
    INT8 = Kind(WORDS, INT32, add_in_16_bits, _finish_int8, at_once=2)
FP32 = Kind(FLOATS, FLOAT, add_products, _finish_fp32, goes_on=True)
BF16 = Kind(FLOATS, INT32, add_pairs, _finish_bf16)
_I12, _I8, _I6, _I4, _I3, _I2, _I1 = (_kernel(rows, INT8, INT8.at_once) for rows in (12, 8, 6, 4, 3, 2, 1))
_I4_SLOW, _I4_SILENT = (_kernel(ROWS_IN_16_BITS, INT8, lines) for lines in (1, 0))
"""For calls that ask for less than their own panel's lines, and for those that ask for nothing."""
_F12, _F8, _F6, _F4, _F3, _F2, _F1 = (_kernel(rows, FP32) for rows in (12, 8, 6, 4, 3, 2, 1))
multiply_bf16 = _kernel(ROWS_MAX, BF16)
"""(ROWS_MAX, 2 * steps) bfloat16 numbers times a panel of pairs of them → (ROWS_MAX, PANEL) floats, in order."""


@njit(nogil=True, cache=True)
def rows_of_call(left: int, is_int8: bool) -> int:
    """How many of `left` rows the next call takes."""
    if IN_16_BITS and is_int8:
        return min(left, ROWS_IN_16_BITS)
    if not HAS_512:
        return ROWS_MAX_256 if left >= ROWS_MAX_256 else min(left, 4)
    if left >= 12:
        return 12
    if left >= 8:
        return 8
    if left >= 6:
        return 6
    return min(left, 4)


@njit(nogil=True, cache=True)
def multiply_int8(rows, call):
    """(rows, 4 * steps) bytes times a panel of bytes → (rows, PANEL) floats; the sums are exact."""
    if HAS_512 and rows == 12:
        _I12(call)
    elif HAS_512 and rows == 8:
        _I8(call)
    elif HAS_512 and rows == 6:
        _I6(call)
    elif IN_16_BITS and rows == ROWS_IN_16_BITS and call[CALL_FIELDS - 1] == 0:
        _I4_SILENT(call)
    elif IN_16_BITS and rows == ROWS_IN_16_BITS and call[CALL_FIELDS - 1] < VECTOR_BYTES:
        _I4_SLOW(call)
    elif rows == 4:
        _I4(call)
    elif rows == 3:
        _I3(call)
    elif rows == 2:
        _I2(call)
    else:
        _I1(call)


@njit(nogil=True, cache=True)
def multiply_fp32(rows, call):
    """(rows, steps) floats times a panel of floats → (rows, PANEL) floats; a sum goes on in the order of the steps."""
    if HAS_512 and rows == 12:
        _F12(call)
    elif HAS_512 and rows == 8:
        _F8(call)
    elif rows == 6:
        _F6(call)
    elif rows == 4:
        _F4(call)
    elif rows == 3:
        _F3(call)
    elif rows == 2:
        _F2(call)
    else:
        _F1(call)

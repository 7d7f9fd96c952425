"""Numbers in rows, moved or laid out as the units read them, and their bfloat16 form: the 16 bits of each."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from app.engine.compute.kernels import scalar
from app.engine.compute.kernels.heads import HALVES, at, close_loop, open_loop, read, write
from app.engine.compute.kernels.linear import SERIAL
from app.engine.compute.kernels.vectors import FLOATS, INT32, LANES, PANEL, VECTOR_BYTES, WORDS, BFloatType

HALF_BYTES = 2
BFLOATS = ir.VectorType(BFloatType(), LANES)
Builder = Any


def _mover(source: ir.VectorType, target: ir.VectorType) -> Any:
    """An intrinsic that moves rows of so many vectors, each at least one; addresses and strides in bytes."""
    read_bytes, written_bytes = (VECTOR_BYTES if kind is FLOATS else VECTOR_BYTES // 2 for kind in (source, target))

    @intrinsic
    def move(typing, source_at, stride, rows, vectors, target_at, apart):
        def generate(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
            first, stride, rows, vectors, target, apart = arguments
            row = open_loop(builder, rows)
            vector = open_loop(builder, vectors)
            held = read(builder, at(builder, first, (row.index, stride), (vector.index, read_bytes)), source, 2)
            if written_bytes < read_bytes:
                held = builder.bitcast(builder.fptrunc(held, BFLOATS), HALVES)
            elif written_bytes > read_bytes:
                words = builder.shl(builder.zext(held, WORDS), ir.Constant(WORDS, [HALVES.element.width] * LANES))
                held = builder.bitcast(words, FLOATS)
            place = at(builder, target, (row.index, apart), (vector.index, written_bytes))
            builder.store(held, builder.inttoptr(place, held.type.as_pointer()), align=2)
            close_loop(builder, vector)
            close_loop(builder, row)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), generate

    return move


_move_floats, _move_halves = _mover(FLOATS, FLOATS), _mover(HALVES, HALVES)
_round_floats, _widen_halves = _mover(FLOATS, HALVES), _mover(HALVES, FLOATS)


@intrinsic
def transpose_words(typing, rows, row_stride, out, out_stride):
    """LANES rows of LANES words at the address `rows` → their columns at `out`; strides in bytes."""

    def generate(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
        source, step, target, stride = arguments
        held = [read(builder, at(builder, source, (step, row)), WORDS, 2) for row in range(LANES)]
        for bit in (1, 2, 4, 8):  # the rows `row` and `row + bit` exchange the words whose place says so
            low = [place if not place & bit else LANES + place - bit for place in range(LANES)]
            high = [place + bit if not place & bit else LANES + place for place in range(LANES)]
            masks = [ir.Constant(WORDS, places) for places in (low, high)]
            for row in range(LANES):
                if not row & bit:
                    pair = held[row], held[row + bit]
                    held[row], held[row + bit] = (builder.shuffle_vector(*pair, mask) for mask in masks)
        for row, words in enumerate(held):
            write(builder, words, at(builder, target, (stride, row)))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), generate


@intrinsic
def zip_halves(typing, lower, upper, out):
    """PANEL words at `out` from PANEL lower and PANEL upper halves; all are addresses."""

    def generate(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
        halves, words = ir.VectorType(ir.IntType(16), PANEL), ir.VectorType(INT32, PANEL)
        low, high = (builder.zext(read(builder, base, halves, 2), words) for base in arguments[:2])
        write(builder, builder.or_(low, builder.shl(high, ir.Constant(words, [16] * PANEL))), arguments[2])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), generate


@intrinsic
def bf16_of(typing, number):
    """The 16 bits of an fp32 number rounded to bfloat16, half to even: an instruction, where HAS_BF16_512."""

    def generate(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], BFloatType()), ir.IntType(16))

    return types.uint16(types.float32), generate


def lay(source, first, stride, rows, width, target, start, apart):
    """Move `rows` rows of `width` numbers, a multiple of LANES, from the flat array `source` to the flat `target`.

    They begin at the places `first` and `start`, `stride` and `apart` numbers from one to the next; there is at least
    one. Where source is fp32 and target 16 bits of a bfloat16 they are rounded, which HAS_BF16_512 allows; the other
    way round they are what they were.
    """
    raise NotImplementedError


@overload(lay)
def _lay(source, first, stride, rows, width, target, start, apart):
    is_whole, stays = isinstance(source.dtype, types.Float), source.dtype == target.dtype
    if is_whole:
        move = _move_floats if stays else _round_floats
    else:
        move = _move_halves if stays else _widen_halves

    def moved(source, first, stride, rows, width, target, start, apart):
        move(
            source.ctypes.data + first * source.itemsize, stride * source.itemsize, rows, width // LANES,
            target.ctypes.data + start * target.itemsize, apart * target.itemsize,
        )  # fmt: skip

    return moved


def in_whole(numbers, first, stride, rows, width):
    """Rows as `lay` takes them, in fp32: what must be kept, their address, and bytes from one to the next."""
    raise NotImplementedError


@overload(in_whole)
def _in_whole(numbers, first, stride, rows, width):
    if isinstance(numbers.dtype, types.Float):
        return lambda numbers, first, stride, rows, width: (
            numbers,
            numbers.ctypes.data + first * numbers.itemsize,
            stride * numbers.itemsize,
        )

    def widened(numbers, first, stride, rows, width):
        held = np.empty(rows * width, np.float32)
        lay(numbers, first, stride, rows, width, held, 0, width)
        return held, held.ctypes.data + np.int64(0), width * held.itemsize

    return widened


def in_halves(numbers, first, stride, rows, width):
    """Rows as `lay` takes them, in bfloat16: their address, bytes from one to the next, and what must be kept."""
    raise NotImplementedError


@overload(in_halves)
def _in_halves(numbers, first, stride, rows, width):
    if isinstance(numbers.dtype, types.Float):

        def rounded(numbers, first, stride, rows, width):
            held = np.empty(rows * width, np.uint16)
            lay(numbers, first, stride, rows, width, held, 0, width)
            return held.ctypes.data, width * HALF_BYTES, held

        return rounded
    return lambda numbers, first, stride, rows, width: (
        numbers.ctypes.data + first * HALF_BYTES,
        stride * HALF_BYTES,
        numbers,
    )


@njit(**SERIAL)
def pack_keys(keys, first, stride, positions, width, panels):
    """Keys, rows as in_halves takes them → panels (positions / PANEL, width / 2, PANEL).

    A word holds two following numbers of one key; what columns without a position hold means nothing.
    """
    source, apart, held = in_halves(keys, first, stride, positions, width)
    last, whole = np.zeros((LANES, width), np.uint16), positions // LANES * LANES
    if whole < positions:
        _move_halves(
            source + whole * apart, apart, positions - whole, width // LANES, last.ctypes.data, width * HALF_BYTES
        )
    for position in range(0, positions, LANES):
        is_whole = position < whole
        rows, step = (source + position * apart, apart) if is_whole else (last.ctypes.data, width * HALF_BYTES)
        target = panels.ctypes.data + (position // PANEL * width // 2 * PANEL + position % PANEL) * 4
        for pair in range(0, width // 2, LANES):
            transpose_words(rows + pair * 2 * HALF_BYTES, step, target + pair * PANEL * 4, PANEL * 4)
    scalar.keep(held)
    scalar.keep(last)


@njit(**SERIAL)
def pack_values(values, first, stride, positions, width, panels):
    """Values, rows as in_halves takes them → panels (width / PANEL, positions / 2, PANEL).

    A word holds the numbers of two following positions; the last one's partner is 0 when they are odd.
    """
    source, apart, held = in_halves(values, first, stride, positions, width)
    nothing, steps = np.zeros(PANEL, np.uint16), (positions + 1) // 2
    for part in range(width // PANEL):
        of_part, target = source + part * PANEL * HALF_BYTES, panels.ctypes.data + part * steps * PANEL * 4
        for step in range(steps):
            lower = of_part + 2 * step * apart
            upper = lower + apart if 2 * step + 1 < positions else nothing.ctypes.data
            zip_halves(lower, upper, target + step * PANEL * 4)
    scalar.keep(held)
    scalar.keep(nothing)

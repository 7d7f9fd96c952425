"""The innermost loop of a matrix product, generated as LLVM instructions for the 512-bit vector units.

One call multiplies `rows` rows of the left matrix with a panel of PANEL columns of the packed right one and keeps
every sum in a register: the loop reads the panel once and writes nothing. (Goto and van de Geijn, "Anatomy of high-
performance matrix multiplication", 2008; the panel layout is layers.py's.)
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LANES = 16
VECTORS = 2
PANEL = LANES * VECTORS
"""Columns of a panel."""
ROWS_MAX = 12
"""Rows of a call: 12 x 2 sums, two panel vectors and a broadcast fill 27 of the 32 registers."""

INT32, INT64, FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
VECTOR_BYTES = 64
Builder = Any


def _address(builder: Builder, base: Any, offset: Any, kind: ir.Type) -> Any:
    return builder.inttoptr(builder.add(base, offset), kind.as_pointer())


def _splat(builder: Builder, scalar: Any, vector: ir.VectorType) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES))


def _fused(builder: Builder, name: str, vector: ir.VectorType, arguments: list[Any]) -> Any:
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    return builder.call(function, arguments)


def _int8_step(builder: Builder, total: Any, panel: Any, left: Any) -> Any:
    """total += four unsigned bytes of the panel times four signed bytes of the row, in each lane."""
    return _fused(builder, "llvm.x86.avx512.vpdpbusd.512", total.type, [total, panel, left])


def _fp32_step(builder: Builder, total: Any, panel: Any, left: Any) -> Any:
    return _fused(builder, "llvm.fma.v16f32", total.type, [panel, left, total])


def _kernel(rows: int, element: ir.Type, step: Any) -> Any:
    """An intrinsic (left, left_stride, panel, steps, sums, sums_stride): addresses and strides in bytes.

    A step reads 4 bytes of each row of `left` and VECTORS vectors of the panel. Sums are (rows, PANEL) of `element`.
    """
    vector = ir.VectorType(element, LANES)

    def generate(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
        left, left_stride, panel, steps, sums, sums_stride = arguments
        starts = [builder.add(left, builder.mul(left_stride, ir.Constant(INT64, row))) for row in range(rows)]
        before = builder.block
        loop, done = builder.append_basic_block("step"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        index = builder.phi(INT64)
        index.add_incoming(ir.Constant(INT64, 0), before)
        totals = [[builder.phi(vector) for _ in range(VECTORS)] for _ in range(rows)]
        for total in (total for row in totals for total in row):
            total.add_incoming(ir.Constant(vector, [0] * LANES), before)
        panel_offset = builder.mul(index, ir.Constant(INT64, VECTOR_BYTES * VECTORS))
        panels = [
            builder.load(
                _address(builder, panel, builder.add(panel_offset, ir.Constant(INT64, VECTOR_BYTES * place)), vector),
                align=VECTOR_BYTES,
            )
            for place in range(VECTORS)
        ]
        left_offset = builder.mul(index, ir.Constant(INT64, 4))
        found = []
        for row in range(rows):
            scalar = builder.load(_address(builder, starts[row], left_offset, element), align=4)
            lefts = _splat(builder, scalar, vector)
            found.append([step(builder, totals[row][place], panels[place], lefts) for place in range(VECTORS)])
        following = builder.add(index, ir.Constant(INT64, 1))
        index.add_incoming(following, loop)
        for row in range(rows):
            for place in range(VECTORS):
                totals[row][place].add_incoming(found[row][place], loop)
        builder.cbranch(builder.icmp_signed("<", following, steps), loop, done)
        builder.position_at_end(done)
        for row in range(rows):
            for place in range(VECTORS):
                offset = builder.add(
                    builder.mul(sums_stride, ir.Constant(INT64, row)), ir.Constant(INT64, VECTOR_BYTES * place)
                )
                builder.store(found[row][place], _address(builder, sums, offset, vector), align=4)
        return _context.get_dummy_value()

    @intrinsic
    def kernel(typing, left, left_stride, panel, steps, sums, sums_stride):
        return types.void(*[types.intp] * 6), generate

    return kernel


_I12, _I8, _I6, _I4, _I3, _I2, _I1 = (_kernel(rows, INT32, _int8_step) for rows in (12, 8, 6, 4, 3, 2, 1))
_F12, _F8, _F6, _F4, _F3, _F2, _F1 = (_kernel(rows, FLOAT, _fp32_step) for rows in (12, 8, 6, 4, 3, 2, 1))


@njit(nogil=True, cache=True)
def rows_of_call(left: int) -> int:
    """How many of `left` rows the next call takes."""
    if left >= 12:
        return 12
    if left >= 8:
        return 8
    if left >= 6:
        return 6
    return min(left, 4)


@njit(nogil=True, cache=True)
def multiply_int8(rows, left, left_stride, panel, steps, sums, sums_stride):
    """(rows, 4 * steps) signed bytes times a panel of unsigned bytes → (rows, PANEL) int32, exact."""
    if rows == 12:
        _I12(left, left_stride, panel, steps, sums, sums_stride)
    elif rows == 8:
        _I8(left, left_stride, panel, steps, sums, sums_stride)
    elif rows == 6:
        _I6(left, left_stride, panel, steps, sums, sums_stride)
    elif rows == 4:
        _I4(left, left_stride, panel, steps, sums, sums_stride)
    elif rows == 3:
        _I3(left, left_stride, panel, steps, sums, sums_stride)
    elif rows == 2:
        _I2(left, left_stride, panel, steps, sums, sums_stride)
    else:
        _I1(left, left_stride, panel, steps, sums, sums_stride)


@njit(nogil=True, cache=True)
def multiply_fp32(rows, left, left_stride, panel, steps, sums, sums_stride):
    """(rows, steps) floats times a panel of floats → (rows, PANEL) floats; each sum runs in the order of the steps."""
    if rows == 12:
        _F12(left, left_stride, panel, steps, sums, sums_stride)
    elif rows == 8:
        _F8(left, left_stride, panel, steps, sums, sums_stride)
    elif rows == 6:
        _F6(left, left_stride, panel, steps, sums, sums_stride)
    elif rows == 4:
        _F4(left, left_stride, panel, steps, sums, sums_stride)
    elif rows == 3:
        _F3(left, left_stride, panel, steps, sums, sums_stride)
    elif rows == 2:
        _F2(left, left_stride, panel, steps, sums, sums_stride)
    else:
        _F1(left, left_stride, panel, steps, sums, sums_stride)

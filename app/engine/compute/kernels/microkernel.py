"""The innermost loop of a matrix product, generated as LLVM instructions for the 512-bit vector units.

One call multiplies `rows` rows of the left matrix with a panel of PANEL columns of the packed right one and keeps
every sum in a register: the loop reads the panel once and writes nothing. (Goto and van de Geijn, "Anatomy of high-
performance matrix multiplication", 2008; the panel layout is layers.py's.)
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

CALL_FIELDS = 12
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


def _splat(builder: Builder, scalar: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES))


def _store(builder: Builder, base: Any, offset: Any, values: list[Any]) -> None:
    for place, value in enumerate(values):
        following = builder.add(offset, ir.Constant(INT64, VECTOR_BYTES * place))
        builder.store(value, _address(builder, base, following, value.type), align=4)


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


def _scalar(builder: Builder, base: Any, offset: Any, kind: ir.Type) -> Any:
    return builder.load(_address(builder, base, offset, kind), align=4)


def _vectors(builder: Builder, base: Any, offset: Any, vector: ir.VectorType, align: int) -> list[Any]:
    """The VECTORS vectors that lie at base + offset."""
    places = (builder.add(offset, ir.Constant(INT64, VECTOR_BYTES * place)) for place in range(VECTORS))
    return [builder.load(_address(builder, base, place, vector), align=align) for place in places]


def _accumulate(builder: Builder, rows: int, element: ir.Type, step: Any, call: Any) -> list[list[Any]]:
    """The loop over the steps → the sums, VECTORS of them a row."""
    left, left_stride, panel, steps = call[:4]
    vector = ir.VectorType(element, LANES)
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
    panels = _vectors(builder, panel, builder.mul(index, ir.Constant(INT64, VECTOR_BYTES * VECTORS)), vector, 64)
    left_offset = builder.mul(index, ir.Constant(INT64, 4))
    found = []
    for row in range(rows):
        lefts = _splat(builder, _scalar(builder, starts[row], left_offset, element))
        found.append([step(builder, totals[row][place], panels[place], lefts) for place in range(VECTORS)])
    following = builder.add(index, ir.Constant(INT64, 1))
    index.add_incoming(following, loop)
    for total, new in zip(totals, found, strict=True):
        for place in range(VECTORS):
            total[place].add_incoming(new[place], loop)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, done)
    builder.position_at_end(done)
    return found


def _finish(builder: Builder, element: ir.Type, sums: list[list[Any]], call: Any) -> list[list[Any]]:
    """Sums → fp32 numbers with their scales and the bias."""
    scales, offsets, weight_scales, bias = call[4:8]
    floats = ir.VectorType(FLOAT, LANES)
    zero = ir.Constant(INT64, 0)
    biases = _vectors(builder, bias, zero, floats, 4)
    of_columns = _vectors(builder, weight_scales, zero, floats, 4) if element == INT32 else biases
    finished = []
    for row, totals in enumerate(sums):
        if element == INT32:
            place = ir.Constant(INT64, 4 * row)
            offset = _splat(builder, _scalar(builder, offsets, place, INT32))
            scale = _splat(builder, _scalar(builder, scales, place, FLOAT))
            totals = [
                builder.fmul(builder.sitofp(builder.sub(total, offset), floats), builder.fmul(scale, column))
                for total, column in zip(totals, of_columns, strict=True)
            ]
        finished.append([builder.fadd(total, added) for total, added in zip(totals, biases, strict=True)])
    return finished


def _kernel(rows: int, element: ir.Type, step: Any) -> Any:
    """An intrinsic over addresses and strides in bytes: `rows` rows of the left matrix times a panel, and what follows.

    A step reads 4 bytes of each row of `left` and VECTORS vectors of the panel. The sums then become fp32 numbers
    (int8: minus the row's offset, times the row's and the column's scale), get the bias and, unless its address is 0,
    the row of `added`, and are stored to `out`.
    """
    floats = ir.VectorType(FLOAT, LANES)

    def generate(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
        call = [builder.extract_value(arguments[0], place) for place in range(CALL_FIELDS)]
        added, added_stride, out, stride = call[8:]
        results = _finish(builder, element, _accumulate(builder, rows, element, step, call), call)
        plain = builder.append_basic_block("plain")
        plus, after = builder.append_basic_block("plus"), builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed("==", added, ir.Constant(INT64, 0)), plain, plus)
        for block, is_plain in ((plain, True), (plus, False)):
            builder.position_at_end(block)
            for row, values in enumerate(results):
                if not is_plain:
                    others = _vectors(builder, added, builder.mul(added_stride, ir.Constant(INT64, row)), floats, 4)
                    values = [builder.fadd(value, other) for value, other in zip(values, others, strict=True)]
                _store(builder, out, builder.mul(stride, ir.Constant(INT64, row)), values)
            builder.branch(after)
        builder.position_at_end(after)
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
        floats, zero = ir.VectorType(FLOAT, LANES), ir.Constant(INT64, 0)
        before = builder.block
        loops = [builder.append_basic_block(name) for name in ("plain", "plus")]
        after = builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed("==", other, zero), *loops)
        for loop, is_plain in zip(loops, (True, False), strict=True):
            builder.position_at_end(loop)
            index = builder.phi(INT64)
            index.add_incoming(zero, before)
            held = _vectors(builder, source, builder.mul(index, ir.Constant(INT64, PANEL * 4)), floats, 4)
            place = builder.mul(index, step)
            if not is_plain:
                others = _vectors(builder, other, place, floats, 4)
                held = [builder.fadd(value, more) for value, more in zip(held, others, strict=True)]
            _store(builder, target, place, held)
            following = builder.add(index, ir.Constant(INT64, 1))
            index.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate


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
def multiply_int8(rows, call):
    """(rows, 4 * steps) signed bytes times a panel of unsigned bytes → (rows, PANEL) int32, exact."""
    if rows == 12:
        _I12(call)
    elif rows == 8:
        _I8(call)
    elif rows == 6:
        _I6(call)
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
    """(rows, steps) floats times a panel of floats → (rows, PANEL) floats; each sum runs in the order of the steps."""
    if rows == 12:
        _F12(call)
    elif rows == 8:
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

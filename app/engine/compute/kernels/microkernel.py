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

from app.engine.compute.kernels import HAS_512, HAS_FMA, HAS_VNNI_512

CALL_FIELDS = 15
LANES = 16
VECTORS = 2
PANEL = LANES * VECTORS
"""Columns of a panel."""
IN_PAIRS = HAS_FMA and not HAS_VNNI_512
"""Whether int8 products sum pairs in 16 bits, and so read rows and panels that are laid out for it."""
ROOM = 7 if IN_PAIRS else 1
"""Bytes of a row in an int8 product for each of its numbers. The numbers come first; in pairs they are signed, and what
16 bits would not hold the products of follows: how many rests there are, what to add to the row's sums, and the rests,
at most two a step, each as the place of the step's vectors in a panel and four numbers more for it (4 bytes each)."""
ROWS_MAX = 12
"""Rows of a call: 12 x 2 sums, two panel vectors and a broadcast fill 27 of the 32 registers."""
ROWS_MAX_256 = 6
"""The same of registers half as wide, for half a panel at a time: 6 x 2 sums, two parts of a panel vector and a
broadcast fill 15 of the 16. (In int8 four rows: what is between bytes and sums needs three.)"""

INT8_BITS, INT16, INT32, INT64, FLOAT = (*(ir.IntType(bits) for bits in (8, 16, 32, 64)), ir.FloatType())
FLOATS, WORDS = ir.VectorType(FLOAT, LANES), ir.VectorType(INT32, LANES)
HALVES = ir.VectorType(ir.IntType(16), 2 * LANES)
VECTOR_BYTES, REST_BYTES = 64, 8
INTO_L2 = (0, 2, 1)
"""Of what llvm.prefetch takes: to be read, into the second of the caches, of data."""
Builder = Any


class BFloatType(ir.types._BaseFloatType):
    """LLVM's bfloat, which llvmlite has no name for."""

    def __str__(self) -> str:
        return "bfloat"


BFloatType._create_instance()
PAIRS = ir.VectorType(BFloatType(), 2 * LANES)


@dataclass(frozen=True, slots=True)
class Kind:
    """How numbers of a kind are multiplied and summed."""

    sums: ir.VectorType
    read: ir.Type
    """Four bytes of a row and of a column, as they are loaded."""
    step: Callable[[Builder, Any, Any, Any], Any]
    finish: Callable[[Builder, list[list[Any]], Any, Sequence[int]], list[list[Any]]]
    goes_on: bool = False
    """Whether sums begin as those of earlier steps: fields 4 and 5 of a call are their address and a row's stride."""
    has_rests: bool = False
    """Whether something follows the numbers of a row, see ROOM."""


def _address(builder: Builder, base: Any, offset: Any, kind: ir.Type) -> Any:
    return builder.inttoptr(builder.add(base, offset), kind.as_pointer())


def splat(builder: Builder, scalar: Any) -> Any:
    """A vector of LANES times this number."""
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES))


def _store(
    builder: Builder, base: Any, offset: Any, values: list[Any], places: Sequence[int] = range(VECTORS)
) -> None:  # fmt: skip
    for place, value in zip(places, values, strict=True):
        following = builder.add(offset, ir.Constant(INT64, VECTOR_BYTES * place))
        builder.store(value, _address(builder, base, following, value.type), align=4)


def fused(builder: Builder, name: str, result: ir.Type, arguments: list[Any], **flags: Any) -> Any:
    """The result of one of LLVM's functions of vectors."""
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(result, [each.type for each in arguments]), name)
    return builder.call(function, arguments, **flags)


def _add_bytes(builder: Builder, total: Any, panel: Any, left: Any) -> Any:
    """total += four unsigned bytes of the row times four signed bytes of the panel, in each lane."""
    if not HAS_VNNI_512:
        return total  # compiled beside the fp32 kernels, and never called (Int8Linear)
    return fused(builder, "llvm.x86.avx512.vpdpbusd.512", WORDS, [total, left, panel])


def _add_byte_pairs(builder: Builder, total: Any, panel: Any, left: Any) -> Any:
    """total += four signed bytes of the row times four unsigned bytes of the panel, in each lane, by AVX2.

    Pairs are summed in 16 bits, which hold them exactly: `pairs.py` makes the row so.
    """
    half = LANES // 2
    ones, sums = ir.Constant(ir.VectorType(INT16, LANES), [1] * LANES), []
    for start in (0, half):
        places = ir.Constant(ir.VectorType(INT32, half), list(range(start, start + half)))
        words = [builder.shuffle_vector(each, each, places) for each in (panel, left, total)]
        numbers = [builder.bitcast(each, ir.VectorType(INT8_BITS, 4 * half)) for each in words[:2]]
        pairs = fused(builder, "llvm.x86.avx2.pmadd.ub.sw", ones.type, numbers)
        found = fused(builder, "llvm.x86.avx2.pmadd.wd", words[2].type, [pairs, ones])
        sums.append(_pinned(builder, builder.add(found, words[2])))
    return builder.shuffle_vector(*sums, ir.Constant(WORDS, list(range(LANES))))


def _pinned(builder: Builder, sums: Any) -> Any:
    """The same, in a register at this place: the compiler moves neither what made it nor a load across.

    Left to itself it begins so many products at a time that the sums leave their registers, where these are few.
    """
    if HAS_512:
        return sums
    kind = ir.FunctionType(sums.type, [sums.type])
    return builder.call(ir.InlineAsm(kind, "", "=x,0,~{memory}", side_effect=True), [sums])


def add_products(builder: Builder, total: Any, panel: Any, left: Any) -> Any:
    """total += the row's number times the panel's, in each lane."""
    return fused(builder, "llvm.fma.v16f32", FLOATS, [panel, left, total])


def add_pairs(builder: Builder, total: Any, panel: Any, left: Any) -> Any:
    """total += two bfloat16 numbers of the row times two of the panel, in each lane."""
    pairs = [builder.bitcast(words, PAIRS) for words in (left, panel)]
    return fused(builder, "llvm.x86.avx512bf16.dpbf16ps.512", FLOATS, [total, *pairs])


def _scalar(builder: Builder, base: Any, offset: Any, kind: ir.Type) -> Any:
    return builder.load(_address(builder, base, offset, kind), align=4)


def _vectors(
    builder: Builder, base: Any, offset: Any, vector: ir.VectorType, align: int, places: Sequence[int] = range(VECTORS)
) -> list[Any]:  # fmt: skip
    """Of the VECTORS vectors that lie at base + offset these."""
    offsets = (builder.add(offset, ir.Constant(INT64, VECTOR_BYTES * place)) for place in places)
    return [builder.load(_address(builder, base, offset, vector), align=align) for offset in offsets]


def prefetch_line(builder: Builder, address: Any) -> None:
    """Ask for this byte and its line to come into the second cache; an address that nobody has is no harm."""
    place, flag = builder.inttoptr(address, INT8_BITS.as_pointer()), ir.IntType(32)
    fused(builder, "llvm.prefetch.p0i8", ir.VoidType(), [place, *(ir.Constant(flag, each) for each in INTO_L2)])


def _accumulate(builder: Builder, rows: int, kind: Kind, call: Any, places: Sequence[int]) -> list[list[Any]]:
    """The loop over the steps → each row's sums, of these vectors of the panel."""
    left, left_stride, panel, steps = call[:4]
    ahead, pace = builder.add(panel, call[13]), call[14]
    if 0 not in places:
        ahead = builder.add(ahead, builder.mul(steps, pace))
    starts = [builder.add(left, builder.mul(left_stride, ir.Constant(INT64, row))) for row in range(rows)]
    firsts = [[ir.Constant(kind.sums, [0] * LANES)] * len(places)] * rows
    if kind.goes_on:
        offsets = [builder.mul(call[5], ir.Constant(INT64, row)) for row in range(rows)]
        firsts = [_vectors(builder, call[4], offset, kind.sums, 4, places) for offset in offsets]
    before = builder.block
    loop, done = builder.append_basic_block("step"), builder.append_basic_block("done")
    builder.branch(loop)
    builder.position_at_end(loop)
    index = builder.phi(INT64)
    index.add_incoming(ir.Constant(INT64, 0), before)
    totals = [[builder.phi(kind.sums) for _ in places] for _ in range(rows)]
    for total, first in zip(chain.from_iterable(totals), chain.from_iterable(firsts), strict=True):
        total.add_incoming(first, before)
    panel_offset = builder.mul(index, ir.Constant(INT64, VECTOR_BYTES * VECTORS))
    panels = _vectors(builder, panel, panel_offset, ir.VectorType(kind.read, LANES), 64, places)
    left_offset = builder.mul(index, ir.Constant(INT64, 4))
    prefetch_line(builder, builder.add(ahead, builder.mul(index, pace)))
    found: list[list[Any]] = []
    for row in range(rows):
        lefts = splat(builder, _scalar(builder, starts[row], left_offset, kind.read))
        found.append([kind.step(builder, total, held, lefts) for total, held in zip(totals[row], panels, strict=True)])
    following = builder.add(index, ir.Constant(INT64, 1))
    index.add_incoming(following, loop)
    for total, new in zip(chain.from_iterable(totals), chain.from_iterable(found), strict=True):
        total.add_incoming(new, loop)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, done)
    builder.position_at_end(done)
    if not kind.has_rests:
        return found
    return [_add_rests(builder, kind, call, *each, places) for each in zip(starts, found, strict=True)]


def _add_rests(
    builder: Builder, kind: Kind, call: Any, start: Any, sums: list[Any], places: Sequence[int]
) -> list[Any]:
    """A row's sums, with what follows its numbers: see ROOM."""
    panel, steps = call[2:4]
    held = builder.add(start, builder.mul(steps, ir.Constant(INT64, 4)))
    count = builder.zext(_scalar(builder, held, ir.Constant(INT64, 0), INT32), INT64)
    offset = splat(builder, _scalar(builder, held, ir.Constant(INT64, 4), INT32))
    sums = [builder.add(each, offset) for each in sums]
    before = builder.block
    loop, done = builder.append_basic_block("rest"), builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", count, ir.Constant(INT64, 0)), loop, done)
    builder.position_at_end(loop)
    index = builder.phi(INT64)
    index.add_incoming(ir.Constant(INT64, 0), before)
    totals = [builder.phi(kind.sums) for _ in places]
    following = builder.add(index, ir.Constant(INT64, 1))
    place = builder.mul(following, ir.Constant(INT64, REST_BYTES))
    at_panel = builder.zext(_scalar(builder, held, place, INT32), INT64)
    word = _scalar(builder, held, builder.add(place, ir.Constant(INT64, 4)), INT32)
    panels = _vectors(builder, panel, at_panel, ir.VectorType(kind.read, LANES), 64, places)
    found = [kind.step(builder, *each, splat(builder, word)) for each in zip(totals, panels, strict=True)]
    index.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
    builder.position_at_end(done)
    ends = [builder.phi(kind.sums) for _ in places]
    for total, end, first, last in zip(totals, ends, sums, found, strict=True):
        total.add_incoming(first, before)
        total.add_incoming(last, loop)
        end.add_incoming(first, before)
        end.add_incoming(last, loop)
    return ends


def _finish_int8(builder: Builder, sums: list[list[Any]], call: Any, places: Sequence[int]) -> list[list[Any]]:
    """Minus the row's zero times the sum of the column's weights, times both scales, plus the bias."""
    scales, zeros, weight_scales, weight_sums, bias = call[4:9]
    start = ir.Constant(INT64, 0)
    factors, columns, biases = (
        _vectors(builder, base, start, vector, 4, places)
        for base, vector in ((weight_scales, FLOATS), (weight_sums, WORDS), (bias, FLOATS))
    )
    finished = []
    for row, totals in enumerate(sums):
        place = ir.Constant(INT64, 4 * row)
        zero = splat(builder, _scalar(builder, zeros, place, INT32))
        scale = splat(builder, _scalar(builder, scales, place, FLOAT))
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
    biases = _vectors(builder, call[8], ir.Constant(INT64, 0), FLOATS, 4, places)
    return [[builder.fadd(total, added) for total, added in zip(totals, biases, strict=True)] for totals in sums]


def _finish_bf16(builder: Builder, sums: list[list[Any]], call: Any, _places: Sequence[int]) -> list[list[Any]]:
    """Times the row's scale."""
    scales = [splat(builder, _scalar(builder, call[4], ir.Constant(INT64, 4 * row), FLOAT)) for row in range(len(sums))]
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
                others = _vectors(builder, added, offset, FLOATS, 4, places)
                values = [builder.fadd(value, other) for value, other in zip(values, others, strict=True)]
            _store(builder, out, builder.mul(stride, ir.Constant(INT64, row)), values, places)
        builder.branch(after)
    builder.position_at_end(after)


def _kernel(rows: int, kind: Kind) -> Any:
    """An intrinsic over addresses and strides in bytes: `rows` rows of the left matrix times a panel, and what follows.

    A step reads 4 bytes of each row of `left` and VECTORS vectors of the panel; where registers are few, each has a
    loop of its own. The sums then become fp32 numbers as the kind says, get, unless its address is 0, the row of
    `added`, and are stored to `out`. The first step also asks for a line that lies as many bytes after the panel as the
    last field but one says, each following step for one so much further on as the last says; a second loop goes on so.
    """

    def generate(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
        call = [builder.extract_value(arguments[0], place) for place in range(CALL_FIELDS)]
        for places in [range(VECTORS)] if HAS_512 else [[place] for place in range(VECTORS)]:
            sums = _accumulate(builder, rows, kind, call, places)
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
            held = _vectors(builder, source, builder.mul(index, ir.Constant(INT64, PANEL * 4)), FLOATS, 4)
            place = builder.mul(index, step)
            if not is_plain:
                others = _vectors(builder, other, place, FLOATS, 4)
                held = [builder.fadd(value, more) for value, more in zip(held, others, strict=True)]
            _store(builder, target, place, held)
            following = builder.add(index, ir.Constant(INT64, 1))
            index.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate


INT8 = Kind(WORDS, INT32, _add_byte_pairs if IN_PAIRS else _add_bytes, _finish_int8, has_rests=IN_PAIRS)
FP32 = Kind(FLOATS, FLOAT, add_products, _finish_fp32, goes_on=True)
BF16 = Kind(FLOATS, INT32, add_pairs, _finish_bf16)
_I12, _I8, _I6, _I4, _I3, _I2, _I1 = (_kernel(rows, INT8) for rows in (12, 8, 6, 4, 3, 2, 1))
_F12, _F8, _F6, _F4, _F3, _F2, _F1 = (_kernel(rows, FP32) for rows in (12, 8, 6, 4, 3, 2, 1))
multiply_bf16 = _kernel(ROWS_MAX, BF16)
"""(ROWS_MAX, 2 * steps) bfloat16 numbers times a panel of pairs of them → (ROWS_MAX, PANEL) floats, in order."""


@njit(nogil=True, cache=True)
def rows_of_call(left: int, is_int8: bool) -> int:
    """How many of `left` rows the next call takes."""
    if IN_PAIRS and is_int8:
        return min(left, 4)
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

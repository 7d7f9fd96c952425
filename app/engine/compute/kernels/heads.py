"""The inner loops of attention for one query of one head, generated as LLVM instructions: dots, and weighted sum.

The query and the sum stay in registers while the cache passes by once, so that memory is the limit. There is a pair for
each of WIDTHS and for each kind of cache.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

LANES = 16
WIDTHS = (32, 64, 96, 128)
"""Widths of a head, in numbers, that have a kernel."""
INT16, INT32, INT64, FLOAT = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
VECTOR, WORDS, HALVES = (ir.VectorType(kind, LANES) for kind in (FLOAT, INT32, INT16))
FAST = ("reassoc", "contract", "nsz")
Builder = Any


def _load(builder: Builder, base: Any, element: Any, *, is_bf16: bool) -> Any:
    """Sixteen stored numbers from the place `element` on, as fp32."""
    size = 2 if is_bf16 else 4
    address = builder.add(base, builder.mul(element, ir.Constant(INT64, size)))
    if not is_bf16:
        return builder.load(builder.inttoptr(address, VECTOR.as_pointer()), align=4)
    halves = builder.load(builder.inttoptr(address, HALVES.as_pointer()), align=2)
    return builder.bitcast(builder.shl(builder.zext(halves, WORDS), ir.Constant(WORDS, [16] * LANES)), VECTOR)


def _function(builder: Builder, name: str, result: ir.Type, arguments: list[ir.Type]) -> Any:
    found = builder.module.globals.get(name)
    return found if found is not None else ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def _splat(builder: Builder, scalar: Any) -> Any:
    undefined = ir.Constant(VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES))


def _loop(builder: Builder, count: Any) -> tuple[Any, Any, Any, Any]:
    """Opens a loop over 0 … count - 1, count at least 1; returns (block before, body, index, block after)."""
    before = builder.block
    body, after = builder.append_basic_block("body"), builder.append_basic_block("after")
    builder.branch(body)
    builder.position_at_end(body)
    index = builder.phi(INT64)
    index.add_incoming(ir.Constant(INT64, 0), before)
    return before, body, index, (after, count)


def _close(builder: Builder, body: Any, index: Any, end: Any) -> None:
    after, count = end
    following = builder.add(index, ir.Constant(INT64, 1))
    index.add_incoming(following, body)
    builder.cbranch(builder.icmp_signed("<", following, count), body, after)
    builder.position_at_end(after)


def _dots(width: int, *, is_bf16: bool) -> Any:
    """(query, keys, length, scale, scores): scores[p] = scale * query · keys[p]; addresses, and scale as fp32."""
    starts = [ir.Constant(INT64, start) for start in range(0, width, LANES)]

    def generate(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
        query, keys, length, scale, scores = arguments
        parts = [_load(builder, query, start, is_bf16=False) for start in starts]
        _, body, index, end = _loop(builder, length)
        first = builder.mul(index, ir.Constant(INT64, width))
        total = None
        multiply_add = _function(builder, "llvm.fma.v16f32", VECTOR, [VECTOR] * 3)
        for start, part in zip(starts, parts, strict=True):
            held = _load(builder, keys, builder.add(first, start), is_bf16=is_bf16)
            total = builder.fmul(part, held) if total is None else builder.call(multiply_add, [part, held, total])
        reduce = _function(builder, "llvm.vector.reduce.fadd.v16f32", FLOAT, [FLOAT, VECTOR])
        score = builder.fmul(builder.call(reduce, [ir.Constant(FLOAT, -0.0), total], fastmath=FAST), scale)
        target = builder.add(scores, builder.mul(index, ir.Constant(INT64, 4)))
        builder.store(score, builder.inttoptr(target, FLOAT.as_pointer()), align=4)
        _close(builder, body, index, end)
        return context.get_dummy_value()

    @intrinsic
    def dots(typing, query, keys, length, scale, scores):
        return types.void(types.intp, types.intp, types.intp, types.float32, types.intp), generate

    return dots


def _sum(width: int, *, is_bf16: bool) -> Any:
    """(weights, values, length, factor, out): out = factor * sum of weights[p] * values[p]; addresses and fp32."""
    starts = [ir.Constant(INT64, start) for start in range(0, width, LANES)]

    def generate(context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
        weights, values, length, factor, out = arguments
        before, body, index, end = _loop(builder, length)
        totals = [builder.phi(VECTOR) for _ in starts]
        for total in totals:
            total.add_incoming(ir.Constant(VECTOR, [0.0] * LANES), before)
        source = builder.add(weights, builder.mul(index, ir.Constant(INT64, 4)))
        weight = _splat(builder, builder.load(builder.inttoptr(source, FLOAT.as_pointer()), align=4))
        first = builder.mul(index, ir.Constant(INT64, width))
        multiply_add = _function(builder, "llvm.fma.v16f32", VECTOR, [VECTOR] * 3)
        found = [
            builder.call(
                multiply_add, [weight, _load(builder, values, builder.add(first, start), is_bf16=is_bf16), total]
            )
            for start, total in zip(starts, totals, strict=True)
        ]
        for total, new in zip(totals, found, strict=True):
            total.add_incoming(new, body)
        _close(builder, body, index, end)
        factors = _splat(builder, factor)
        for start, total in zip(starts, found, strict=True):
            target = builder.add(out, builder.mul(start, ir.Constant(INT64, 4)))
            builder.store(builder.fmul(total, factors), builder.inttoptr(target, VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    @intrinsic
    def weighted_sum(typing, weights, values, length, factor, out):
        return types.void(types.intp, types.intp, types.intp, types.float32, types.intp), generate

    return weighted_sum


_D32_FP32, _D64_FP32, _D96_FP32, _D128_FP32 = (_dots(width, is_bf16=False) for width in WIDTHS)
_S32_FP32, _S64_FP32, _S96_FP32, _S128_FP32 = (_sum(width, is_bf16=False) for width in WIDTHS)
_D32_BF16, _D64_BF16, _D96_BF16, _D128_BF16 = (_dots(width, is_bf16=True) for width in WIDTHS)
_S32_BF16, _S64_BF16, _S96_BF16, _S128_BF16 = (_sum(width, is_bf16=True) for width in WIDTHS)


@njit(nogil=True, cache=True)
def dots_fp32(width, query, keys, length, scale, scores):
    """scores[p] = scale * query · keys[p], for a fp32 cache and heads of one of WIDTHS."""
    if width == 32:
        _D32_FP32(query, keys, length, scale, scores)
    elif width == 64:
        _D64_FP32(query, keys, length, scale, scores)
    elif width == 96:
        _D96_FP32(query, keys, length, scale, scores)
    else:
        _D128_FP32(query, keys, length, scale, scores)


@njit(nogil=True, cache=True)
def weighted_sum_fp32(width, weights, values, length, factor, out):
    """out = factor * sum of weights[p] * values[p], likewise."""
    if width == 32:
        _S32_FP32(weights, values, length, factor, out)
    elif width == 64:
        _S64_FP32(weights, values, length, factor, out)
    elif width == 96:
        _S96_FP32(weights, values, length, factor, out)
    else:
        _S128_FP32(weights, values, length, factor, out)


@njit(nogil=True, cache=True)
def dots_bf16(width, query, keys, length, scale, scores):
    """scores[p] = scale * query · keys[p], for a bfloat16 cache and heads of one of WIDTHS."""
    if width == 32:
        _D32_BF16(query, keys, length, scale, scores)
    elif width == 64:
        _D64_BF16(query, keys, length, scale, scores)
    elif width == 96:
        _D96_BF16(query, keys, length, scale, scores)
    else:
        _D128_BF16(query, keys, length, scale, scores)


@njit(nogil=True, cache=True)
def weighted_sum_bf16(width, weights, values, length, factor, out):
    """out = factor * sum of weights[p] * values[p], likewise."""
    if width == 32:
        _S32_BF16(weights, values, length, factor, out)
    elif width == 64:
        _S64_BF16(weights, values, length, factor, out)
    elif width == 96:
        _S96_BF16(weights, values, length, factor, out)
    else:
        _S128_BF16(weights, values, length, factor, out)

"""Vectors of sixteen numbers in LLVM's instructions: what the generated loops are put together from."""

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

LANES = 16
VECTORS = 2
PANEL = LANES * VECTORS
"""Columns of a panel."""
INT8_BITS, INT16, INT32, INT64, FLOAT = (*(ir.IntType(bits) for bits in (8, 16, 32, 64)), ir.FloatType())
FLOATS, WORDS = ir.VectorType(FLOAT, LANES), ir.VectorType(INT32, LANES)
VECTOR_BYTES = 64
INTO_L2 = (0, 2, 1)
"""Of what llvm.prefetch takes: to be read, into the second of the caches, of data."""
Builder = Any


class BFloatType(ir.types._BaseFloatType):
    """LLVM's bfloat, which llvmlite has no name for."""

    def __str__(self) -> str:
        return "bfloat"


BFloatType._create_instance()
PAIRS = ir.VectorType(BFloatType(), 2 * LANES)


def address_of(builder: Builder, base: Any, offset: Any, kind: ir.Type) -> Any:
    """base + offset as a pointer to such values."""
    return builder.inttoptr(builder.add(base, offset), kind.as_pointer())


def splat(builder: Builder, scalar: Any) -> Any:
    """A vector of LANES times this number."""
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(INT32, LANES), [0] * LANES))


def store_at(
    builder: Builder, base: Any, offset: Any, values: list[Any], places: Sequence[int] = range(VECTORS)
) -> None:  # fmt: skip
    """Store vectors to these of the VECTORS places at base + offset."""
    for place, value in zip(places, values, strict=True):
        following = builder.add(offset, ir.Constant(INT64, VECTOR_BYTES * place))
        builder.store(value, address_of(builder, base, following, value.type), align=4)


def fused(builder: Builder, name: str, result: ir.Type, arguments: list[Any], **flags: Any) -> Any:
    """The result of one of LLVM's functions of vectors."""
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(result, [each.type for each in arguments]), name)
    return builder.call(function, arguments, **flags)


def scalar_at(builder: Builder, base: Any, offset: Any, kind: ir.Type) -> Any:
    """The value of this kind that lies at base + offset."""
    return builder.load(address_of(builder, base, offset, kind), align=4)


def vectors_at(
    builder: Builder, base: Any, offset: Any, vector: ir.VectorType, align: int, places: Sequence[int] = range(VECTORS)
) -> list[Any]:  # fmt: skip
    """Of the VECTORS vectors that lie at base + offset these."""
    offsets = (builder.add(offset, ir.Constant(INT64, VECTOR_BYTES * place)) for place in places)
    return [builder.load(address_of(builder, base, offset, vector), align=align) for offset in offsets]


def prefetch_line(builder: Builder, address: Any) -> None:
    """Ask for this byte and its line to come into the second cache; an address that nobody has is no harm."""
    place, flag = builder.inttoptr(address, INT8_BITS.as_pointer()), ir.IntType(32)
    fused(builder, "llvm.prefetch.p0i8", ir.VoidType(), [place, *(ir.Constant(flag, each) for each in INTO_L2)])

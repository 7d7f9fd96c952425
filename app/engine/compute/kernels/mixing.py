"""What an int8 layer reads, turned by an orthogonal matrix first: then no single number stretches its row's scale.

The weights are turned by the same matrix when they are packed, and products stay what they were. (Ashkboos et al. 2024,
"QuaRot"; the matrix is a regular Hadamard matrix, whose rows have equal sums: what all numbers share stays shared.)
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from app.engine.compute.kernels.vectors import FLOAT, FLOATS, INT32, INT64, LANES, Builder

FOUR = 4
PARTS = FOUR * FOUR
"""Sixteenths of a row, whose numbers of the same place are mixed; then neighbours, by fours."""
INPUTS_LEAST = PARTS * LANES


def can_mix(inputs: int) -> bool:
    """Whether rows of so many numbers have sixteenths of whole fours that fill a vector."""
    return inputs >= INPUTS_LEAST and inputs % (PARTS * FOUR) == 0


def _turned(builder: Builder, total: Any, number: Any) -> Any:
    """Half the total of four less one of them: a row of the matrix of four. Halving is exact, fused or not."""
    half = ir.Constant(FLOATS, [ir.Constant(FLOAT, 0.5)] * LANES)
    return builder.fsub(builder.fmul(half, total, flags=("contract",)), number, flags=("contract",))


def _mix_across(builder: Builder, four: list[Any]) -> list[Any]:
    """Four vectors, lane by lane."""
    total = builder.fadd(builder.fadd(four[0], four[1]), builder.fadd(four[2], four[3]))
    return [_turned(builder, total, each) for each in four]


def _mix_within(builder: Builder, vector: Any) -> Any:
    """Each four neighbours of a vector."""
    total = vector
    for apart in (1, 2):
        order = ir.Constant(ir.VectorType(INT32, LANES), [lane ^ apart for lane in range(LANES)])
        total = builder.fadd(total, builder.shuffle_vector(total, ir.Constant(FLOATS, ir.Undefined), order))
    return _turned(builder, total, vector)


@intrinsic
def _mix_vectors(typing, source, target, apart):
    """LANES numbers of each sixteenth, from the address `source` to `target`; `apart` bytes from part to part."""

    def generate(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
        source, target, apart = arguments
        offsets = [builder.mul(apart, ir.Constant(INT64, part)) for part in range(PARTS)]

        def place(base: Any, offset: Any) -> Any:
            return builder.inttoptr(builder.add(base, offset), FLOATS.as_pointer())

        held = [builder.load(place(source, offset), align=4) for offset in offsets]
        for start in range(0, PARTS, FOUR):
            held[start : start + FOUR] = _mix_across(builder, held[start : start + FOUR])
        for start in range(FOUR):
            held[start::FOUR] = _mix_across(builder, held[start::FOUR])
        for vector, offset in zip(held, offsets, strict=True):
            builder.store(_mix_within(builder, vector), place(target, offset), align=4)
        return ir.Constant(INT64, 0)

    return types.int64(types.int64, types.int64, types.int64), generate


@njit(nogil=True, cache=True, error_model="numpy")
def mix_row(x, out):
    """x (inputs,) turned by the matrix, which is its own inverse → out (inputs,), another array; see can_mix."""
    apart = x.size // PARTS
    source, target = x.ctypes.data, out.ctypes.data
    for first in range(0, apart, LANES):
        start = min(first, apart - LANES) * 4  # the last vectors may lie over those before: the same once more
        _mix_vectors(source + start, target + start, apart * 4)


@njit(nogil=True, cache=True, error_model="numpy")
def mix(x, out):
    """mix_row of every row of x (rows, inputs)."""
    for row in range(x.shape[0]):
        mix_row(x[row], out[row])

"""The sum of an array in one order, wherever the function that asks for it is compiled into.

Where a compiler may reorder a sum it chooses the order, in each function anew that the loop becomes part of, and
sometimes between two when it runs, by where the numbers lie. Two ways to compute a row then differ by its last bit.
"""

from functools import reduce
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from app.engine.compute.kernels.heads import at, close_loop, open_loop, read
from app.engine.compute.kernels.vectors import FLOATS, INT32, LANES, VECTOR_BYTES, fused, splat

ORDERED = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract"}}
"""For functions whose operations keep the order of the source; a product and what it is added to may be one step."""
Builder = Any


def _sum(*, is_distance: bool, at_once: int) -> Any:
    """An intrinsic that sums so many times `at_once` vectors of LANES numbers, at least one, at an address; or how far
    they are from a center."""

    @intrinsic
    def summed(typing, numbers, vectors, center):
        def generate(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
            numbers, vectors, center = arguments
            centers = splat(builder, center)
            loop = open_loop(builder, vectors)
            sums = [builder.phi(FLOATS) for _ in range(at_once)]
            for place, before in enumerate(sums):
                before.add_incoming(ir.Constant(FLOATS, [0.0] * LANES), loop.before)
                address = at(builder, numbers, (loop.index, VECTOR_BYTES * at_once), VECTOR_BYTES * place)
                held = read(builder, address, FLOATS, 4)
                if is_distance:
                    held = fused(builder, "llvm.fabs.v16f32", FLOATS, [builder.fsub(held, centers)])
                sums[place] = builder.fadd(before, held)
                before.add_incoming(sums[place], loop.body)
            close_loop(builder, loop)
            found, lanes = reduce(builder.fadd, sums), LANES
            while lanes > 1:
                lanes //= 2
                halves = [list(range(start, start + lanes)) for start in (0, lanes)]
                kind = ir.VectorType(INT32, lanes)
                found = builder.fadd(
                    *(builder.shuffle_vector(found, found, ir.Constant(kind, half)) for half in halves)
                )
            return builder.extract_element(found, ir.Constant(INT32, 0))

        return types.float32(types.intp, types.intp, types.float32), generate

    return summed


SPREAD_AT_ONCE = 4
_total = _sum(is_distance=False, at_once=1)
_total_of_many, _distance = (_sum(is_distance=each, at_once=SPREAD_AT_ONCE) for each in (False, True))


@njit(**ORDERED)
def total(numbers):
    """The sum of numbers (count,), which lie side by side: LANES sums, their sum by halves, then what is left over."""
    vectors = numbers.size // LANES
    found = _total(numbers.ctypes.data, vectors, np.float32(0.0)) if vectors else np.float32(0.0)
    for place in range(vectors * LANES, numbers.size):
        found += numbers[place]
    return found


@njit(**ORDERED)
def spread(numbers):
    """How far numbers (count,), which lie side by side, are from their mean, in the mean; at least one of them."""
    many = LANES * SPREAD_AT_ONCE
    vectors, count, start = numbers.size // many, np.float32(numbers.size), numbers.ctypes.data
    mean = _total_of_many(start, vectors, np.float32(0.0)) if vectors else np.float32(0.0)
    for place in range(vectors * many, numbers.size):
        mean += numbers[place]
    mean /= count
    found = _distance(start, vectors, mean) if vectors else np.float32(0.0)
    for place in range(vectors * many, numbers.size):
        found += abs(numbers[place] - mean)
    return found / count

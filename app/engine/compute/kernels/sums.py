"""The sum of an array in one order, wherever the function that asks for it is compiled into.

Where a compiler may reorder a sum it chooses the order, in each function anew that the loop becomes part of, and
sometimes between two when it runs, by where the numbers lie. Two ways to compute a row then differ by its last bit.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from app.engine.compute.kernels.heads import at, close_loop, open_loop, read
from app.engine.compute.kernels.vectors import FLOATS, INT32, LANES, VECTOR_BYTES

ORDERED = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract"}}
"""For functions whose operations keep the order of the source; a product and what it is added to may be one step."""
Builder = Any


@intrinsic
def _total(typing, numbers, vectors):
    """Of so many vectors of LANES numbers, at least one, at this address."""

    def generate(_context: Any, builder: Builder, _signature: Any, arguments: Any) -> Any:
        numbers, vectors = arguments
        loop = open_loop(builder, vectors)
        before = builder.phi(FLOATS)
        before.add_incoming(ir.Constant(FLOATS, [0.0] * LANES), loop.before)
        sums = builder.fadd(before, read(builder, at(builder, numbers, (loop.index, VECTOR_BYTES)), FLOATS, 4))
        before.add_incoming(sums, builder.block)
        close_loop(builder, loop)
        lanes = LANES
        while lanes > 1:
            lanes //= 2
            halves = [list(range(start, start + lanes)) for start in (0, lanes)]
            kind = ir.VectorType(INT32, lanes)
            sums = builder.fadd(*(builder.shuffle_vector(sums, sums, ir.Constant(kind, half)) for half in halves))
        return builder.extract_element(sums, ir.Constant(INT32, 0))

    return types.float32(types.intp, types.intp), generate


@njit(**ORDERED)
def total(numbers):
    """The sum of numbers (count,), which lie side by side: LANES sums, their sum by halves, then what is left over."""
    vectors = numbers.size // LANES
    found = _total(numbers.ctypes.data, vectors) if vectors else np.float32(0.0)
    for place in range(vectors * LANES, numbers.size):
        found += numbers[place]
    return found

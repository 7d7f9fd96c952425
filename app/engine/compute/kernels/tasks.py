"""Tasks that threads take as they come: a thread that lost its core for a while takes fewer, and nobody waits for it.

numba cuts a loop into one equal share a thread instead. Which thread computes a task changes no bit of it.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def take(typing, counter):
    """The number of the next task: what the int64 at this address was, which is one more from now on."""

    def generate(_context, builder, _signature, arguments):
        held = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", held, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.intp), generate

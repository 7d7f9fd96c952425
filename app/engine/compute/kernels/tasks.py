"""Tasks that threads take as they come: a thread that lost its core for a while takes fewer, and nobody waits for it.

numba cuts a loop into one equal share a thread instead. Which thread computes a task changes no bit of it.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

SPINS = 2000
"""How often a thread looks before it lends its core to others, about 0.05 ms: what it waits for has begun already."""


def _changed(operation: str, ordering: str) -> Any:
    """Adds 1 to the int64 at an address, or sets it to 1; returns what it was."""

    @intrinsic
    def counted(typing, counter):
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            held = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
            return builder.atomic_rmw(operation, held, ir.Constant(ir.IntType(64), 1), ordering)

        return types.int64(types.intp), generate

    return counted


take = _changed("add", "monotonic")
"""The number of the next task: what the counter at this address was, which is one more from now on."""
count_done = _changed("add", "acq_rel")
"""One more is done: whoever sees the counter at this address grown sees what this thread wrote before."""
mark = _changed("xchg", "acq_rel")
"""The task whose mark is at this address is done, likewise; what the mark was: 0 for the first to say so."""


@intrinsic
def done(typing, counter):
    """What the int64 at this address is by now."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        held = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(held, "acquire", 8)

    return types.int64(types.intp), generate


def _called(name: str, result: ir.Type) -> Any:
    """A function of LLVM's or of the C library that takes nothing."""

    @intrinsic
    def called(typing):
        def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
            function = builder.module.globals.get(name)
            if function is None:
                function = ir.Function(builder.module, ir.FunctionType(result, []), name)
            builder.call(function, [])
            return context.get_dummy_value()

        return types.void(), generate

    return called


pause = _called("llvm.x86.sse2.pause", ir.VoidType())
"""A moment, about 25 ns: what a thread does between two looks."""
_lend_core = _called("sched_yield", ir.IntType(32))


@njit(nogil=True, cache=True)
def await_done(counter, count):
    """Return when at least `count` are done. They must be in some thread's hands: tasks are taken in their order."""
    looks = 0
    while done(counter) < count:
        looks += 1
        if looks < SPINS:
            pause()
        else:
            _lend_core()

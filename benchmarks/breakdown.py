"""Where the time of our engine's decode steps goes, by kind of work.

    python -m benchmarks.breakdown <precision> <size> <scale>

Prints JSON: {kind: milliseconds a step}. The engine runs in this process. Calls of the compiled kernels are timed one
by one, in a run of their own; torch's operations by its profiler, in another, because it slows down what it watches.
What neither accounts for is Python and dispatch: the scheduler, the sampler's bookkeeping, the calls themselves.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from benchmarks.runners.runner import check_counts
from benchmarks.workloads import Work, make_work

PRODUCTS, HEAD, ATTENTION, NORMS = "linear layers and activations", "the head", "attention", "norms"
CACHE, SAMPLING, OTHER = "cache and copies", "sampling", "other operations"
BETWEEN = "Python and dispatch"
OPERATIONS: dict[str, str] = {
    PRODUCTS: r"linear|addmm|\bmm\b|_int_mm|int8pack|qlinear|mkldnn|onednn|gelu|silu|relu|tanh",
    ATTENTION: r"scaled_dot_product|flash_attention|bmm|matmul|softmax|attention",
    NORMS: r"layer_norm|native_norm",
    CACHE: r"copy|index|cat\b|clone|contiguous|gather|scatter|slice|select|embedding|_to_copy|::to\b|empty|view|fill",
    SAMPLING: r"argmax|topk|sort|multinomial|isfinite|item|_local_scalar",
}
KERNELS: dict[str, str] = {
    "best.": HEAD, "best_of_rows": SAMPLING, "attention.store": CACHE, "slots.": CACHE, "linear.": PRODUCTS,
    "tiles.": PRODUCTS, "rows.": NORMS, "attention.": ATTENTION, "spans": ATTENTION, "draws.": SAMPLING,
    "hypotheses.": SAMPLING,
}  # fmt: skip
"""By the first part of `module.function` that is found."""
Taken = dict[str, float]


def kind_of(operation: str) -> str:
    """The first kind whose pattern is found in the name of torch's operation."""
    name = operation.removeprefix("aten::")
    return next((kind for kind, pattern in OPERATIONS.items() if re.search(pattern, name)), OTHER)


def kind_of_kernel(name: str, outputs: int, vocabulary: int) -> str:
    """The kind of the kernel `module.function`; a product with as many outputs as there are tokens is the head."""
    kind = next((kind for part, kind in KERNELS.items() if part in name), OTHER)
    return HEAD if kind == PRODUCTS and outputs >= vocabulary else kind


def by_kind(found_ms: Iterable[tuple[str, float]], *, wall_ms: float, steps: int) -> Taken:
    """Milliseconds a step of each kind, and what is left of the wall's."""
    found: Taken = {}
    for kind, milliseconds in found_ms:
        found[kind] = found.get(kind, 0.0) + milliseconds / steps
    found[BETWEEN] = max(0.0, wall_ms / steps - sum(found.values()))
    return found


def time_kernels(vocabulary: int) -> Taken:
    """From now on every call of a compiled kernel from Python adds its milliseconds to its kind in what is returned.

    Kernels that call others were compiled before, or this would stand in their way.
    """
    from numba.core.registry import CPUDispatcher

    spent: Taken = {}

    def timed(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            began_s = time.perf_counter()
            result = kernel(*arguments)
            shape = getattr(arguments[-1], "shape", (0,))
            kind = kind_of_kernel(name, shape[-1] if shape else 0, vocabulary)
            spent[kind] = spent.get(kind, 0.0) + 1000 * (time.perf_counter() - began_s)
            return result

        return call

    rooms = {name: module for name, module in sys.modules.items() if name.startswith("app.engine.compute.kernels.")}
    for name, module in rooms.items():
        for word, value in list(vars(module).items()):
            if isinstance(value, CPUDispatcher):
                setattr(module, word, timed(f"{name.rpartition('.')[2]}.{word}", value))
    return spent


def watched(run: Callable[[], Any]) -> Taken:
    """Milliseconds of torch's own operations while `run` runs, on all threads, by kind."""
    from torch._C._profiler import _ExperimentalConfig
    from torch.profiler import ProfilerActivity, profile

    config = _ExperimentalConfig(profile_all_threads=True)
    with profile(activities=[ProfilerActivity.CPU], experimental_config=config, acc_events=True) as seen:
        run()
    found: Taken = {}
    averages: Any = seen.key_averages()
    for event in averages:
        if event.key.startswith("aten::"):
            found[kind_of(event.key)] = found.get(kind_of(event.key), 0.0) + event.self_cpu_time_total / 1000
    return found


def less(whole: Taken, part: Taken) -> list[tuple[str, float]]:
    return [(kind, max(0.0, spent - part.get(kind, 0.0))) for kind, spent in whole.items()]


def profile_steps(precision: str, size: str, scale: str) -> Mapping[str, float]:
    """Run gpt2-32 and its prompts alone, and subtract; layer by layer, because one kernel of all shows no parts."""
    from app.engine.compute.pre_norm import Layers
    from benchmarks.checkpoints import SIZES, checkpoint
    from benchmarks.runners.tollgate_engine import TollgateEngine

    setattr(Layers, "__call__", Layers.through)  # noqa: B010 (a type checker refuses the plain way)
    engine = TollgateEngine(precision, is_inline=True)
    engine.load(checkpoint("gpt2", size), model="gpt2")
    work = make_work("gpt2-32", scale)
    works = (work, work.first_only())
    for one in works:
        check_counts(one, engine.run(one))
    torchs = [watched(lambda one=one: engine.run(one)) for one in works]
    spent = time_kernels(SIZES[size]["gpt2"]["vocabulary"])

    def timed(one: Work) -> tuple[Taken, float]:
        spent.clear()
        began_s = time.perf_counter()
        engine.run(one)
        return dict(spent), 1000 * (time.perf_counter() - began_s)

    (whole, whole_ms), (prompts, prompts_ms) = (timed(one) for one in works)
    engine.close()
    steps = work.asks[0].output_tokens - 1
    return by_kind([*less(whole, prompts), *less(*torchs)], wall_ms=whole_ms - prompts_ms, steps=steps)


if __name__ == "__main__":
    print(json.dumps(profile_steps(*sys.argv[1:4])))

"""Where the time of our engine's decode steps goes, by kind of operation, as torch's profiler sees it.

    python -m benchmarks.breakdown <precision> <size> <scale>

Prints JSON: {kind: milliseconds a step}. The engine runs in this process, so that its thread can be seen. What no
operation accounts for is Python, dispatch and the scheduler; the profiler's own cost lies in there too.
"""

import json
import re
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.runners.runner import check_counts
from benchmarks.workloads import make_work

KINDS: dict[str, str] = {
    "linear layers": r"linear|addmm|\bmm\b|_int_mm|int8pack|qlinear|mkldnn|onednn",
    "attention": r"scaled_dot_product|flash_attention|bmm|matmul|softmax|attention",
    "compiled": r"^graph_|cpp_fused|Compiled|^inductor",
    "norms and activations": r"layer_norm|gelu|silu|relu|tanh|native_norm",
    "cache and copies": r"copy|index|cat\b|clone|contiguous|gather|scatter|slice|select|embedding|_to_copy|::to\b",
    "sampling": r"argmax|topk|sort|multinomial|isfinite|item|_local_scalar",
}
REST = "other operations"
BETWEEN = "Python and dispatch"


def kind_of(operation: str) -> str:
    """The first kind whose pattern is found in the operation's name."""
    name = operation.removeprefix("aten::")
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), REST)


def by_kind(self_ms: Iterable[tuple[str, float]], *, wall_ms: float, steps: int) -> dict[str, float]:
    """Milliseconds a step of each kind, and what is left of the wall's."""
    found: dict[str, float] = {}
    for operation, milliseconds in self_ms:
        found[kind_of(operation)] = found.get(kind_of(operation), 0.0) + milliseconds / steps
    found[BETWEEN] = max(0.0, wall_ms / steps - sum(found.values()))
    return found


def profile(precision: str, size: str, scale: str) -> Mapping[str, float]:
    """Run gpt2-32 and its prompts alone, and subtract."""
    from torch._C._profiler import _ExperimentalConfig
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    from benchmarks.checkpoints import checkpoint
    from benchmarks.runners.tollgate_engine import TollgateEngine

    engine = TollgateEngine(precision)
    engine.load(checkpoint("gpt2", size), model="gpt2")
    work = make_work("gpt2-32", scale)
    config = _ExperimentalConfig(profile_all_threads=True)
    measured: list[tuple[dict[str, float], float]] = []
    check_counts(work, engine.run(work))
    for one in (work, work.first_only()):
        with torch_profile(activities=[ProfilerActivity.CPU], experimental_config=config, acc_events=True) as seen:
            began_s = time.perf_counter()
            engine.run(one)
            wall_ms = 1000 * (time.perf_counter() - began_s)
        averages: Any = seen.key_averages()
        measured.append(({event.key: event.self_cpu_time_total / 1000 for event in averages}, wall_ms))
    engine.close()
    (whole, whole_ms), (prompts, prompts_ms) = measured
    rest = [(name, max(0.0, spent - prompts.get(name, 0.0))) for name, spent in whole.items()]
    return by_kind(rest, wall_ms=whole_ms - prompts_ms, steps=work.asks[0].output_tokens - 1)


if __name__ == "__main__":
    print(json.dumps(profile(*sys.argv[1:4])))

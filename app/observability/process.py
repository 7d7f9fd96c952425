"""What a process that answers HTTP tells of itself: memory, files, threads, and how late its event loop is."""

import asyncio
import gc
import os
import resource
import sys
import threading
import time
from pathlib import Path

from app.observability.metrics import Metrics

SAMPLE_S = 1.0
STATM = Path("/proc/self/statm")
DESCRIPTORS = Path("/proc/self/fd")
PAGE_BYTES = resource.getpagesize()


def resident_bytes() -> float:
    """Memory in use; where there is no /proc, the most that ever was."""
    try:
        return int(STATM.read_bytes().split()[1]) * PAGE_BYTES
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def open_descriptors() -> float:
    """Open files and sockets; 0 where there is no /proc."""
    try:
        return len(os.listdir(DESCRIPTORS))  # noqa: PTH208 (a list of names is all that is wanted)
    except OSError:
        return 0


def settle_heap() -> None:
    """Collect garbage, and take what is left out of the collector's sight: after a load, of which most will stay.

    A full collection stops the process while it looks at every object that there is, 100 ms where HTTP is answered and
    170 ms in the engine; afterwards it looks at what has come since. A frozen object still goes with its last user.
    """
    gc.collect()
    gc.freeze()


def watch_process(metrics: Metrics) -> None:
    """Add this process's gauges."""
    metrics.gauge("tollgate_processes", lambda: 1)
    metrics.gauge("tollgate_process_resident_memory_bytes", resident_bytes)
    metrics.gauge("tollgate_process_open_fds", open_descriptors)
    metrics.gauge("tollgate_process_threads", threading.active_count)


async def sample_for_ever(metrics: Metrics) -> None:
    """Each second: how late the loop was, and, where others may be asked for them, this process's gauges."""
    lag = metrics.histogram("tollgate_event_loop_lag_seconds")
    while True:
        due_s = time.perf_counter() + SAMPLE_S
        await asyncio.sleep(SAMPLE_S)
        lag.observe(max(0.0, time.perf_counter() - due_s))
        if metrics.is_one_of_many:
            metrics.sample()

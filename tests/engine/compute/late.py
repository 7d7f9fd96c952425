"""What threads may do to a step in stages: take tasks and leave them, come late, do the same at the same time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from app.engine.compute.kernels import encoder, stages

Array = np.ndarray[Any, np.dtype[Any]]
Work = tuple[Any, ...]
"""What a stage is given: model, places, cache, room."""


def counters_of() -> Array:
    return np.zeros((2, encoder.COUNTER_WORDS), np.int64)


def check_left_and_late(
    work: Work, counts: Sequence[int], out: Array, expected: Array, run: Callable[..., None]
) -> None:
    """Tasks that are taken and left are done by another, and change nothing when they come late; counts: of a stage."""
    for stage, count in enumerate(counts):
        counters, marks = counters_of(), np.zeros(count, np.int64)
        counters[0, 0] = (stage + 1) % (count + 1)  # so many were taken by threads that are not heard of again
        stages.finish_stage(stage, counters, marks, 300, *work)
        assert marks.all()
        assert counters[1, 0] == count
    np.testing.assert_array_equal(out, expected)
    written = (out, *work[2])
    held = [array.copy() for array in written]
    for stage, task in [(stage, task) for stage, count in enumerate(counts) for task in range(count)]:
        run(stage, task, *work)
    for before, after in zip(held, written, strict=True):
        np.testing.assert_array_equal(before, after)


def check_at_once(work: Work, counts: Sequence[int], out: Array, expected: Array, rounds: int) -> None:
    """Three threads that wait for nobody."""

    def run(counters: list[Array], marks: list[Array]) -> None:
        for stage in range(len(counts)):
            stages.finish_stage(stage, counters[stage], marks[stage], 0, *work)

    with ThreadPoolExecutor(3) as pool:
        for _ in range(rounds):
            shared = [counters_of() for _ in counts], [np.zeros(count, np.int64) for count in counts]
            for done in [pool.submit(run, *shared) for _ in range(3)]:
                done.result()
            np.testing.assert_array_equal(out, expected)

"""One engine in a process of its own: loads once, then runs a round for each line on standard input.

    python -m benchmarks.worker <engine> <model> <size>

Answers are lines of JSON on what was standard output; what libraries print goes to standard error instead.
"""

import dataclasses
import json
import os
import sys
import time
from typing import Any, TextIO

from benchmarks.checkpoints import checkpoint
from benchmarks.measure import Sample, sample_of
from benchmarks.runners.runner import NotHosted, Runner, Trace, check_counts, make_runner
from benchmarks.runners.served import family, resident_bytes
from benchmarks.workloads import Work, make_work

ROUND_S = 2.0
"""A round repeats a work that is done sooner: what else the machine does for a moment is then a small part of it."""


def private_output() -> TextIO:
    """Standard output for our answers alone."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return answers


def timed(runner: Runner, work: Work, *, least_s: float) -> tuple[Trace, float]:
    """Run it until `least_s` have passed, at least once; the last trace, and the seconds of a run."""
    began_s, runs, spent_s = time.perf_counter(), 0, 0.0
    trace = Trace(())
    while not runs or spent_s < least_s:
        trace = runner.run(work)
        check_counts(work, trace)
        runs += 1
        spent_s = time.perf_counter() - began_s
    return trace, spent_s / runs


def round_of(runner: Runner, work: Work, *, least_s: float) -> Sample:
    """One timed round, its counts checked."""
    trace, seconds = timed(runner, work, least_s=least_s)
    first_s = None
    if work.has_first:
        began_s = time.perf_counter()
        check_counts(work.first_only(), runner.run(work.first_only()))
        first_s = time.perf_counter() - began_s
    memory = sum(resident_bytes(process) for process in family(os.getpid()))
    return sample_of(work, trace, seconds, first_s=first_s, memory_bytes=memory)


def answer(runner: Runner, asked: dict[str, Any]) -> dict[str, Any]:
    """The reply to one line: a sample, or why there is none."""
    work = make_work(asked["work"], asked["scale"]).at_rate(asked["rate"])
    try:
        if asked["is_warm_up"]:
            check_counts(work.warm_up(), runner.run(work.warm_up()))
            return {"warm": True}
        least_s = ROUND_S if asked["scale"] == "full" else 0.0
        return {"sample": dataclasses.asdict(round_of(runner, work, least_s=least_s))}
    except NotHosted as why:
        return {"not_hosted": str(why)}
    except Exception as fault:  # a peer's failure is a cell in the table, not the end of the run
        return {"fault": f"{type(fault).__name__}: {fault}"}


def main(engine: str, model: str, size: str) -> None:
    """Serve until standard input ends."""
    answers = private_output()
    runner: Runner | None = None
    try:
        runner = make_runner(engine)
        ready = {"ready": runner.load(checkpoint(model, size), model=model)}
    except NotHosted as why:
        ready = {"not_hosted": str(why)}
    print(json.dumps(ready), file=answers)
    try:
        if runner is not None and "ready" in ready:
            for line in sys.stdin:
                print(json.dumps(answer(runner, json.loads(line))), file=answers)
    finally:
        if runner is not None:
            runner.close()


if __name__ == "__main__":
    main(*sys.argv[1:4])

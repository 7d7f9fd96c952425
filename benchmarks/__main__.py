"""python -m benchmarks: measure, compare, write docs/benchmarks.md and its plots."""

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import page
from benchmarks.machine import description
from benchmarks.report import summary
from benchmarks.roofline import measure_limits
from benchmarks.runner import LOAD_OF_THE_GOAL, LOADS, OURS, Measurement, Results
from benchmarks.workloads import MAKERS, chosen

ROOT = Path(__file__).parents[1]


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument(
        "--only", default="", help=f"works, by commas; a prefix takes all of its kind: {', '.join(MAKERS)}"
    )
    made.add_argument("--engines", default="", help="engines, by commas; a prefix takes all of its kind")
    made.add_argument("--rounds", type=int, default=3, help="timed rounds of each work on each engine (3)")
    made.add_argument("--loads", default="", help=f"of arrivals by Poisson, as shares of the least capacity {LOADS}")
    made.add_argument("--quick", action="store_true", help="a quarter of the tokens, half of the requests, one round")
    made.add_argument("--tiny", action="store_true", help="tiny models too: shows that the machinery runs")
    made.add_argument(
        "--json", type=Path, metavar="FILE", help="write the raw samples there; benchmarks.page joins several"
    )
    made.add_argument("--write", action="store_true", help="write docs/benchmarks.md and docs/img/")
    made.add_argument("--write-page", action="store_true", help="write the page without the pictures")
    made.add_argument("--page", type=Path, default=page.PAGE, help="the page to write, with its two markers")
    return made


def breakdown_of(results: Results, *, size: str, scale: str) -> dict[str, float]:
    """The kinds of a decode step's time, measured in a process of its own; empty when gpt2-32 was not run on ours."""
    mine = results.best(OURS, "gpt2-32")
    if mine is None:
        return {}
    print("profiling a decode step", flush=True)
    command = [sys.executable, "-m", "benchmarks.breakdown", mine.rpartition("-")[2], size, scale]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        print(f"the breakdown of a step failed: {done.stderr.strip()[-300:]}", file=sys.stderr)
        return {}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run what the options say."""
    arguments = parser().parse_args()
    scale = "tiny" if arguments.tiny else "quick" if arguments.quick else "full"
    size = "tiny" if arguments.tiny else "published"
    rounds = 1 if arguments.quick else arguments.rounds
    try:
        works = chosen([word for word in arguments.only.split(",") if word])
    except ValueError as wrong:
        sys.exit(f"benchmarks: {wrong}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through every `finally`: stopped workers would stay
    began_s = time.monotonic()
    print("measuring the machine's limits", flush=True)
    limits = measure_limits(seconds=0.05 if arguments.tiny else 1.0)
    engines = [word for word in arguments.engines.split(",") if word]

    def keep(results: Results, step_ms: dict[str, float] | None = None) -> page.Run:
        """The run so far, in its file too: one that is ended early has measured something."""
        run = page.Run(
            machine=description(), command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]), scale=scale,
            size=size, limits=limits, step_ms=step_ms or {}, results=results,
        )  # fmt: skip
        if arguments.json:
            arguments.json.write_text(json.dumps(run.as_json()), encoding="utf-8")
        return run

    every = LOADS if scale == "full" else (LOAD_OF_THE_GOAL,)
    results = Measurement(
        rounds=rounds, scale=scale, size=size, engines=engines, say=lambda line: print(line, flush=True), keep=keep,
        loads=[float(load) for load in arguments.loads.split(",")] if arguments.loads else every,
    ).measure(works)  # fmt: skip
    parts_ms = breakdown_of(results, size=size, scale=scale)
    run = keep(results, parts_ms)
    if arguments.write or arguments.write_page:
        page.write(run, arguments.page, has_images=arguments.write)
    print(summary(results))
    if parts_ms:
        print("a decode step: " + ", ".join(f"{kind} {spent:.1f} ms" for kind, spent in parts_ms.items()))
    print(f"done in {(time.monotonic() - began_s) / 60:.1f} minutes")


if __name__ == "__main__":
    main()

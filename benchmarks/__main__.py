"""python -m benchmarks: measure, compare, write docs/benchmarks.md and its plots."""

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import description
from benchmarks.report import replaced, summary, written
from benchmarks.roofline import Limits, measure_limits
from benchmarks.runner import OURS, Measurement, Results
from benchmarks.workloads import MAKERS, chosen

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument(
        "--only", default="", help=f"works, by commas; a prefix takes all of its kind: {', '.join(MAKERS)}"
    )
    made.add_argument("--engines", default="", help="engines, by commas; a prefix takes all of its kind")
    made.add_argument("--rounds", type=int, default=3, help="timed rounds of each work on each engine (3)")
    made.add_argument("--quick", action="store_true", help="a quarter of the tokens, half of the requests, one round")
    made.add_argument("--tiny", action="store_true", help="tiny models too: shows that the machinery runs")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the raw samples there")
    made.add_argument("--write", action="store_true", help="write docs/benchmarks.md and docs/img/")
    made.add_argument("--write-page", action="store_true", help="write the page without the pictures")
    made.add_argument("--page", type=Path, default=PAGE, help="the page to write, with its two markers")
    return made


def breakdown_of(results: Results, *, size: str, scale: str) -> dict[str, float]:
    """The kinds of a decode step's time, measured in a process of its own; empty when gpt2-32 was not run on ours."""
    mine = results.best(OURS, "gpt2-32")
    if mine is None:
        return {}
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
    measurement = Measurement(
        rounds=rounds, scale=scale, size=size, engines=engines, say=lambda line: print(line, flush=True)
    )
    results = measurement.measure(works)
    print("profiling a decode step", flush=True)
    parts_ms = breakdown_of(results, size=size, scale=scale)
    if arguments.json:
        raw = {"machine": description(), "limits": [limits.bytes_per_s, limits.operations_per_s],
               "step_ms": parts_ms} | results.as_json()  # fmt: skip
        arguments.json.write_text(json.dumps(raw), encoding="utf-8")
    if arguments.write or arguments.write_page:
        images = draw(arguments.page, results, parts_ms) if arguments.write else []
        write(arguments.page, results, limits, images, scale=scale, size=size)
    print(summary(results))
    print(", ".join(f"{kind} {spent:.1f} ms" for kind, spent in parts_ms.items()))
    print(f"done in {(time.monotonic() - began_s) / 60:.1f} minutes")


def draw(page: Path, results: Results, parts_ms: dict[str, float]) -> list[Path]:
    """The pictures beside the page."""
    from benchmarks.plots import draw_all  # here, because only the bench extra brings matplotlib

    title = f"a decode step of {results.best(OURS, 'gpt2-32')} at 32 rows"
    return draw_all(results, parts_ms, page.parent / "img", title=title)


def write(page: Path, results: Results, limits: Limits, images: list[Path], *, scale: str, size: str) -> None:
    """The page's part between its markers."""
    text = written(
        results, limits, machine=description(), command=shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        scale=scale, size=size, images=[str(image.relative_to(page.parent)) for image in images],
    )  # fmt: skip
    page.write_text(replaced(page.read_text(encoding="utf-8"), text), encoding="utf-8")


if __name__ == "__main__":
    main()

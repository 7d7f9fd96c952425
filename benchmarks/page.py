"""python -m benchmarks.page FILE…: a page, and for docs/benchmarks.md its pictures, from raw samples of some runs.

A machine that is quiet for minutes only is measured piece by piece: `python -m benchmarks --only … --json FILE`.
A work's ratios come from one run always: of two files that have it, the later one counts. A machine of another kind
has a page of its own: `--page docs/benchmarks-avx2.md`.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from benchmarks.processes import sample_from
from benchmarks.report import replaced, written
from benchmarks.roofline import Limits
from benchmarks.runner import OURS, Results

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
SAME = ("processor", "memory", "system", "versions")
"""What runs must have in common to stand on one page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Everything that a page is made of."""

    machine: dict[str, str]
    command: str
    scale: str
    size: str
    limits: Limits
    step_ms: dict[str, float]
    """Of a decode step at 32 rows, by kind; empty when it was not profiled."""
    results: Results

    def as_json(self) -> dict[str, Any]:
        """Raw, for a file."""
        return dataclasses.asdict(self)


def read(path: Path) -> Run:
    """A run from its file. Raises ValueError when it is none."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        results = Results(**found.pop("results"))
        for engines in results.samples.values():
            for engine, samples in engines.items():
                engines[engine] = [sample_from(one) for one in cast("list[dict[str, Any]]", samples)]
        return Run(**(found | {"limits": Limits(**found["limits"]), "results": results}))
    except (KeyError, TypeError) as wrong:
        raise ValueError(f"{path} is no run that --json has written: {wrong}") from wrong


def merged(runs: Sequence[Run]) -> Run:
    """All of them as one. Raises ValueError when they are of different machines or sizes."""
    first = runs[0]
    for run in runs[1:]:
        if any(run.machine[name] != first.machine[name] for name in SAME):
            raise ValueError("these runs are of different machines or versions and belong on no common page")
        if (run.scale, run.size) != (first.scale, first.size):
            raise ValueError("these runs are of different scales or sizes")
    results = Results()
    for run in runs:
        for mine, theirs in zip(fields_of(results), fields_of(run.results), strict=True):
            mine.update(theirs)
    machine = {name: ", ".join(dict.fromkeys(run.machine[name] for run in runs)) for name in first.machine}
    return Run(
        machine=machine, command="`<br>`".join(run.command for run in runs), scale=first.scale, size=first.size,
        limits=most([run.limits for run in runs]), results=results,
        step_ms=next((run.step_ms for run in reversed(runs) if run.step_ms), {}),
    )  # fmt: skip


def fields_of(results: Results) -> list[dict[str, Any]]:
    return [getattr(results, field.name) for field in dataclasses.fields(results)]


def most(limits: Sequence[Limits]) -> Limits:
    """What a machine was ever seen to do is its limit."""
    names = limits[0].operations_per_s
    operations = {name: max(one.operations_per_s[name] for one in limits) for name in names}
    return Limits(max(one.bytes_per_s for one in limits), operations)


def write(run: Run, page: Path, *, has_images: bool) -> None:
    """The page's part between its markers, and the pictures beside it."""
    images: list[Path] = []
    if has_images:
        from benchmarks.plots import draw_all  # here, because only the bench extra brings matplotlib

        images = draw_all(run.results, run.step_ms, page.parent / "img", engine=run.results.best(OURS, "gpt2-32"))
    text = written(
        run.results, run.limits, machine=run.machine, command=run.command, scale=run.scale, size=run.size,
        images=[str(image.relative_to(page.parent)) for image in images],
    )  # fmt: skip
    page.write_text(replaced(page.read_text(encoding="utf-8"), text), encoding="utf-8")


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    made.add_argument("files", type=Path, nargs="+", metavar="FILE", help="what `python -m benchmarks --json` wrote")
    made.add_argument("--page", type=Path, default=PAGE, help="with its two markers; the default one has pictures too")
    arguments = made.parse_args()
    try:
        run = merged([read(path) for path in arguments.files])
        write(run, arguments.page, has_images=arguments.page.resolve() == PAGE.resolve())
    except (OSError, ValueError) as wrong:
        sys.exit(f"benchmarks.page: {wrong}")


if __name__ == "__main__":
    main()

"""Three small pictures of a run: throughput by concurrency, latency by load, and where a step's time goes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

from benchmarks.measure import percentile, spread
from benchmarks.runner import OURS, Results
from benchmarks.workloads import CONCURRENCIES

BYTES_MAX = 60_000
SIZE_INCHES = (7.0, 4.0)
DPI = 80


def saved(figure: Any, path: Path) -> Path:
    """Write and close it; a picture that grew past what belongs into a repository is a fault."""
    figure.tight_layout()
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    pyplot.close(figure)
    assert path.stat().st_size < BYTES_MAX, f"{path} is larger than {BYTES_MAX} bytes. This is a bug."
    return path


def draw_throughput(results: Results, path: Path) -> Path | None:
    """Tokens a second over equal streams, with the range of the rounds. None when fewer than two points exist."""
    works = {count: f"gpt2-{count}" for count in CONCURRENCIES}
    engines = dict.fromkeys(engine for work in works.values() for engine in results.samples.get(work, {}))
    figure, axes = pyplot.subplots(figsize=SIZE_INCHES)
    lines = 0
    for engine in engines:
        points = {count: spread([sample.rate for sample in results.of(work, engine)])
                  for count, work in works.items() if results.of(work, engine)}  # fmt: skip
        if len(points) < 3:
            continue
        lines += 1
        middle = [point.median for point in points.values()]
        below = [point.median - point.least for point in points.values()]
        above = [point.greatest - point.median for point in points.values()]
        axes.errorbar(list(points), middle, yerr=[below, above], marker="o", capsize=3, label=engine)
    if not lines:
        pyplot.close(figure)
        return None
    axes.set_xscale("log", base=2)
    axes.set_xticks(CONCURRENCIES, [str(count) for count in CONCURRENCIES])
    axes.set(
        xlabel="equal streams at once", ylabel="output tokens/s", title="GPT-2 124M, 128 in / 64 out", ylim=(0, None)
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return saved(figure, path)


def draw_latency(results: Results, path: Path) -> Path | None:
    """Time to first token and gaps over offered load. None when fewer than two loads were measured."""
    if len(results.rates) < 2:
        return None
    figure, (first, gaps) = pyplot.subplots(1, 2, figsize=SIZE_INCHES)
    works = sorted(results.rates, key=lambda work: results.rates[work])
    for number, engine in enumerate(dict.fromkeys(e for work in works for e in results.samples.get(work, {}))):
        mine = [work for work in works if results.of(work, engine)]
        loads = [results.rates[work] for work in mine]
        color = f"C{number}"
        for share, style in ((0.5, "--"), (0.95, "-")):
            times = [percentile([t for s in results.of(work, engine) for t in s.ttft_s], share) for work in mine]
            first.plot(loads, times, style, color=color, marker="o", label=f"{engine} p{100 * share:.0f}")
        pauses = [percentile([t for s in results.of(work, engine) for t in s.gaps_s], 0.95) for work in mine]
        gaps.plot(loads, [1000 * pause for pause in pauses], color=color, marker="o", label=f"{engine} p95")
    first.set(xlabel="requests/s that arrive", ylabel="s", title="time to first token", yscale="log")
    gaps.set(xlabel="requests/s that arrive", ylabel="ms", title="gap between tokens", ylim=(0, None))
    for axes in (first, gaps):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    return saved(figure, path)


def draw_breakdown(parts_ms: Mapping[str, float], path: Path, *, engine: str) -> Path:
    """One bar a kind of work in a decode step, in milliseconds."""
    title = f"a decode step of {engine} at 32 rows: {sum(parts_ms.values()):.1f} ms"
    figure, axes = pyplot.subplots(figsize=SIZE_INCHES)
    names = sorted(parts_ms, key=lambda name: parts_ms[name])
    bars = axes.barh(names, [parts_ms[name] for name in names])
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.margins(x=0.12)
    axes.set(xlabel="ms a step", title=title)
    return saved(figure, path)


def draw_all(results: Results, parts_ms: Mapping[str, float], folder: Path, *, engine: str | None) -> list[Path]:
    """Every picture that the run has the data for; `engine` is whose step was profiled."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [
        draw_throughput(results, folder / "throughput.png"),
        draw_latency(results, folder / "latency.png"),
        draw_breakdown(parts_ms, folder / f"step-{OURS}.png", engine=engine) if parts_ms and engine else None,
    ]
    return [path for path in drawn if path is not None]

"""A run as Markdown, and its place between two markers of docs/benchmarks.md. Measures nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.goals import GOALS, Goal
from benchmarks.measure import Sample, percentile, spread
from benchmarks.roofline import Limits, floor_s
from benchmarks.runner import ENGINES, HTTP, OURS, Results
from benchmarks.runners.runner import PRECISIONS, split_name
from benchmarks.workloads import make_work

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def replaced(page: str, text: str) -> str:
    """`page` with `text` between the markers; all else stays. Raises ValueError when a marker is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the two lines {BEGIN} and {END}, in this order")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def written(
    results: Results, limits: Limits, *, machine: Mapping[str, str], command: str, scale: str, size: str,
    images: Sequence[str] = (),
) -> str:  # fmt: skip
    """Everything that stands between the markers."""
    facts = [*machine.items(), ("command", f"`{command}`")]
    parts = ["## The run", table(("", ""), facts)]
    if scale != "full" or size != "published":
        parts.append(f"**Not the published figures**: scale `{scale}`, models `{size}`. It shows that everything runs.")
    parts += ["## Against the goals", goals_table(results)]
    parts += ["## Values", values_table(results, limits, scale=scale, size=size)]
    latency = latency_table(results)
    if latency:
        parts += ["## Arrivals by Poisson", latency]
    parts += ["## The machine's limits", limits_table(limits)]
    held = [(name, word) for name, word in results.held.items()]
    parts += ["## How each engine holds the weights", table(("engine and model", "held"), held)]
    if images:
        parts += ["## Plots", "\n\n".join(f"![{Path(name).stem}]({name})" for name in images)]
    return "\n\n".join(parts)


def goals_table(results: Results) -> str:
    """Each goal with what came out. A cell without a value says why."""
    rows: list[tuple[str, ...]] = []
    for goal in GOALS:
        found = goal.measured(results)
        if found is None:
            rows.append((goal.work, goal.figure, goal.shown_bound, "", reason(results, goal), ""))
        else:
            who, ratio = found
            rows.append((goal.work, goal.figure, goal.shown_bound, ratio.shown(), who,
                         "yes" if goal.is_met(ratio.median) else "no"))  # fmt: skip
    return table(("work", "figure", "goal", "ratio", "between", "met"), rows)


def reason(results: Results, goal: Goal) -> str:
    """Why a goal's line is empty, in a few words."""
    refused = results.refusals.get(goal.work, {})
    return "; ".join(f"{engine} not hosted" for engine in refused) or "not in this run"


def values_table(results: Results, limits: Limits, *, scale: str, size: str) -> str:
    """Medians and spread of every engine in every work, with the share of what the machine allows."""
    rows: list[tuple[str, ...]] = []
    for name in ENGINES:
        measured, refused = results.samples.get(name, {}), results.refusals.get(name, {})
        for engine in dict.fromkeys([*measured, *refused]):
            samples = measured.get(engine, [])
            if samples:
                rows.append((name, engine, *values(name, engine, samples, limits, scale=scale, size=size)))
            else:
                rows.append((name, engine, "not hosted", "", "", refused[engine]))
    head = ("work", "engine", "tokens/s, BERT: requests/s", "share of limit", "memory", "note")
    return table(head, rows)


def values(
    name: str, engine: str, samples: Sequence[Sample], limits: Limits, *, scale: str, size: str
) -> tuple[str, str, str, str]:
    """One row's four cells after the engine's name."""
    rate = spread([sample.rate for sample in samples])
    floor = floor_s(make_work(name, scale), split_name(engine)[1], limits, size=size)
    share = floor / spread([sample.seconds for sample in samples]).median
    note = ""
    if samples[0].first_s is not None:
        note = f"decode {spread([sample.decode_ms for sample in samples]).shown(1)} ms/token"
    memory = f"{max(sample.memory_bytes for sample in samples) / 2**20:.0f} MiB"
    return rate.shown(1), f"{100 * share:.0f} %", memory, note


def latency_table(results: Results) -> str:
    """Times to first token and gaps at every offered load, rounds together."""
    rows: list[tuple[str, ...]] = []
    for work, rate in results.rates.items():
        for engine, samples in results.samples.get(work, {}).items():
            first = [1000 * value for sample in samples for value in sample.ttft_s]
            gaps = [1000 * value for sample in samples for value in sample.gaps_s]
            load = f"{100 * float(work.partition('@')[2]):.0f} % ({rate:.2f}/s)"
            cells = [percentile(first, 0.5), percentile(first, 0.95), percentile(gaps, 0.5), percentile(gaps, 0.95)]
            rows.append((load, engine, *(f"{cell:.0f}" for cell in cells)))
    head = ("offered load", "engine", "first token p50 ms", "first token p95 ms", "gap p50 ms", "gap p95 ms")
    return table(head, rows) if rows else ""


def limits_table(limits: Limits) -> str:
    """The measured roof."""
    rows = [("streaming read", f"{limits.bytes_per_s / 1e9:.1f} GB/s")]
    rows += [(f"matrix products, {name}", f"{limits.operations_per_s[name] / 1e9:.0f} GFLOP/s") for name in PRECISIONS]
    return table(("limit", "measured"), rows)


def summary(results: Results) -> str:
    """The goals in lines for a terminal."""
    lines: list[str] = []
    for goal in GOALS:
        found = goal.measured(results)
        if found is not None:
            who, ratio = found
            word = "meets" if goal.is_met(ratio.median) else "misses"
            lines.append(f"{goal.work:18} {goal.figure:34} {ratio.shown():24} {word} {goal.shown_bound:8} {who}")
    return "\n".join(lines) or f"no goal was measured; they need {OURS} or {HTTP} beside a peer"

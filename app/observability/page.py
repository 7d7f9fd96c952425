"""The tables of docs/metrics.md, made of the lists; `python -m app.observability.page docs/metrics.md` renews them."""

import sys
from collections.abc import Iterator
from pathlib import Path

from app.observability.aliases import ALIASES
from app.observability.metrics import METRICS, Kind

BEGIN = "<!-- made by python -m app.observability.page; do not edit -->"
END = "<!-- end -->"


def tables() -> str:
    """Every metric, then every alias, as Markdown."""
    return "\n".join((*metric_lines(), "", *alias_lines()))


def metric_lines() -> Iterator[str]:
    """A row a metric."""
    yield "| metric | kind | labels | what it tells |"
    yield "|---|---|---|---|"
    for one in METRICS:
        yield f"| `{one.shown_name}` | {one.kind} | {', '.join(one.labels) or '–'} | {one.help} |"  # noqa: RUF001


def alias_lines() -> Iterator[str]:
    """A row an alias."""
    shown = {one.name: one for one in METRICS}
    yield "| with | name | is our |"
    yield "|---|---|---|"
    for board, found in ALIASES.items():
        for alias in found:
            series = shown[alias.of]
            name = alias.name + ("_total" if series.kind is Kind.COUNTER and alias.has_total else "")
            yield f"| {board} | `{name}` | `{series.shown_name}` |"


def renewed(page: str) -> str:
    """The page with fresh tables between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")

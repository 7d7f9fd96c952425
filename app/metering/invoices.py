"""A tenant's month as an invoice: a line a model and task, out of the sums by day; JSON, CSV, or a page to print."""

import csv
import io
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment
from sqlalchemy import Connection

from app.errors import InvalidRequest
from app.metering.database import microseconds
from app.metering.money import decimal_text
from app.metering.prices import tenant_id_of
from app.metering.usage import Chosen, buckets

COLUMNS = ("model", "task", "requests", "input_tokens", "output_tokens", "characters", "amount")
PAGE = Environment(autoescape=True).from_string(
    """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Invoice {{ number }}</title>
<style>body{font:14px/1.5 sans-serif;max-width:48em;margin:2em auto}table{border-collapse:collapse;width:100%}
td,th{border-bottom:1px solid #ccc;padding:.3em .5em;text-align:right}
td:nth-child(-n+2),th:nth-child(-n+2){text-align:left}
</style>
<h1>Invoice {{ number }}</h1>
<p>{{ tenant }}: usage from {{ from }} until {{ until }} (UTC, end excluded).{% if not is_final %}
<strong>The month is not over: this is a preview.</strong>{% endif %}</p>
<table><tr>{% for name in columns %}<th>{{ name.replace("_", " ") }}</th>{% endfor %}</tr>
{% for line in lines %}<tr>{% for name in columns %}<td>{{ line[name] }}</td>{% endfor %}</tr>
{% endfor %}<tr><th colspan="{{ columns | length - 1 }}">Total, {{ currency }}</th><th>{{ total }}</th></tr>
</table></html>
"""
)


def month_of(text: str) -> tuple[datetime, datetime]:
    """A month's first moment and the next one's, from `2026-11`. Raises InvalidRequest."""
    try:
        first = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError as cause:
        raise InvalidRequest(f"{text!r} is no month; write 2026-11", field="month") from cause
    return first, first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)


def invoice(connection: Connection, *, tenant_name: str, month: str, now: datetime) -> dict[str, Any]:
    """The invoice as JSON shows it. Amounts are exact decimal numbers; the total is the sum of the entries' costs."""
    first, after = month_of(month)
    tenant_id = tenant_id_of(connection, tenant_name)
    days = buckets(
        connection, width="1d", start_us=microseconds(first), end_us=microseconds(after),
        chosen=Chosen(tenant_ids=(tenant_id,)), group_by=("model", "task"),
    )  # fmt: skip
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for row in (row for day in days for row in day.sums):
        line = lines.setdefault((row["model"], row["task"]), {"model": row["model"], "task": row["task"]})
        for name in ("requests", "input_tokens", "output_tokens", "characters", "cost_nano"):
            line[name] = line.get(name, 0) + row[name]
    total = sum(line["cost_nano"] for line in lines.values())
    for line in lines.values():
        line["amount"] = decimal_text(line["cost_nano"])
    return {
        "object": "invoice", "number": f"{month}-{tenant_id}", "tenant": tenant_name, "month": month,
        "from": first.date().isoformat(), "until": after.date().isoformat(), "is_final": now >= after,
        "currency": "USD", "lines": [lines[place] for place in sorted(lines)], "total_nano": total,
        "total": decimal_text(total),
    }  # fmt: skip


def as_csv(found: dict[str, Any]) -> str:
    """A line a model and task, and the total."""
    return csv_text([*found["lines"], {"model": "total", "amount": found["total"]}], COLUMNS)


def as_page(found: dict[str, Any]) -> str:
    """A page to print."""
    return PAGE.render(columns=COLUMNS, **found)


def csv_text(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """Rows as CSV with a heading. A text that a spreadsheet would run as a formula is quoted with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        shown = (row.get(name, "") for name in columns)
        writer.writerow([f"'{one}" if isinstance(one, str) and one[:1] in tuple("=+@\t") else one for one in shown])
    return out.getvalue()

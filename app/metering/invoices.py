"""A tenant's month as an invoice: a line a model and task, out of the sums by day; JSON, CSV, or a page to print."""

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jinja2 import Environment
from sqlalchemy import Connection

from app.errors import InvalidRequest
from app.metering.database import microseconds
from app.metering.money import decimal_text
from app.metering.tenants import find_tenant
from app.metering.usage import Chosen, buckets

COLUMNS = ("model", "task", "requests", "input_tokens", "output_tokens", "characters", "amount")
PAGE = Path(__file__).with_name("invoice.html")


def month_of(text: str) -> tuple[datetime, datetime]:
    """A month's first moment and the next one's, from `2026-11`. Raises InvalidRequest."""
    try:
        first = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
    except ValueError as cause:
        raise InvalidRequest(f"{text!r} is no month; write 2026-11", field="month") from cause
    return first, first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)


def invoice(connection: Connection, *, tenant_name: str, month: str, now: datetime, issuer: str = "") -> dict[str, Any]:
    """The invoice as JSON shows it. Amounts are exact decimal numbers; the total is the sum of the entries' costs."""
    first, after = month_of(month)
    payer = find_tenant(connection, tenant_name)
    tenant_id = payer.id
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
        "object": "invoice", "number": f"{month}-{tenant_id.rpartition('_')[2][:12]}", "tenant_id": tenant_id,
        "tenant": payer.name, "month": month, "issuer": issuer, "issued": now.date().isoformat(),
        "last_day": (after - timedelta(days=1)).date().isoformat(),
        "from": first.date().isoformat(), "until": after.date().isoformat(), "is_final": now >= after,
        "currency": "USD", "lines": [lines[place] for place in sorted(lines)], "total_nano": total,
        "total": decimal_text(total),
    }  # fmt: skip


def as_csv(found: dict[str, Any]) -> str:
    """A line a model and task, and the total."""
    return csv_text([*found["lines"], {"model": "total", "amount": found["total"]}], COLUMNS)


def as_page(found: dict[str, Any]) -> str:
    """A page to print; everything on it is escaped."""
    return Environment(autoescape=True).from_string(PAGE.read_text(encoding="utf-8")).render(**found)


def csv_text(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """Rows as CSV with a heading. A text that a spreadsheet would run as a formula is quoted with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        shown = (row.get(name, "") for name in columns)
        writer.writerow([f"'{one}" if isinstance(one, str) and one[:1] in tuple("=+@\t") else one for one in shown])
    return out.getvalue()

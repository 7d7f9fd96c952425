"""Usage read back: sums in buckets of time, grouped and filtered, out of the tables of sums (minutes: of entries)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, func, select

from app.metering.rollups import COUNTED, DAY_US, HOUR_US
from app.metering.tables import usage_day, usage_entry, usage_hour

MINUTE_US = 60_000_000
WIDTHS: dict[str, tuple[Table, str, int]] = {
    "1m": (usage_entry, "occurred_us", MINUTE_US),
    "1h": (usage_hour, "hour_us", HOUR_US),
    "1d": (usage_day, "day_us", DAY_US),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which usage; an empty choice leaves nothing out."""

    tenant_ids: Sequence[str] = ()
    key_ids: Sequence[str] = ()
    models: Sequence[str] = ()
    tasks: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A stretch of time with its sums, a mapping a group: the columns grouped by, `requests`, and what was counted."""

    start_us: int
    end_us: int
    sums: list[dict[str, Any]]


def buckets(
    connection: Connection, *, width: str, start_us: int, end_us: int, chosen: Chosen, group_by: Sequence[str] = ()
) -> list[Bucket]:
    """Every bucket that begins in [start, end), the empty ones too. `group_by` names columns: tenant_id, key_id, …"""
    table, moment, length_us = WIDTHS[width]
    first_us = start_us - start_us % length_us
    start = table.c[moment] - table.c[moment] % length_us
    requests = func.count() if table is usage_entry else func.sum(table.c.requests)
    columns = [table.c[name] for name in group_by]
    sums = [requests.label("requests"), *(func.sum(table.c[name]).label(name) for name in COUNTED)]
    rows = connection.execute(
        select(start.label("start_us"), *columns, *sums)
        .where(table.c[moment] >= first_us, table.c[moment] < end_us, *conditions(table, chosen))
        .group_by(start, *columns)
        .order_by(start, *columns)
    ).mappings()
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        counted = {name: int(row[name]) for name in ("requests", *COUNTED)}
        found.setdefault(int(row["start_us"]), []).append({name: row[name] for name in group_by} | counted)
    return [
        Bucket(start_us=at_us, end_us=at_us + length_us, sums=found.get(at_us, []))
        for at_us in range(first_us, end_us, length_us)
    ]


def conditions(table: Table, chosen: Chosen) -> list[ColumnElement[bool]]:
    """The choice as SQL."""
    pairs = (
        ("tenant_id", chosen.tenant_ids), ("key_id", chosen.key_ids), ("model", chosen.models), ("task", chosen.tasks),
    )  # fmt: skip
    return [table.c[name].in_(list(values)) for name, values in pairs if values]

"""Sums of entries by hour and day, moved in the transaction that makes the entry: no job, no cursor, no drift."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table

from app.metering.statements import Statement
from app.metering.tables import usage_day, usage_hour

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
SAME = ("tenant_id", "key_id", "model", "task")
COUNTED = ("input_tokens", "output_tokens", "cached_tokens", "characters", "cost_nano")


def adding(table: Table) -> Statement:
    """The statement that adds a row to its sums."""
    summed = ("requests", *COUNTED)
    return Statement(
        lambda insert: insert.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={name: table.c[name] + insert.excluded[name] for name in summed},
        ),
        table=table,
    )


SUMS = ((adding(usage_hour), "hour_us", HOUR_US), (adding(usage_day), "day_us", DAY_US))


def add_to_sums(connection: Connection, entry: Mapping[str, Any]) -> None:
    """Add an entry to its hour and its day (UTC)."""
    values = {"requests": 1} | {name: entry[name] for name in (*SAME, *COUNTED)}
    for statement, moment, length_us in SUMS:
        start_us = entry["occurred_us"] - entry["occurred_us"] % length_us
        statement.count(connection, {moment: start_us} | values)

"""Old months of the ledger leave: their sums stay, so that the books still balance without them."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, select, text, update

from app.errors import InvalidRequest
from app.metering.acts import Operator
from app.metering.database import upsert
from app.metering.partitions import PARTITIONED, PREFIX, REST, first_id, is_partitioned, list_partitions, month_before
from app.metering.rollups import COUNTED, HOUR_US, SAME
from app.metering.tables import budget_charge, budget_window, usage_entry, usage_pruned
from app.metering.verify import drifts

KEEP_MIN = 3
"""Months that always stay: whoever repeats a settlement must still find its entry."""

FOREIGN_KEYS = text(
    "SELECT conname FROM pg_constraint WHERE conrelid = to_regclass(:name) AND contype = 'f' AND conparentid = 0"
)


def prune(connection: Connection, operator: Operator, *, keep_months: int, is_dropped: bool) -> dict[str, Any]:
    """Take away all but this month's and the `keep_months` before it, after a proof that the books balance.

    PostgreSQL: their tables are detached, for the operator to archive, or dropped. SQLite: the rows are deleted. Raises
    InvalidRequest when too little would stay, or the books do not balance.
    """
    operator.require("usage.prune")
    if keep_months < KEEP_MIN:
        raise InvalidRequest(f"at least {KEEP_MIN} months stay, so that no settlement is ever repeated unseen")
    if not is_dropped and not is_partitioned(connection):
        raise InvalidRequest("SQLite has no tables of months to detach: say --drop to delete the entries")
    if found := next(drifts(connection), None):
        raise InvalidRequest(f"the books do not balance, so nothing is taken away: {found}")
    before = month_before(operator.clock.now(), keep_months)
    count = keep_sums(connection, before)
    tables = take_months(connection, before, is_dropped=is_dropped) if is_partitioned(connection) else []
    low, high = PREFIX, first_id(before)
    connection.execute(
        delete(budget_charge).where(budget_charge.c.request_id >= low, budget_charge.c.request_id < high)
    )
    connection.execute(delete(usage_entry).where(usage_entry.c.id >= low, usage_entry.c.id < high))
    done = {"before": f"{before:%Y-%m}", "entries": count, "tables": tables, "dropped": is_dropped}
    operator.note(connection, act="usage.prune", target=f"{before:%Y-%m}", details=done)
    return done


def keep_sums(connection: Connection, before: datetime) -> int:
    """Add what will be taken away to the sums of what was; returns how many entries that is."""
    old = usage_entry.c.id >= PREFIX, usage_entry.c.id < first_id(before)
    hour = (usage_entry.c.occurred_us - usage_entry.c.occurred_us % HOUR_US).label("hour_us")
    same = [usage_entry.c[name] for name in SAME]
    counted = [func.count().label("requests"), *(func.sum(usage_entry.c[name]).label(name) for name in COUNTED)]
    total = 0
    for row in connection.execute(select(hour, *same, *counted).where(*old).group_by(hour, *same)).mappings().all():
        added = {name: int(row[name]) for name in ("requests", *COUNTED)}
        connection.execute(
            upsert(connection, usage_pruned)
            .values({name: row[name] for name in ("hour_us", *SAME)} | added)
            .on_conflict_do_update(
                index_elements=list(usage_pruned.primary_key.columns),
                set_={name: usage_pruned.c[name] + value for name, value in added.items()},
            )
        )
        total += added["requests"]
    charge, window = budget_charge.c, budget_window.c
    chosen = (
        select(charge.budget_id, charge.window_us, func.sum(charge.cost_nano).label("cost_nano"))
        .where(charge.request_id >= PREFIX, charge.request_id < first_id(before))
        .group_by(charge.budget_id, charge.window_us)
    )
    for row in connection.execute(chosen).all():
        connection.execute(
            update(budget_window)
            .where(window.budget_id == row.budget_id, window.window_us == row.window_us)
            .values(pruned_nano=window.pruned_nano + int(row.cost_nano))
        )
    return total


def take_months(connection: Connection, before: datetime, *, is_dropped: bool) -> list[str]:
    """Detach, or drop, the tables of old months: charges before the entries that they name. Returns their names."""
    taken: list[str] = []
    last = f"{before:%Y-%m}"
    months = {one.month for one in list_partitions(connection) if one.month != REST and one.month < last}
    for month in sorted(months):
        for table in reversed(PARTITIONED):
            name = f"{table}_{month.replace('-', '_')}"
            if connection.scalar(text("SELECT to_regclass(:name) IS NULL"), {"name": name}):
                continue
            connection.execute(text(f"ALTER TABLE {table} DETACH PARTITION {name}"))
            for key in connection.scalars(FOREIGN_KEYS, {"name": name}).all():
                connection.execute(text(f"ALTER TABLE {name} DROP CONSTRAINT {key}"))  # an archive stands alone
            if is_dropped:
                connection.execute(text(f"DROP TABLE {name}"))
            taken.append(name)
    return taken

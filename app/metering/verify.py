"""Do the books balance: entries, sums, budgets and holds, each against the others. Whatever differs is named."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Table, func, select

from app.metering.budgets import BudgetKind
from app.metering.ledger import Admission, Usage, charge_nano
from app.metering.rollups import COUNTED, DAY_US, HOUR_US, SAME
from app.metering.tables import (
    budget,
    budget_charge,
    budget_lease,
    budget_window,
    hold,
    top_up,
    usage_day,
    usage_entry,
    usage_hour,
    usage_pruned,
)  # fmt: skip

Sums = dict[tuple[Any, ...], tuple[int, ...]]


def balance(connection: Connection) -> list[str]:
    """All differences as of one moment, also while the servers sell: the first statement of its transaction."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    return list(drifts(connection))


def drifts(connection: Connection) -> Iterator[str]:
    """Every difference, a sentence each; none when the books balance. Reads only."""
    for table, moment, length_us in ((usage_hour, "hour_us", HOUR_US), (usage_day, "day_us", DAY_US)):
        yield from sum_drifts(connection, table, moment, length_us)
    yield from cost_drifts(connection)
    yield from budget_drifts(connection)
    settled = select(hold.c.request_id).join(usage_entry, usage_entry.c.id == hold.c.request_id)
    for request_id in connection.scalars(settled):
        yield f"{request_id} has an entry and still a hold"


def sum_drifts(connection: Connection, table: Table, moment: str, length_us: int) -> Iterator[str]:
    """A table of sums against the entries, and those that were pruned."""
    start = usage_entry.c.occurred_us - usage_entry.c.occurred_us % length_us
    same = [usage_entry.c[name] for name in SAME]
    counted = [func.count(), *(func.sum(usage_entry.c[name]) for name in COUNTED)]
    of_entries = sums(connection, select(start, *same, *counted).group_by(start, *same))
    start = usage_pruned.c.hour_us - usage_pruned.c.hour_us % length_us
    same = [usage_pruned.c[name] for name in SAME]
    counted = [func.sum(usage_pruned.c[name]) for name in ("requests", *COUNTED)]
    for place, pruned in sums(connection, select(start, *same, *counted).group_by(start, *same)).items():
        here = of_entries.get(place, (0,) * len(pruned))
        of_entries[place] = tuple(one + other for one, other in zip(here, pruned, strict=True))
    names = (moment, *SAME, "requests", *COUNTED)
    of_table = sums(connection, select(*(table.c[name] for name in names)))
    for place in sorted(of_entries.keys() | of_table.keys()):
        entries, kept = of_entries.get(place), of_table.get(place)
        if entries != kept:
            yield f"{table.name} {place}: entries sum to {entries}, the table has {kept}"


def sums(connection: Connection, chosen: Any) -> Sums:
    """Rows of a moment, what they have in common, and what was counted."""
    width = 1 + len(SAME)
    return {tuple(row[:width]): tuple(int(one) for one in row[width:]) for row in connection.execute(chosen)}


def cost_drifts(connection: Connection) -> Iterator[str]:
    """Each entry's cost against its own prices and counts; each charge against its entry."""
    for row in connection.execute(select(usage_entry), execution_options={"yield_per": 1000}).mappings():
        admission = Admission(
            request_id=row["id"], tenant_id="", key_id="", model="", task="", route="", input_tokens=0,
            output_tokens_max=0, prices=row["prices"],
        )  # fmt: skip
        usage = Usage(
            input_tokens=row["input_tokens"], output_tokens=row["output_tokens"], cached_tokens=row["cached_tokens"],
            characters=row["characters"],
        )  # fmt: skip
        if charge_nano(admission, usage) != row["cost_nano"]:
            yield f"{row['id']} costs {row['cost_nano']}, its prices and counts make {charge_nano(admission, usage)}"
    unlike = (
        select(budget_charge.c.request_id)
        .join(usage_entry, usage_entry.c.id == budget_charge.c.request_id)
        .where(usage_entry.c.cost_nano != budget_charge.c.cost_nano)
    )
    for request_id in connection.scalars(unlike):
        yield f"{request_id} was charged to a budget with another amount than its entry has"


def budget_drifts(connection: Connection) -> Iterator[str]:
    """Each window against its charges, holds and top-ups, and against its own limit."""
    window = (budget_charge.c.budget_id, budget_charge.c.window_us)
    chosen = select(*window, func.sum(budget_charge.c.cost_nano)).group_by(*window)
    spent = {(row[0], row[1]): int(row[2]) for row in connection.execute(chosen)}
    held: Counter[tuple[str, int]] = Counter()
    for row in connection.execute(select(hold.c.amount_nano, hold.c.windows)):
        for budget_id, window_us in row.windows:
            held[budget_id, window_us] += row.amount_nano
    for row in connection.execute(select(budget_lease)):
        held[row.budget_id, row.window_us] += row.amount_nano
    chosen = select(top_up.c.budget_id, func.sum(top_up.c.amount_nano)).group_by(top_up.c.budget_id)
    paid = {row[0]: int(row[1]) for row in connection.execute(chosen)}
    known = select(budget_window, budget.c.kind).join(budget, budget.c.id == budget_window.c.budget_id)
    for row in connection.execute(known).mappings():
        place = (row["budget_id"], row["window_us"])
        for what, ought in (("spent", spent.pop(place, 0) + row["pruned_nano"]), ("held", held.pop(place, 0))):
            if row[f"{what}_nano"] != ought:
                yield f"budget {place}: {what} is {row[f'{what}_nano']}, its entries, holds and leases make {ought}"
        if row["kind"] == BudgetKind.PREPAID and row["limit_nano"] != paid.get(row["budget_id"], 0):
            yield f"budget {place}: its top-ups make {paid.get(row['budget_id'], 0)}, it has {row['limit_nano']}"
    for place in [*spent, *held]:
        yield f"budget {place} has charges or holds, and no window"

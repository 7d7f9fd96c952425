"""Leases of budgets in the database: what a replica has set aside to spend from while the database is away.

A lease is part of its window's `held_nano`, so that spending and holds never pass the limit, whoever spends from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Connection, ScalarSelect, cast, delete, func, select, update

from app.metering.database import upsert
from app.metering.tables import budget_lease, budget_window

Window = tuple[str, int]
"""A budget's id, and where its window begins."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a replica has of a window now, and what nobody has."""

    amount_nano: int
    room_nano: int


def change_leases(
    connection: Connection, *, replica_id: str, targets: Mapping[Window, int], share: float
) -> dict[Window, Lease]:
    """Bring leases to their targets: down exactly, up as far as a `share` of what the window has left allows."""
    found: dict[Window, Lease] = {}
    for place, target_nano in sorted(targets.items()):
        row = connection.execute(select(budget_window).where(*in_window(place)).with_for_update()).first()
        if row is None:
            continue
        have_nano = connection.scalar(select(budget_lease.c.amount_nano).where(*_mine(replica_id, place))) or 0
        room_nano = row.limit_nano - row.spent_nano - row.held_nano
        amount_nano = target_nano
        if target_nano > have_nano:
            most_nano = int((room_nano + have_nano) * share)
            amount_nano = max(have_nano, min(target_nano, most_nano, have_nano + max(0, room_nano)))
        _set(connection, replica_id, place, have_nano, amount_nano)
        found[place] = Lease(amount_nano, room_nano - (amount_nano - have_nano))
    return found


def spend_lease(connection: Connection, *, replica_id: str, place: Window, cost_nano: int) -> int:
    """Take up to `cost_nano` out of a replica's lease; returns how much it had. The caller moves the window."""
    have_nano = connection.scalar(
        select(budget_lease.c.amount_nano).where(*_mine(replica_id, place)).with_for_update()
    )  # fmt: skip
    taken_nano = min(cost_nano, have_nano or 0)
    if taken_nano:
        connection.execute(
            update(budget_lease)
            .where(*_mine(replica_id, place))
            .values(amount_nano=budget_lease.c.amount_nano - taken_nano)
        )
    return taken_nano


def return_leases(connection: Connection, *, replica_id: str) -> int:
    """Give all of a replica's leases back to their budgets; returns how much that was, in all windows together."""
    chosen = select(budget_lease).where(budget_lease.c.replica_id == replica_id)
    rows = connection.execute(chosen.order_by(budget_lease.c.budget_id, budget_lease.c.window_us)).all()
    for row in rows:
        place = (row.budget_id, row.window_us)
        connection.execute(select(budget_window.c.budget_id).where(*in_window(place)).with_for_update())
        have_nano = connection.scalar(select(budget_lease.c.amount_nano).where(*_mine(replica_id, place))) or 0
        _set(connection, replica_id, place, have_nano, 0)
    return sum(row.amount_nano for row in rows)


def leased_nano() -> ScalarSelect[int]:
    """What replicas hold of the window at hand, for use in a statement on `budget_window`: not spent, and not free."""
    return (
        select(cast(func.coalesce(func.sum(budget_lease.c.amount_nano), 0), BigInteger))
        .where(
            budget_lease.c.budget_id == budget_window.c.budget_id, budget_lease.c.window_us == budget_window.c.window_us
        )
        .correlate(budget_window)
        .scalar_subquery()
    )


def in_window(place: Window) -> tuple[Any, Any]:
    """The condition that names a window."""
    return budget_window.c.budget_id == place[0], budget_window.c.window_us == place[1]


def _mine(replica_id: str, place: Window) -> tuple[Any, Any, Any]:
    lease = budget_lease.c
    return lease.replica_id == replica_id, lease.budget_id == place[0], lease.window_us == place[1]


def _set(connection: Connection, replica_id: str, place: Window, have_nano: int, amount_nano: int) -> None:
    if amount_nano != have_nano:
        connection.execute(
            update(budget_window)
            .where(*in_window(place))
            .values(held_nano=budget_window.c.held_nano + amount_nano - have_nano)
        )
    if amount_nano == 0:
        connection.execute(delete(budget_lease).where(*_mine(replica_id, place)))
    elif amount_nano != have_nano:
        names = {"replica_id": replica_id, "budget_id": place[0], "window_us": place[1]}
        connection.execute(
            upsert(connection, budget_lease)
            .values(**names, amount_nano=amount_nano)
            .on_conflict_do_update(index_elements=list(names), set_={"amount_nano": amount_nano})
        )

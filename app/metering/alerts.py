"""Budget alerts: what was spent reaches a share of a limit, or a request is refused for want of money.

A window knows at which amount the next alert is due (`alert_nano`; null: none), so that a settlement only compares two
numbers. What is due is put into the outbox in the settlement's own transaction: neither lost, nor told twice.
"""

from typing import Any

from sqlalchemy import Connection, select, update

from app.metering.database import moment_of, upsert
from app.metering.money import decimal_text
from app.metering.outbox import enqueue
from app.metering.tables import api_key, budget, budget_alert, budget_window, tenant

DEFAULT_PERCENTS = (50, 80, 100)
REFUSED = "refused"
REACHED_TYPE = "budget.threshold_reached"
REFUSED_TYPE = "budget.request_refused"


def tell_reached(connection: Connection, budget_id: str, window_us: int, *, at_us: int) -> None:
    """Put into the outbox which shares of a window's limit were reached, each once, and note which comes next.

    A balance is measured from its last top-up: what was there then is 100 %.
    """
    row = state_of(connection, budget_id, window_us)
    span, used = row.limit_nano - row.alert_from_nano, row.spent_nano - row.alert_from_nano
    percents = sorted(DEFAULT_PERCENTS if row.alert_percents is None else row.alert_percents)
    next_nano = None
    if span > 0:
        for percent in percents:
            if used * 100 < percent * span:
                next_nano = row.alert_from_nano + -(-percent * span // 100)
                break
            tell_once(connection, row, str(percent), at_us=at_us)
    connection.execute(
        update(budget_window)
        .where(budget_window.c.budget_id == budget_id, budget_window.c.window_us == window_us)
        .values(alert_nano=next_nano)
    )


def tell_refused(connection: Connection, budget_id: str, window_us: int, *, at_us: int) -> None:
    """A request did not fit any more: told once for a window and its limit."""
    tell_once(connection, state_of(connection, budget_id, window_us), REFUSED, at_us=at_us)


def tell_once(connection: Connection, row: Any, reached: str, *, at_us: int) -> None:
    """Into the outbox, unless the same was told of the same limit."""
    statement = (
        upsert(connection, budget_alert)
        .values(
            budget_id=row.id, window_us=row.window_us, limit_nano=row.limit_nano, reached=reached, at_us=at_us
        )
        .on_conflict_do_nothing()
        .returning(budget_alert.c.budget_id)
    )  # fmt: skip
    if connection.execute(statement).first() is None:
        return
    amounts = {
        "limit": row.limit_nano, "spent": row.spent_nano, "held": row.held_nano,
        "available": row.limit_nano - row.spent_nano - row.held_nano,
    }  # fmt: skip
    data: dict[str, Any] = {
        "budget_id": row.id, "kind": row.kind, "tenant_id": row.tenant_id, "tenant": row.tenant, "key_id": row.key_id,
        "key_name": row.key_name,
        "from": None if row.window_us == 0 else moment_of(row.window_us).date().isoformat(), "currency": "USD",
        **{name: decimal_text(amount) for name, amount in amounts.items()},
        **{f"{name}_nano": amount for name, amount in amounts.items()},
    }  # fmt: skip
    if reached == REFUSED:
        enqueue(connection, type_name=REFUSED_TYPE, tenant_id=row.tenant_id, data=data, at_us=at_us)
    else:
        data["percent"] = int(reached)
        enqueue(connection, type_name=REACHED_TYPE, tenant_id=row.tenant_id, data=data, at_us=at_us)


def state_of(connection: Connection, budget_id: str, window_us: int) -> Any:
    """A window with whose it is."""
    window = budget_window.c
    return connection.execute(
        select(
            budget.c.id, budget.c.kind, budget.c.tenant_id, budget.c.key_id, tenant.c.name.label("tenant"),
            tenant.c.alert_percents, api_key.c.name.label("key_name"), window.window_us, window.limit_nano,
            window.spent_nano, window.held_nano, window.alert_from_nano,
        )
        .join(tenant, tenant.c.id == budget.c.tenant_id)
        .join(budget_window, window.budget_id == budget.c.id)
        .outerjoin(api_key, api_key.c.id == budget.c.key_id)
        .where(budget.c.id == budget_id, window.window_us == window_us)
    ).one()  # fmt: skip


def look_again(connection: Connection, tenant_id: str) -> None:
    """A tenant's percentages changed: each of its windows finds its next alert at the next settlement."""
    mine = select(budget.c.id).where(budget.c.tenant_id == tenant_id)
    connection.execute(update(budget_window).where(budget_window.c.budget_id.in_(mine)).values(alert_nano=0))

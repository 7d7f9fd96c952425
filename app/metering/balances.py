"""Budgets and top-ups read back, as commands and routes show them."""

from typing import Any

from sqlalchemy import Connection, select

from app.clock import Clock
from app.errors import NotFound
from app.metering.budgets import BudgetState, list_budgets
from app.metering.database import moment_of
from app.metering.money import decimal_text
from app.metering.tables import api_key, budget, tenant, top_up


def get_budget(connection: Connection, *, clock: Clock, budget_id: str) -> BudgetState:
    """One budget as it stands. Raises NotFound."""
    found = list_budgets(connection, clock=clock, budget_id=budget_id)
    if not found:
        raise NotFound(f"there is no budget {budget_id!r}; `tollgate budgets show` lists them")
    return found[0]


def list_top_ups(
    connection: Connection, *, tenant_id: str | None = None, top_up_id: str | None = None, after: str = "",
    limit: int | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Top-ups, oldest first, after the id `after`."""
    chosen = (
        select(top_up, budget.c.tenant_id, tenant.c.name.label("tenant"), api_key.c.name.label("key_name"))
        .join(budget, budget.c.id == top_up.c.budget_id)
        .join(tenant, tenant.c.id == budget.c.tenant_id)
        .outerjoin(api_key, api_key.c.id == budget.c.key_id)
        .where(top_up.c.id > after)
        .order_by(top_up.c.id)
        .limit(limit)
    )
    if tenant_id is not None:
        chosen = chosen.where(budget.c.tenant_id == tenant_id)
    if top_up_id is not None:
        chosen = chosen.where(top_up.c.id == top_up_id)
    return [
        {
            "id": row.id, "budget_id": row.budget_id, "tenant_id": row.tenant_id, "tenant": row.tenant,
            "key_name": row.key_name, "amount": decimal_text(row.amount_nano), "amount_nano": row.amount_nano,
            "note": row.note, "at": moment_of(row.at_us).isoformat(timespec="seconds"),
        }
        for row in connection.execute(chosen)
    ]  # fmt: skip


def budget_json(state: BudgetState) -> dict[str, Any]:
    """A budget as commands and routes show it: exact decimal numbers, and the same in nano-units."""
    amounts = {"limit": state.limit_nano, "spent": state.spent_nano, "held": state.held_nano}
    amounts["available"] = state.available_nano
    return {
        "id": state.id, "tenant_id": state.tenant_id, "tenant": state.tenant, "key_id": state.key_id,
        "key_name": state.key, "kind": state.kind.value,
        "from": None if state.window_us == 0 else moment_of(state.window_us).date().isoformat(),
        **{name: decimal_text(amount) for name, amount in amounts.items()},
        **{f"{name}_nano": amount for name, amount in amounts.items()}, "active": state.is_active,
    }  # fmt: skip

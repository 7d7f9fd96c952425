"""What an operator does about money: prices, budgets, top-ups; each in one transaction with its row in the audit log.

The commands and the admin routes both call these, as they do `acts.py`.
"""

from typing import Any

from sqlalchemy import Connection

from app.errors import Conflict
from app.metering import budgets
from app.metering.acts import Operator
from app.metering.balances import get_budget, list_top_ups
from app.metering.budgets import BudgetState
from app.metering.database import microseconds, moment_of
from app.metering.money import Meter
from app.metering.prices import get_price, set_price
from app.metering.tenants import Status, TenantRecord, find_tenant


def put_price(
    connection: Connection, operator: Operator, *, model: str, task: str, meter: Meter, pico_per_unit: int,
    tenant: str | None = None, effective_us: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Set a price from a moment on (default: now), for all or for one tenant. Returns it as JSON shows it."""
    operator.require("price.set")
    payer = None if tenant is None else paying(connection, tenant).id
    starts_us = microseconds(operator.clock.now()) if effective_us is None else effective_us
    price_id = set_price(
        connection, clock=operator.clock, model=model, task=task, meter=meter, pico_per_unit=pico_per_unit,
        tenant_name=payer, effective_us=starts_us,
    )  # fmt: skip
    details = {
        "model": model, "task": task, "meter": meter.value, "pico_per_unit": pico_per_unit,
        "effective_at": moment_of(starts_us).isoformat(),
    }  # fmt: skip
    operator.note(connection, act="price.set", target=price_id, tenant_id=payer, details=details)
    return get_price(connection, clock=operator.clock, price_id=price_id)


def put_free(
    connection: Connection, operator: Operator, *, model: str, task: str, tenant: str | None = None,
    effective_us: int | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Let a model cost nothing, on purpose: every meter is set to 0 from a moment on."""
    return [
        put_price(
            connection, operator, model=model, task=task, meter=meter, pico_per_unit=0, tenant=tenant,
            effective_us=effective_us,
        )
        for meter in Meter
    ]  # fmt: skip


def put_monthly(
    connection: Connection, operator: Operator, *, tenant: str, limit_nano: int, key: str | None = None
) -> BudgetState:
    """Limit what a tenant, or one of its keys, may spend a calendar month (UTC), from this month on."""
    operator.require("budget.set")
    payer = paying(connection, tenant)
    budget_id = budgets.set_monthly(
        connection, clock=operator.clock, tenant_name=payer.id, limit_nano=limit_nano, key=key
    )
    state = get_budget(connection, clock=operator.clock, budget_id=budget_id)
    details = {"limit_nano": limit_nano, "key_id": state.key_id}
    operator.note(connection, act="budget.set", target=budget_id, tenant_id=payer.id, details=details)
    return state


def put_money(
    connection: Connection, operator: Operator, *, tenant: str, amount_nano: int, note: str = "",
    key: str | None = None, reference: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Top a prepaid balance up; the same reference again moves nothing. Returns the top-up as JSON shows it.

    `is_new` tells whether money moved just now. Raises IdempotencyMismatch and Conflict, see budgets.add_money.
    """
    operator.require("budget.topup")
    payer = paying(connection, tenant)
    made = budgets.add_money(
        connection, clock=operator.clock, tenant_name=payer.id, amount_nano=amount_nano, note=note, key=key,
        reference=reference,
    )  # fmt: skip
    state = get_budget(connection, clock=operator.clock, budget_id=made.budget_id)
    if made.is_new:
        details = {"amount_nano": amount_nano, "top_up": made.id, "key_id": state.key_id}
        operator.note(connection, act="budget.topup", target=made.budget_id, tenant_id=payer.id, details=details)
    [shown] = list_top_ups(connection, top_up_id=made.id)
    return shown | {"is_new": made.is_new, "available_nano": state.available_nano}


def drop_budget(connection: Connection, operator: Operator, *, budget_id: str) -> BudgetState:
    """Let a budget bind no new request; what was spent stays in the books. Raises NotFound."""
    operator.require("budget.remove")
    before = get_budget(connection, clock=operator.clock, budget_id=budget_id)
    budgets.remove(connection, budget_id=budget_id)
    details = {"kind": before.kind.value, "limit_nano": before.limit_nano}
    operator.note(connection, act="budget.remove", target=budget_id, tenant_id=before.tenant_id, details=details)
    return get_budget(connection, clock=operator.clock, budget_id=budget_id)


def paying(connection: Connection, name: str) -> TenantRecord:
    """A tenant that can still pay. Raises NotFound, or Conflict for an erased one."""
    found = find_tenant(connection, name)
    if found.status is Status.ERASED:
        raise Conflict(f"{found.name} was erased; make another tenant")
    return found

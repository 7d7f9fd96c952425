"""Prices: what a unit of each meter costs, for a model and task, from a moment on; a tenant's own come first."""

from typing import Any

from sqlalchemy import Connection, RowMapping, bindparam, func, or_, select

from app.clock import Clock
from app.errors import PriceMissing
from app.metering.database import microseconds, moment_of, new_id
from app.metering.money import Meter, per_million_text
from app.metering.statements import Statement
from app.metering.tables import price, tenant
from app.metering.tenants import find_tenant

PRICES = Statement(
    select(price.c.meter, price.c.pico_per_unit)
    .where(
        price.c.model == bindparam("of_model"), price.c.task == bindparam("of_task"),
        price.c.effective_us <= bindparam("at_us"),
        or_(price.c.tenant_id.is_(None), price.c.tenant_id == bindparam("of_tenant")),
    )
    .order_by(price.c.tenant_id.is_not(None), price.c.effective_us, price.c.id)
)  # fmt: skip
"""Of each meter the last row holds."""


def prices_of(connection: Connection, *, model: str, task: str, tenant_id: str | None, at_us: int) -> dict[str, int]:
    """Pico-units per unit by meter, as they hold at `at_us`; empty when there is no price at all."""
    given = {"of_model": model, "of_task": task, "of_tenant": tenant_id, "at_us": at_us}
    return {meter: pico for meter, pico in PRICES.rows(connection, given)}


def prices_or_refusal(
    connection: Connection, *, model: str, task: str, tenant_id: str, at_us: int, is_free: bool
) -> dict[str, int]:
    """The same. Raises PriceMissing for a model that has no price and is not marked free."""
    found = prices_of(connection, model=model, task=task, tenant_id=tenant_id, at_us=at_us)
    if not found and not is_free:
        raise PriceMissing(
            f"The model {model} has no price for {task} yet; ask the operator to set one (`tollgate prices set`) or to "
            "mark the model as free.",
            field="model",
        )
    return found


def tenant_id_of(connection: Connection, name: str) -> str:
    """The id of the tenant of this id or name. Raises NotFound."""
    return find_tenant(connection, name).id


def set_price(
    connection: Connection, *, clock: Clock, model: str, task: str, meter: Meter, pico_per_unit: int,
    tenant_name: str | None = None, effective_us: int | None = None,
) -> str:  # fmt: skip
    """Add a price; earlier entries keep theirs. Returns its id. Raises NotFound for an unknown tenant."""
    tenant_id = None if tenant_name is None else tenant_id_of(connection, tenant_name)
    now_us, price_id = microseconds(clock.now()), new_id("price", clock)
    connection.execute(
        price.insert().values(
            id=price_id, tenant_id=tenant_id, model=model, task=task, meter=meter.value, pico_per_unit=pico_per_unit,
            effective_us=now_us if effective_us is None else effective_us, created_us=now_us,
        )
    )  # fmt: skip
    return price_id


def list_prices(
    connection: Connection, *, clock: Clock, model: str | None = None, task: str | None = None,
    tenant_id: str | None = None, after: str = "", limit: int | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Every price ever set, in the order in which they were, after the id `after`; a tenant's with the common ones."""
    chosen = (
        select(price, tenant.c.name.label("tenant"))
        .outerjoin(tenant, tenant.c.id == price.c.tenant_id)
        .where(price.c.id > after)
        .order_by(price.c.id)
        .limit(limit)
    )
    if model is not None:
        chosen = chosen.where(price.c.model == model)
    if task is not None:
        chosen = chosen.where(price.c.task == task)
    if tenant_id is not None:
        chosen = chosen.where(or_(price.c.tenant_id.is_(None), price.c.tenant_id == tenant_id))
    now_us = microseconds(clock.now())
    present = in_force(connection, now_us)
    return [price_json(row, now_us, present) for row in connection.execute(chosen).mappings()]


def get_price(connection: Connection, *, clock: Clock, price_id: str) -> dict[str, Any]:
    """One price, as lists show it."""
    chosen = (
        select(price, tenant.c.name.label("tenant"))
        .outerjoin(tenant, tenant.c.id == price.c.tenant_id)
        .where(price.c.id == price_id)
    )
    now_us = microseconds(clock.now())
    return price_json(connection.execute(chosen).mappings().one(), now_us, in_force(connection, now_us))


def in_force(connection: Connection, at_us: int) -> frozenset[str]:
    """The ids of the prices that hold at a moment: of each tenant (or all), model, task and meter the newest."""
    newest_first = func.row_number().over(
        partition_by=(price.c.tenant_id, price.c.model, price.c.task, price.c.meter),
        order_by=(price.c.effective_us.desc(), price.c.id.desc()),
    )
    ranked = select(price.c.id, newest_first.label("rank")).where(price.c.effective_us <= at_us).subquery()
    return frozenset(connection.scalars(select(ranked.c.id).where(ranked.c.rank == 1)))


def price_json(row: RowMapping, now_us: int, present: frozenset[str]) -> dict[str, Any]:
    """A price as commands and routes show it; `state` is in_force, to_come or past."""
    state = "in_force" if row["id"] in present else "to_come" if row["effective_us"] > now_us else "past"
    return {
        "id": row["id"], "tenant": row["tenant"], "model": row["model"], "task": row["task"], "meter": row["meter"],
        "pico_per_unit": row["pico_per_unit"], "per_million": per_million_text(row["pico_per_unit"]),
        "effective_at": moment_of(row["effective_us"]).isoformat(timespec="seconds"), "state": state,
    }  # fmt: skip

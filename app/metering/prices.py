"""Prices: what a unit of each meter costs, for a model and task, from a moment on; a tenant's own come first."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, or_, select

from app.clock import Clock
from app.errors import NotFound, PriceMissing
from app.metering.database import microseconds, moment_of, new_id
from app.metering.money import Meter
from app.metering.tables import price, tenant


def prices_of(connection: Connection, *, model: str, task: str, tenant_id: str | None, at_us: int) -> dict[str, int]:
    """Pico-units per unit by meter, as they hold at `at_us`; empty when there is no price at all."""
    rows = connection.execute(
        select(price.c.meter, price.c.pico_per_unit)
        .where(price.c.model == model, price.c.task == task, price.c.effective_us <= at_us)
        .where(or_(price.c.tenant_id.is_(None), price.c.tenant_id == tenant_id))
        .order_by(price.c.tenant_id.is_not(None), price.c.effective_us, price.c.id)
    )
    return {meter: pico for meter, pico in rows}


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
    """The id of the tenant called that. Raises NotFound."""
    found = connection.scalar(select(tenant.c.id).where(tenant.c.name == name))
    if found is None:
        raise NotFound(f"there is no tenant {name!r}; `tollgate keys create` makes one")
    return found


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


def list_prices(connection: Connection) -> list[Mapping[str, Any]]:
    """Every price ever set, oldest first."""
    rows = connection.execute(
        select(price, tenant.c.name.label("tenant")).outerjoin(tenant, tenant.c.id == price.c.tenant_id)
        .order_by(price.c.effective_us, price.c.id)
    ).mappings()  # fmt: skip
    return [
        {
            "id": row["id"], "tenant": row["tenant"], "model": row["model"], "task": row["task"],
            "meter": row["meter"], "pico_per_unit": row["pico_per_unit"],
            "effective_at": moment_of(row["effective_us"]).isoformat(timespec="seconds"),
        }
        for row in rows
    ]  # fmt: skip

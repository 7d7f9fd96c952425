"""Tenants: who pays. Created, listed, changed, suspended, and erased so that only sums stay.

`acts.py` is the operator's way to these, which leaves a trace in the audit log.
"""

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, RowMapping, func, or_, select, update

from app.clock import Clock
from app.errors import Conflict, InvalidRequest, NotFound
from app.metering.changes import note_change
from app.metering.database import microseconds, moment_of, new_id
from app.metering.limits import NO_LIMITS, LimitRule, rule_of
from app.metering.tables import api_key, audit_log, budget, tenant, top_up, webhook, webhook_delivery

NAME_LENGTH_MAX = 200
WEIGHT_MAX = 1000
STANDARD = "standard"


class Status(StrEnum):
    """What a tenant's keys are worth."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    ERASED = "erased"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRecord:
    """What is known of a tenant."""

    id: str
    name: str
    weight: int
    status: Status
    tier: str
    created_us: int
    limits: LimitRule


def create_tenant(
    connection: Connection, *, clock: Clock, name: str, weight: int = 1, tier: str = STANDARD,
    limits: LimitRule = NO_LIMITS,
) -> TenantRecord:  # fmt: skip
    """Make a tenant. Raises Conflict when the name is taken, InvalidRequest when it is none."""
    _refuse_taken(connection, name)
    tenant_id = new_id("tenant", clock)
    connection.execute(
        tenant.insert().values(
            id=tenant_id, name=checked_name(name), weight=checked_weight(weight), status=Status.ACTIVE.value,
            tier=checked_name(tier, "tier", 40), created_us=microseconds(clock.now()), **dataclasses.asdict(limits),
        )
    )  # fmt: skip
    return find_tenant(connection, tenant_id)


def ensure_tenant(connection: Connection, *, clock: Clock, name: str) -> str:
    """The id of the tenant of this name, which is made when it is new."""
    found = find_by_name(connection, name)
    return create_tenant(connection, clock=clock, name=name).id if found is None else found


def find_by_name(connection: Connection, name: str) -> str | None:
    """The id of the tenant of this name, if there is one."""
    return connection.scalar(select(tenant.c.id).where(tenant.c.name == name.strip()))


def find_tenant(connection: Connection, name: str) -> TenantRecord:
    """By id or name. Raises NotFound."""
    row = (
        connection.execute(
            select(tenant).where(or_(tenant.c.id == name, tenant.c.name == name)).order_by(tenant.c.id != name)
        )
        .mappings()
        .first()
    )
    if row is None:
        raise NotFound(f"there is no tenant {name!r}; `tollgate tenants list` shows them")
    return record_of(row)


def list_tenants(
    connection: Connection, *, after: str = "", limit: int | None = None, statuses: Collection[Status] = tuple(Status)
) -> list[TenantRecord]:
    """Tenants of these statuses, oldest first, after the id `after`."""
    chosen = select(tenant).where(tenant.c.id > after, tenant.c.status.in_([one.value for one in statuses]))
    rows = connection.execute(chosen.order_by(tenant.c.id).limit(limit))
    return [record_of(row) for row in rows.mappings()]


def update_tenant(connection: Connection, *, clock: Clock, name: str, changes: Mapping[str, Any]) -> TenantRecord:
    """Change name, weight, tier, status or limits (columns). Raises NotFound, or Conflict for an erased tenant."""
    record = find_tenant(connection, name)
    if record.status is Status.ERASED:
        raise Conflict(f"{record.name} was erased; make another tenant")
    values = dict(changes)
    if "name" in values and values["name"] != record.name:
        _refuse_taken(connection, values["name"])
        values["name"] = checked_name(values["name"])
    if "weight" in values:
        values["weight"] = checked_weight(values["weight"])
    if "tier" in values:
        values["tier"] = checked_name(values["tier"], "tier", 40)
    if values:
        connection.execute(update(tenant).where(tenant.c.id == record.id).values(values))
        note_change(connection, clock=clock, changed_id=record.id)
    return find_tenant(connection, record.id)


def set_status(connection: Connection, *, clock: Clock, name: str, status: Status) -> TenantRecord:
    """Suspend or resume. Raises NotFound, or Conflict for an erased tenant."""
    return update_tenant(connection, clock=clock, name=name, changes={"status": status.value})


def erase_tenant(connection: Connection, *, clock: Clock, name: str) -> tuple[TenantRecord, int]:
    """Forget who it was: names, display forms, networks, and what the audit log said of them. Keys are revoked.

    Ids, sums and entries stay, so that the books still balance. Returns the record and how many keys there were.
    """
    record = find_tenant(connection, name)
    if record.status is Status.ERASED:
        raise Conflict(f"{record.name} was erased before")
    now_us = microseconds(clock.now())
    of_tenant = api_key.c.tenant_id == record.id
    keys = connection.scalar(select(func.count()).select_from(api_key).where(of_tenant)) or 0
    connection.execute(
        update(tenant).where(tenant.c.id == record.id).values(name=f"erased-{record.id}", status=Status.ERASED.value)
    )
    connection.execute(
        update(api_key).where(of_tenant).values(
            name="erased", display="erased", networks=None, revoked_us=func.coalesce(api_key.c.revoked_us, now_us)
        )
    )  # fmt: skip
    budgets = select(budget.c.id).where(budget.c.tenant_id == record.id)
    connection.execute(update(top_up).where(top_up.c.budget_id.in_(budgets)).values(note=""))
    connection.execute(webhook_delivery.delete().where(webhook_delivery.c.tenant_id == record.id))
    connection.execute(update(webhook).where(webhook.c.tenant_id == record.id).values(url="", is_active=False))
    connection.execute(update(audit_log).where(audit_log.c.tenant_id == record.id).values(details=None, salt=None))
    note_change(connection, clock=clock, changed_id=record.id)
    return find_tenant(connection, record.id), keys


def checked_name(name: str, field: str = "name", length_max: int = NAME_LENGTH_MAX) -> str:
    """A name without space around it. Raises InvalidRequest for one that is empty, long, or cannot be printed."""
    name = name.strip()
    if not name or len(name) > length_max or not name.isprintable():
        raise InvalidRequest(f"{field} must have 1 to {length_max} printable characters", field=field)
    return name


def checked_percents(percents: Collection[int]) -> list[int]:
    """Shares of a limit, rising, each once. Raises InvalidRequest."""
    if any(not 1 <= percent <= 100 for percent in percents) or len(percents) > 10:
        raise InvalidRequest("percents are at most ten whole numbers from 1 to 100", field="percents")
    return sorted(set(percents))


def checked_weight(weight: int) -> int:
    """Raises InvalidRequest for a weight that gives nothing, or all."""
    if not 1 <= weight <= WEIGHT_MAX:
        raise InvalidRequest(f"weight must be 1 to {WEIGHT_MAX}", field="weight")
    return weight


def tenant_json(record: TenantRecord) -> dict[str, Any]:
    """A tenant as commands and routes show it."""
    return {
        "id": record.id,
        "name": record.name,
        "weight": record.weight,
        "status": record.status.value,
        "tier": record.tier,
        "created_at": moment_of(record.created_us).isoformat(timespec="seconds"),
        "limits": dataclasses.asdict(record.limits),
    }


def record_of(row: RowMapping) -> TenantRecord:
    """A row of tenant."""
    return TenantRecord(
        id=row["id"], name=row["name"], weight=row["weight"], status=Status(row["status"]), tier=row["tier"],
        created_us=row["created_us"], limits=rule_of(row),
    )  # fmt: skip


def _refuse_taken(connection: Connection, name: str) -> None:
    taken = or_(tenant.c.name == name.strip(), tenant.c.id == name.strip())
    if connection.scalar(select(tenant.c.id).where(taken)) is not None:
        raise Conflict(f"there is a tenant {name.strip()!r} already", field="name")

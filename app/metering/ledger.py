"""The ledger: a hold is taken before work and settled after it, into exactly one entry that never changes."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, delete, or_, select
from sqlalchemy.dialects.sqlite import insert

from app.clock import Clock
from app.metering.database import microseconds, moment_of
from app.metering.money import Meter, cost_nano
from app.metering.prices import prices_of
from app.metering.tables import api_key, hold, tenant, usage_entry, usage_hour

HOUR_US = 3_600_000_000


class Outcome(StrEnum):
    """How an admitted request ended."""

    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A request that may run: who pays, for what, at which prices (pico-units by meter)."""

    request_id: str
    tenant_id: str
    key_id: str
    model: str
    task: str
    route: str
    input_tokens: int
    output_tokens_max: int
    characters: int = 0
    prices: Mapping[str, int] = field(default_factory=dict[str, int])
    """Set when the hold is opened."""
    replica_id: str = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a request is charged for."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    characters: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What was charged, as the ledger holds it."""

    request_id: str
    outcome: Outcome
    input_tokens: int
    output_tokens: int
    cost_nano: int
    currency: str


def open_hold(connection: Connection, admission: Admission, *, clock: Clock) -> None:
    """Set the worst case aside and make the request known, so that a crash after this still leaves its entry."""
    worst: dict[str, int] = {
        Meter.INPUT_TOKEN: admission.input_tokens,
        Meter.OUTPUT_TOKEN: admission.output_tokens_max,
        Meter.CHARACTER: admission.characters,
        Meter.REQUEST: 1,
    }
    connection.execute(
        hold.insert().values(
            request_id=admission.request_id,
            tenant_id=admission.tenant_id,
            key_id=admission.key_id,
            model=admission.model,
            task=admission.task,
            route=admission.route,
            prices=dict(admission.prices),
            amount_nano=cost_nano(admission.prices, worst),
            input_tokens=0,
            output_tokens=0,
            characters=0,
            replica_id=admission.replica_id,
            admitted_us=microseconds(clock.now()),
        )
    )


def open_priced_hold(connection: Connection, admission: Admission, *, clock: Clock) -> Admission:
    """Open the hold at the prices of this moment, which the entry will keep."""
    prices = prices_of(
        connection, model=admission.model, task=admission.task, tenant_id=admission.tenant_id,
        at_us=microseconds(clock.now()),
    )  # fmt: skip
    priced = dataclasses.replace(admission, prices=prices)
    open_hold(connection, priced, clock=clock)
    return priced


def note_progress(connection: Connection, progress: Mapping[str, Usage]) -> None:
    """Checkpoint what running requests have delivered so far, by request id: what a crash is settled by."""
    for request_id, usage in progress.items():
        connection.execute(
            hold.update()
            .where(hold.c.request_id == request_id)
            .values(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, characters=usage.characters)
        )


def settle(
    connection: Connection, request_id: str, outcome: Outcome, usage: Usage, *, clock: Clock, currency: str = "USD"
) -> Receipt:
    """Close the hold with exactly one entry and its hourly sum. Repeating it is harmless: the first entry stands."""
    held = connection.execute(select(hold).where(hold.c.request_id == request_id)).mappings().first()
    if held is not None:
        now_us = microseconds(clock.now())
        units: dict[str, int] = {
            Meter.INPUT_TOKEN: usage.input_tokens,
            Meter.OUTPUT_TOKEN: usage.output_tokens,
            Meter.CHARACTER: usage.characters,
            Meter.REQUEST: int(usage != Usage()),
        }
        cost = cost_nano(held["prices"], units)
        same = {name: held[name] for name in ("tenant_id", "key_id", "model", "task")}
        done = connection.execute(
            insert(usage_entry)
            .values(
                id=request_id, occurred_us=now_us, route=held["route"], outcome=outcome.value,
                input_tokens=usage.input_tokens, cached_tokens=usage.cached_tokens,
                output_tokens=usage.output_tokens, characters=usage.characters, prices=held["prices"],
                cost_nano=cost, currency=currency, duration_ms=(now_us - held["admitted_us"]) // 1000,
                replica_id=held["replica_id"], **same,
            )
            .on_conflict_do_nothing()
            .returning(usage_entry.c.id)
        ).first()  # fmt: skip
        connection.execute(delete(hold).where(hold.c.request_id == request_id))
        if done is not None:
            _add_to_hour(connection, same, now_us - now_us % HOUR_US, usage, cost)
    row = connection.execute(select(usage_entry).where(usage_entry.c.id == request_id)).mappings().one()
    return Receipt(
        request_id=request_id, outcome=Outcome(row["outcome"]), input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"], cost_nano=row["cost_nano"], currency=row["currency"],
    )  # fmt: skip


def recover(connection: Connection, *, replica_id: str, clock: Clock) -> int:
    """Settle what this replica held when it died, by its last checkpoints; returns how many requests there were.

    A replica's worker processes are named after it, `<replica>.<number>`: theirs are settled too.
    """
    is_ours = or_(hold.c.replica_id == replica_id, hold.c.replica_id.startswith(f"{replica_id}.", autoescape=True))
    rows = connection.execute(select(hold).where(is_ours)).mappings().all()
    for row in rows:
        usage = Usage(
            input_tokens=row["input_tokens"], output_tokens=row["output_tokens"], characters=row["characters"]
        )
        settle(connection, row["request_id"], Outcome.CRASHED, usage, clock=clock)
    return len(rows)


def list_entries(
    connection: Connection, *, tenant_name: str | None = None, model: str | None = None, limit: int = 1000
) -> list[dict[str, Any]]:
    """The newest `limit` entries, oldest first, with the names of tenant and key."""
    chosen = (
        select(usage_entry, tenant.c.name.label("tenant"), api_key.c.name.label("key_name"))
        .join(tenant, tenant.c.id == usage_entry.c.tenant_id)
        .join(api_key, api_key.c.id == usage_entry.c.key_id)
        .order_by(usage_entry.c.id.desc())
        .limit(limit)
    )
    if tenant_name is not None:
        chosen = chosen.where(tenant.c.name == tenant_name)
    if model is not None:
        chosen = chosen.where(usage_entry.c.model == model)
    shown = (
        "tenant", "key_name", "model", "task", "route", "outcome", "input_tokens", "cached_tokens", "output_tokens",
        "characters", "cost_nano", "currency", "duration_ms",
    )  # fmt: skip
    rows = connection.execute(chosen).mappings().all()
    return [
        {"request_id": row["id"], "occurred_at": moment_of(row["occurred_us"]).isoformat()}
        | {name: row[name] for name in shown}
        for row in reversed(rows)
    ]


def _add_to_hour(connection: Connection, same: Mapping[str, str], hour_us: int, usage: Usage, cost: int) -> None:
    added = {
        "requests": 1,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_nano": cost,
    }
    statement = insert(usage_hour).values(hour_us=hour_us, **same, **added)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=list(usage_hour.primary_key.columns),
            set_={name: usage_hour.c[name] + value for name, value in added.items()},
        )
    )

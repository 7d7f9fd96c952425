"""The ledger: a hold is taken before work and settled after it, into exactly one entry that never changes."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, RowMapping, Text, bindparam, cast, delete, or_, select, update

from app.clock import Clock
from app.errors import NotFound
from app.metering.budgets import balance_nano, hold_money, hold_more, room_nano, spend
from app.metering.changes import note_change
from app.metering.database import microseconds, moment_of
from app.metering.feed import queue_entry
from app.metering.idempotency import Once, take_late
from app.metering.leases import Window
from app.metering.money import Meter, cost_nano
from app.metering.prices import prices_or_refusal
from app.metering.rollups import add_to_sums
from app.metering.statements import Statement
from app.metering.tables import api_key, hold, tenant, usage_entry


class Outcome(StrEnum):
    """How an admitted request ended."""

    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CRASHED = "crashed"
    KEY_REVOKED = "key_revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A request that may run: who pays, for what, at which prices. All that its entry needs, whatever else is lost."""

    request_id: str
    tenant_id: str
    key_id: str
    model: str
    task: str
    route: str
    input_tokens: int
    output_tokens_max: int
    output_tokens_held: int | None = None
    """For how many of them money is held at first; None for all."""
    characters: int = 0
    is_free: bool = False
    """The model needs no price."""
    prices: Mapping[str, int] = field(default_factory=dict[str, int])
    """Pico-units by meter; set when the hold is opened, as is the moment."""
    admitted_us: int = 0
    windows: tuple[Window, ...] = ()
    """The budgets in which money is held."""
    replica_id: str = "local"
    once: Once | None = None
    """Its Idempotency-Key, if that was taken while the database was away: its entry claims it, or costs nothing."""

    def cost_nano(self, output_tokens: int) -> int:
        """What it costs when the whole input is read and so many tokens come out."""
        units: dict[str, int] = {
            Meter.INPUT_TOKEN: self.input_tokens,
            Meter.OUTPUT_TOKEN: output_tokens,
            Meter.CHARACTER: self.characters,
            Meter.REQUEST: 1,
        }
        return cost_nano(self.prices, units)

    @property
    def output_tokens_at_first(self) -> int:
        """See output_tokens_held."""
        held = self.output_tokens_held
        return self.output_tokens_max if held is None else min(held, self.output_tokens_max)


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
    balance_nano: int | None = None
    """The smallest amount left in a budget that binds the key; None without budgets."""


OPEN_HOLD = Statement(hold.insert())
MAKE_ENTRY = Statement(
    lambda insert: insert.on_conflict_do_nothing().returning(usage_entry.c.id), table=usage_entry
)  # fmt: skip
END_HOLD = Statement(
    delete(hold)
    .where(hold.c.request_id == bindparam("of_request"))
    .returning(hold.c.amount_nano, cast(hold.c.windows, Text))
)


def open_hold(connection: Connection, admission: Admission) -> Admission:
    """Set money aside and make the request known, so that a crash after this still leaves its entry.

    Raises InsufficientQuota. Returns the admission with the budgets that bind it.
    """
    amount = admission.cost_nano(admission.output_tokens_at_first)
    windows = hold_money(
        connection, tenant_id=admission.tenant_id, key_id=admission.key_id, amount_nano=amount,
        at_us=admission.admitted_us,
    )  # fmt: skip
    OPEN_HOLD.count(
        connection,
        {
            "request_id": admission.request_id, "tenant_id": admission.tenant_id, "key_id": admission.key_id,
            "model": admission.model, "task": admission.task, "route": admission.route,
            "prices": dict(admission.prices), "amount_nano": amount, "input_tokens": 0, "output_tokens": 0,
            "characters": 0, "replica_id": admission.replica_id, "admitted_us": admission.admitted_us,
            "windows": [list(window) for window in windows],
        },
    )  # fmt: skip
    return dataclasses.replace(admission, windows=windows)


def open_priced_hold(connection: Connection, admission: Admission, *, clock: Clock) -> Admission:
    """Open the hold at the prices of this moment, which the entry will keep. Raises PriceMissing too."""
    now_us = microseconds(clock.now())
    prices = prices_or_refusal(
        connection, model=admission.model, task=admission.task, tenant_id=admission.tenant_id, at_us=now_us,
        is_free=admission.is_free,
    )  # fmt: skip
    return open_hold(connection, dataclasses.replace(admission, prices=prices, admitted_us=now_us))


def estimate(connection: Connection, admission: Admission, *, clock: Clock) -> tuple[Admission, int | None]:
    """The admission at the prices of this moment, and what is left in the budgets; nothing is held."""
    now_us = microseconds(clock.now())
    prices = prices_or_refusal(
        connection, model=admission.model, task=admission.task, tenant_id=admission.tenant_id, at_us=now_us,
        is_free=admission.is_free,
    )  # fmt: skip
    left = balance_nano(connection, tenant_id=admission.tenant_id, key_id=admission.key_id, at_us=now_us)
    return dataclasses.replace(admission, prices=prices, admitted_us=now_us), left


def extend_hold(connection: Connection, admission: Admission, *, held_tokens: int, wanted_tokens: int) -> int:
    """Hold money for more output, up to `wanted_tokens` in all; returns for how many it is held then.

    What the budgets do not cover is not held: the number that comes back is the last token that may leave.
    """
    row = connection.execute(select(hold.c.amount_nano).where(hold.c.request_id == admission.request_id)).first()
    if row is None or wanted_tokens <= held_tokens:
        return held_tokens
    covered, amount = covered_tokens(
        admission, held_tokens=held_tokens, wanted_tokens=wanted_tokens, held_nano=row.amount_nano,
        room_nano=room_nano(connection, admission.windows),
    )  # fmt: skip
    if amount > row.amount_nano:
        hold_more(connection, admission.windows, amount - row.amount_nano)
        connection.execute(
            update(hold).where(hold.c.request_id == admission.request_id).values(amount_nano=amount)
        )  # fmt: skip
    return covered


def covered_tokens(
    admission: Admission, *, held_tokens: int, wanted_tokens: int, held_nano: int, room_nano: int
) -> tuple[int, int]:
    """For how many output tokens, from `held_tokens` to `wanted_tokens`, the room suffices; and what is held then."""
    low, high = held_tokens, wanted_tokens
    while low < high:
        middle = (low + high + 1) // 2
        if admission.cost_nano(middle) - held_nano <= room_nano:
            low = middle
        else:
            high = middle - 1
    return low, max(held_nano, admission.cost_nano(low)) if low > held_tokens else held_nano


def note_progress(connection: Connection, progress: Mapping[str, Usage]) -> None:
    """Note in the database what running requests have delivered, for the case that their replica's disk is lost."""
    for request_id, usage in sorted(progress.items()):
        connection.execute(
            hold.update()
            .where(hold.c.request_id == request_id)
            .values(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, characters=usage.characters)
        )


def charge_nano(admission: Admission, usage: Usage) -> int:
    """What `usage` costs at the admission's prices; nothing at all when nothing was used."""
    units: dict[str, int] = {
        Meter.INPUT_TOKEN: usage.input_tokens,
        Meter.OUTPUT_TOKEN: usage.output_tokens,
        Meter.CHARACTER: usage.characters,
        Meter.REQUEST: int(usage != Usage()),
    }
    return cost_nano(admission.prices, units)


def settle(
    connection: Connection, admission: Admission, outcome: Outcome, usage: Usage, *, at_us: int, currency: str = "USD"
) -> Receipt:
    """Make the one entry, and move hold, budgets and sums with it. Repeating it is harmless: the first entry stands."""
    if admission.once is not None and usage != Usage():
        is_first = take_late(
            connection, admission.once, tenant_id=admission.tenant_id, request_id=admission.request_id,
            replica_id=admission.replica_id, at_us=at_us,
        )  # fmt: skip
        admission = admission if is_first else dataclasses.replace(admission, prices={})
    cost = charge_nano(admission, usage)
    entry: dict[str, Any] = {
        "id": admission.request_id, "occurred_us": at_us, "tenant_id": admission.tenant_id,
        "key_id": admission.key_id, "model": admission.model, "task": admission.task, "route": admission.route,
        "outcome": outcome.value, "input_tokens": usage.input_tokens, "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens, "characters": usage.characters, "prices": dict(admission.prices),
        "cost_nano": cost, "currency": currency, "replica_id": admission.replica_id,
        "duration_ms": max(0, at_us - admission.admitted_us) // 1000,
    }  # fmt: skip
    is_new = bool(MAKE_ENTRY.rows(connection, entry))
    left = release(
        connection, admission.request_id, cost_nano=cost if is_new else 0, windows=admission.windows,
        replica_id=admission.replica_id, at_us=at_us,
    )  # fmt: skip
    if is_new:
        add_to_sums(connection, entry)
        queue_entry(connection, admission.request_id, at_us=at_us)
    else:
        entry = dict(connection.execute(select(usage_entry).where(usage_entry.c.id == entry["id"])).mappings().one())
    return dataclasses.replace(receipt_of(entry), balance_nano=left)


def release(
    connection: Connection, request_id: str, *, cost_nano: int = 0, windows: Sequence[Window] = (),
    replica_id: str = "local", at_us: int = 0,
) -> int | None:  # fmt: skip
    """Let go of a hold, spending `cost_nano`; returns what is left in its budgets.

    Harmless without a hold: then only what it cost is spent, in `windows`, out of the replica's lease.
    """
    held_nano = 0
    for amount_nano, places in END_HOLD.rows(connection, {"of_request": request_id}):
        held_nano = amount_nano
        windows = [(str(budget_id), int(window_us)) for budget_id, window_us in json.loads(places)]
    if not windows or not (held_nano or cost_nano):
        return None
    return spend(
        connection, windows, request_id=request_id, replica_id=replica_id, held_nano=held_nano, cost_nano=cost_nano,
        at_us=at_us,
    )  # fmt: skip


def receipt_of(entry: Mapping[str, Any] | RowMapping) -> Receipt:
    """An entry as its customer sees it."""
    return Receipt(
        request_id=entry["id"], outcome=Outcome(entry["outcome"]), input_tokens=entry["input_tokens"],
        output_tokens=entry["output_tokens"], cost_nano=entry["cost_nano"], currency=entry["currency"],
    )  # fmt: skip


def admission_of(row: RowMapping) -> Admission:
    """A hold's row as the admission that it was opened for."""
    return Admission(
        request_id=row["request_id"], tenant_id=row["tenant_id"], key_id=row["key_id"], model=row["model"],
        task=row["task"], route=row["route"], input_tokens=0, output_tokens_max=0, prices=row["prices"],
        admitted_us=row["admitted_us"], replica_id=row["replica_id"],
    )  # fmt: skip


def recover(connection: Connection, *, replica_id: str, clock: Clock, with_workers: bool = False) -> int:
    """Settle what this replica held when it died, by its last checkpoints; returns how many requests there were.

    A replica's worker processes are named after it, `<replica>.<number>`: theirs are settled too if asked for.
    """
    is_its = hold.c.replica_id == replica_id
    if with_workers:
        is_its = or_(is_its, hold.c.replica_id.startswith(f"{replica_id}.", autoescape=True))
    rows = connection.execute(select(hold).where(is_its).order_by(hold.c.request_id)).mappings().all()
    for row in rows:
        usage = Usage(
            input_tokens=row["input_tokens"], output_tokens=row["output_tokens"], characters=row["characters"]
        )
        settle(connection, admission_of(row), Outcome.CRASHED, usage, at_us=microseconds(clock.now()))
    return len(rows)


def ask_to_cancel(connection: Connection, *, request_id: str, tenant_id: str | None, clock: Clock) -> bool:
    """Tell every process to end a request, of any tenant if `tenant_id` is None; False if it had ended.

    Raises NotFound.
    """
    for table, column in ((hold, hold.c.request_id), (usage_entry, usage_entry.c.id)):
        owner = connection.execute(select(table.c.tenant_id).where(column == request_id)).scalar()
        if owner is not None and tenant_id in (None, owner):
            if table is hold:
                note_change(connection, clock=clock, changed_id=request_id)
            return table is hold
    raise NotFound("There is no such request of yours; the header x-tollgate-request-id of an answer tells its id.")


def find_receipt(connection: Connection, *, request_id: str, tenant_id: str, clock: Clock) -> dict[str, Any] | None:
    """What a tenant may know of one of its requests, running or settled; None when it has no such request."""
    row = connection.execute(
        select(usage_entry).where(usage_entry.c.id == request_id, usage_entry.c.tenant_id == tenant_id)
    ).mappings().first()  # fmt: skip
    if row is not None:
        balance = balance_nano(
            connection, tenant_id=tenant_id, key_id=row["key_id"], at_us=microseconds(clock.now())
        )  # fmt: skip
        return entry_json(row) | {"status": "settled", "prices": dict(row["prices"]), "balance_nano": balance}
    row = connection.execute(
        select(hold).where(hold.c.request_id == request_id, hold.c.tenant_id == tenant_id)
    ).mappings().first()  # fmt: skip
    if row is None:
        return None
    return {
        "request_id": request_id, "status": "running", "model": row["model"], "task": row["task"],
        "route": row["route"], "held_nano": row["amount_nano"], "prices": dict(row["prices"]),
        "admitted_at": moment_of(row["admitted_us"]).isoformat(),
    }  # fmt: skip


SHOWN = (
    "model", "task", "route", "outcome", "input_tokens", "cached_tokens", "output_tokens", "characters", "cost_nano",
    "currency", "duration_ms",
)  # fmt: skip


def entry_json(row: RowMapping | Mapping[str, Any]) -> dict[str, Any]:
    """An entry as JSON shows it."""
    return {"request_id": row["id"], "occurred_at": moment_of(row["occurred_us"]).isoformat()} | {
        name: row[name] for name in SHOWN
    }


def list_entries(
    connection: Connection, *, tenant_name: str | None = None, model: str | None = None, limit: int | None = 1000,
    tenant_id: str | None = None, from_us: int | None = None, until_us: int | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The newest `limit` entries, oldest first, with the names of tenant and key."""
    chosen = (
        select(usage_entry, tenant.c.name.label("tenant"), api_key.c.name.label("key_name"))
        .join(tenant, tenant.c.id == usage_entry.c.tenant_id)
        .join(api_key, api_key.c.id == usage_entry.c.key_id)
        .order_by(usage_entry.c.id.desc())
        .limit(limit)
    )
    conditions = (
        (tenant_name, tenant.c.name == tenant_name), (tenant_id, usage_entry.c.tenant_id == tenant_id),
        (model, usage_entry.c.model == model), (from_us, usage_entry.c.occurred_us >= (from_us or 0)),
        (until_us, usage_entry.c.occurred_us < (until_us or 0)),
    )  # fmt: skip
    chosen = chosen.where(*(condition for value, condition in conditions if value is not None))
    rows = connection.execute(chosen).mappings().all()
    return [{"tenant": row["tenant"], "key_name": row["key_name"]} | entry_json(row) for row in reversed(rows)]

"""What is to be told to webhooks: put in with the transaction that made it true, taken out by one replica at a time."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, func, or_, select, update

from app.errors import Conflict, NotFound
from app.metering.database import id_at, moment_of
from app.metering.tables import webhook, webhook_delivery


class State(StrEnum):
    """How far a delivery is."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    DEAD = "dead"
    """Every attempt failed; an operator may send it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message for one webhook. Its id stays the same over all attempts: receivers drop repetitions by it."""

    id: str
    webhook_id: str
    url: str
    pepper_id: str
    secret_number: int
    body: str
    attempts: int


def enqueue(
    connection: Connection, *, type_name: str, tenant_id: str | None, data: dict[str, Any], at_us: int,
    webhook_id: str | None = None,
) -> int:  # fmt: skip
    """A message for each webhook of the tenant and of the operator (or only `webhook_id`); returns how many."""
    chosen = select(webhook.c.id).where(webhook.c.is_active.is_(True))
    if webhook_id is None:
        chosen = chosen.where(or_(webhook.c.tenant_id.is_(None), webhook.c.tenant_id == tenant_id))
    else:
        chosen = chosen.where(webhook.c.id == webhook_id)
    event = {"type": type_name, "timestamp": moment_of(at_us).isoformat(timespec="milliseconds"), "data": data}
    found = connection.scalars(chosen.order_by(webhook.c.id)).all()
    for receiver in found:
        connection.execute(
            webhook_delivery.insert().values(
                id=id_at("msg", at_us), webhook_id=receiver, tenant_id=tenant_id, type=type_name,
                body=json.dumps(event, separators=(",", ":")), state=State.WAITING.value, attempts=0, next_us=at_us,
                created_us=at_us,
            )
        )  # fmt: skip
    return len(found)


def claim(connection: Connection, *, lease_id: str, now_us: int, lease_us: int, limit: int) -> list[Delivery]:
    """Take what is due: nobody else sends it while the lease lasts; who dies with it lets go of it thereby."""
    mine = webhook_delivery.c
    due = (
        select(mine.id)
        .where(mine.state == State.WAITING.value, mine.next_us <= now_us)
        .order_by(mine.next_us)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = connection.scalars(due).all()
    if not ids:
        return []
    connection.execute(
        update(webhook_delivery)
        .where(mine.id.in_(ids))
        .values(lease_id=lease_id, next_us=now_us + lease_us, attempts=mine.attempts + 1)
    )
    rows = connection.execute(
        select(webhook_delivery, webhook.c.url, webhook.c.pepper_id, webhook.c.secret_number)
        .join(webhook, webhook.c.id == mine.webhook_id)
        .where(mine.id.in_(ids))
        .order_by(mine.created_us, mine.id)
    )
    return [
        Delivery(
            id=row.id, webhook_id=row.webhook_id, url=row.url, pepper_id=row.pepper_id,
            secret_number=row.secret_number, body=row.body, attempts=row.attempts,
        )
        for row in rows
    ]  # fmt: skip


def end(connection: Connection, delivery_id: str, *, lease_id: str, state: State, status: int | None, at_us: int,
        error: str | None = None) -> None:  # fmt: skip
    """It arrived, or is given up. Only who holds the lease may say so."""
    connection.execute(
        update(webhook_delivery)
        .where(webhook_delivery.c.id == delivery_id, webhook_delivery.c.lease_id == lease_id)
        .values(state=state.value, status=status, error=error, ended_us=at_us, lease_id=None)
    )


def try_later(
    connection: Connection, delivery_id: str, *, lease_id: str, status: int | None, error: str, next_us: int
) -> None:
    """It did not arrive; the next attempt is due at `next_us`."""
    connection.execute(
        update(webhook_delivery)
        .where(webhook_delivery.c.id == delivery_id, webhook_delivery.c.lease_id == lease_id)
        .values(status=status, error=error, next_us=next_us, lease_id=None)
    )


def redeliver(connection: Connection, delivery_id: str, *, at_us: int) -> dict[str, Any]:
    """Send a dead or delivered message again, under its id. Raises NotFound, or Conflict for one that waits."""
    row = connection.execute(select(webhook_delivery).where(webhook_delivery.c.id == delivery_id)).first()
    if row is None:
        raise NotFound(f"there is no delivery {delivery_id!r}; `tollgate webhooks deliveries` lists them")
    if row.state == State.WAITING.value:
        raise Conflict("it waits for its next attempt already")
    connection.execute(
        update(webhook_delivery)
        .where(webhook_delivery.c.id == delivery_id)
        .values(state=State.WAITING.value, attempts=0, next_us=at_us, ended_us=None, error=None, status=None)
    )
    return list_deliveries(connection, delivery_id=delivery_id)[0]


def list_deliveries(
    connection: Connection, *, states: Collection[State] = tuple(State), webhook_id: str | None = None,
    delivery_id: str | None = None, after: str = "", limit: int | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Messages, oldest first, after the id `after`."""
    mine = webhook_delivery.c
    chosen = select(webhook_delivery).where(mine.id > after, mine.state.in_([one.value for one in states]))
    if webhook_id is not None:
        chosen = chosen.where(mine.webhook_id == webhook_id)
    if delivery_id is not None:
        chosen = chosen.where(mine.id == delivery_id)
    return [
        {
            "id": row.id, "webhook_id": row.webhook_id, "type": row.type, "state": row.state,
            "attempts": row.attempts, "status": row.status, "error": row.error,
            "created_at": moment_of(row.created_us).isoformat(timespec="seconds"),
            "next_at": moment_of(row.next_us).isoformat(timespec="seconds") if row.state == "waiting" else None,
            "ended_at": None if row.ended_us is None else moment_of(row.ended_us).isoformat(timespec="seconds"),
            "event": json.loads(row.body),
        }
        for row in connection.execute(chosen.order_by(mine.id).limit(limit))
    ]  # fmt: skip


def counts(connection: Connection) -> dict[str, int]:
    """How many messages wait, and how many are dead."""
    mine = webhook_delivery.c
    chosen = select(mine.state, func.count()).where(mine.state != State.DELIVERED.value).group_by(mine.state)
    return {row[0]: row[1] for row in connection.execute(chosen)}


def forget_delivered(connection: Connection, *, before_us: int) -> None:
    """Let go of messages that arrived long ago."""
    mine = webhook_delivery.c
    done = (mine.state == State.DELIVERED.value, mine.ended_us < before_us)
    connection.execute(webhook_delivery.delete().where(*done))

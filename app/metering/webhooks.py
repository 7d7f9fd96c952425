"""Webhooks: who is told of budgets. Each act leaves its row in the audit log; a secret is stored nowhere."""

import base64
from typing import Any

from sqlalchemy import Connection, select, update

from app.errors import NotFound
from app.metering import alerts
from app.metering.acts import Operator
from app.metering.database import microseconds, moment_of, new_id
from app.metering.money_acts import paying
from app.metering.outbox import enqueue, redeliver
from app.metering.pepper import Pepper
from app.metering.peppers import choose_current
from app.metering.tables import tenant, webhook
from app.metering.tenants import checked_percents, find_tenant


def secret_text(pepper: Pepper, row: Any) -> str:
    """A webhook's secret as Standard Webhooks writes it: made of the pepper, so that no copy of the database has it."""
    made = pepper.webhook_secret(row.pepper_id, row.id, row.secret_number)
    return "whsec_" + base64.b64encode(made).decode()


def create_webhook(
    connection: Connection, operator: Operator, pepper: Pepper, *, url: str, tenant_name: str | None = None
) -> dict[str, Any]:
    """Tell this address of a tenant's budgets, or of everybody's. The caller has checked the URL. Shows the secret."""
    operator.require("webhook.create")
    choose_current(connection, pepper)
    tenant_id = None if tenant_name is None else paying(connection, tenant_name).id
    webhook_id = new_id("webhook", operator.clock)
    connection.execute(
        webhook.insert().values(
            id=webhook_id, tenant_id=tenant_id, url=url, pepper_id=pepper.id, secret_number=1, is_active=True,
            created_us=microseconds(operator.clock.now()),
        )
    )  # fmt: skip
    operator.note(
        connection, act="webhook.create", target=webhook_id, tenant_id=tenant_id, details={"after": {"url": url}}
    )
    row = row_of(connection, webhook_id)
    return webhook_json(row) | {"secret": secret_text(pepper, row)}


def rotate_secret(connection: Connection, operator: Operator, pepper: Pepper, *, webhook_id: str) -> dict[str, Any]:
    """Another secret, from the next attempt on. Raises NotFound."""
    operator.require("webhook.rotate")
    choose_current(connection, pepper)
    before = row_of(connection, webhook_id)
    connection.execute(
        update(webhook)
        .where(webhook.c.id == webhook_id)
        .values(secret_number=before.secret_number + 1, pepper_id=pepper.id)
    )
    operator.note(connection, act="webhook.rotate", target=webhook_id, tenant_id=before.tenant_id, details={})
    row = row_of(connection, webhook_id)
    return webhook_json(row) | {"secret": secret_text(pepper, row)}


def remove_webhook(connection: Connection, operator: Operator, *, webhook_id: str) -> dict[str, Any]:
    """Tell it nothing new; what waits is still sent. Raises NotFound."""
    operator.require("webhook.remove")
    before = row_of(connection, webhook_id)
    connection.execute(update(webhook).where(webhook.c.id == webhook_id).values(is_active=False))
    operator.note(connection, act="webhook.remove", target=webhook_id, tenant_id=before.tenant_id, details={})
    return webhook_json(row_of(connection, webhook_id))


def try_webhook(connection: Connection, operator: Operator, *, webhook_id: str) -> int:
    """Send it a message that says nothing but that it arrives. Raises NotFound."""
    operator.require("webhook.test")
    row = row_of(connection, webhook_id)
    operator.note(connection, act="webhook.test", target=webhook_id, tenant_id=row.tenant_id, details={})
    at_us = microseconds(operator.clock.now())
    data = {"webhook_id": webhook_id}
    return enqueue(
        connection, type_name="webhook.test", tenant_id=row.tenant_id, data=data, at_us=at_us, webhook_id=webhook_id
    )


def send_again(connection: Connection, operator: Operator, *, delivery_id: str) -> dict[str, Any]:
    """See outbox.redeliver."""
    operator.require("webhook.redeliver")
    sent = redeliver(connection, delivery_id, at_us=microseconds(operator.clock.now()))
    operator.note(connection, act="webhook.redeliver", target=delivery_id, details={})
    return sent


def put_percents(
    connection: Connection, operator: Operator, *, tenant_name: str, percents: list[int] | None
) -> dict[str, Any]:
    """At which shares of its limits a tenant's alerts go out; None: at the usual ones; none at all: never."""
    operator.require("tenant.alerts")
    payer = paying(connection, tenant_name)
    before = percents_of(connection, payer.id)
    kept = None if percents is None else checked_percents(percents)
    connection.execute(update(tenant).where(tenant.c.id == payer.id).values(alert_percents=kept))
    alerts.look_again(connection, payer.id)
    after = percents_of(connection, payer.id)
    details = {"before": before["percents"], "after": after["percents"]}
    operator.note(connection, act="tenant.alerts", target=payer.id, tenant_id=payer.id, details=details)
    return after


def percents_of(connection: Connection, tenant_name: str) -> dict[str, Any]:
    """A tenant's percentages. Raises NotFound."""
    found = find_tenant(connection, tenant_name)
    kept = connection.scalar(select(tenant.c.alert_percents).where(tenant.c.id == found.id))
    shown = list(alerts.DEFAULT_PERCENTS) if kept is None else list(kept)
    return {"tenant_id": found.id, "tenant": found.name, "percents": shown, "is_default": kept is None}


def list_webhooks(
    connection: Connection, *, tenant_id: str | None = None, after: str = "", limit: int | None = None
) -> list[dict[str, Any]]:
    """Webhooks that are not removed, oldest first, after the id `after`."""
    chosen = _webhooks().where(webhook.c.id > after, webhook.c.is_active.is_(True)).order_by(webhook.c.id).limit(limit)
    if tenant_id is not None:
        chosen = chosen.where(webhook.c.tenant_id == tenant_id)
    return [webhook_json(row) for row in connection.execute(chosen)]


def webhook_json(row: Any) -> dict[str, Any]:
    """A webhook as commands and routes show it."""
    return {
        "id": row.id, "tenant_id": row.tenant_id, "tenant": row.tenant, "url": row.url, "active": row.is_active,
        "created_at": moment_of(row.created_us).isoformat(timespec="seconds"),
    }  # fmt: skip


def row_of(connection: Connection, webhook_id: str) -> Any:
    """A webhook that is not removed, or was. Raises NotFound."""
    row = connection.execute(_webhooks().where(webhook.c.id == webhook_id)).first()
    if row is None:
        raise NotFound(f"there is no webhook {webhook_id!r}; `tollgate webhooks list` shows them")
    return row


def _webhooks():
    return select(webhook, tenant.c.name.label("tenant")).outerjoin(tenant, tenant.c.id == webhook.c.tenant_id)

"""The operator's routes for webhooks, their deliveries, and the percentages at which alerts go out."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import ConfigDict, Field

from app.api.admin_acting import Acts, After, OfTenant, PageSize, page
from app.api.admin_bodies import AdminBody
from app.api.body import read_body
from app.api.document import body_schema
from app.delivery.addresses import checked_url
from app.metering import webhooks
from app.metering.outbox import State, list_deliveries

router = APIRouter(prefix="/admin", tags=["admin: webhooks"])


class WebhookBody(AdminBody):
    """Whom to tell of budget alerts."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"url": "https://example.com/hooks", "tenant": "acme"}]}
    )

    url: str = Field(description="https, to a public address.")
    tenant: str | None = Field(default=None, description="Only this tenant's budgets; null: everybody's.")


class AlertsBody(AdminBody):
    """At which shares of its limits a tenant's alerts go out; null: at 50, 80 and 100 %; an empty list: never."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"percents": [75, 90, 100]}]})

    percents: list[int] | None


@router.post("/webhooks", status_code=201, openapi_extra=body_schema(WebhookBody), summary="Make a webhook")
async def create(request: Request, acts: Acts) -> dict[str, Any]:
    """The answer holds the secret that signs its messages (Standard Webhooks)."""
    body, operator, pepper = await read_body(request, WebhookBody), acts.operator, acts.desk.pepper
    url = checked_url(body.url, request.app.state.settings.webhooks.allowed_hosts)
    return await acts.do(lambda c: webhooks.create_webhook(c, operator, pepper, url=url, tenant_name=body.tenant))


@router.get("/webhooks", summary="List webhooks")
async def list_all(acts: Acts, after: After = "", limit: PageSize = 100, tenant: OfTenant = None) -> dict[str, Any]:
    """Oldest first."""
    return await acts.read_page("webhook.read", webhooks.list_webhooks, dict, tenant=tenant, after=after, limit=limit)


@router.post("/webhooks/{webhook_id}/rotate", summary="Give a webhook another secret")
async def rotate(webhook_id: str, acts: Acts) -> dict[str, Any]:
    """From the next attempt on; the answer holds it."""
    operator, pepper = acts.operator, acts.desk.pepper
    return await acts.do(lambda c: webhooks.rotate_secret(c, operator, pepper, webhook_id=webhook_id))


@router.post("/webhooks/{webhook_id}/test", status_code=202, summary="Send a test message")
async def test(webhook_id: str, acts: Acts) -> dict[str, int]:
    """It goes the way of all messages: `GET /admin/webhook-deliveries` shows what came of it."""
    operator = acts.operator
    return {"queued": await acts.do(lambda c: webhooks.try_webhook(c, operator, webhook_id=webhook_id))}


@router.delete("/webhooks/{webhook_id}", summary="Remove a webhook")
async def remove(webhook_id: str, acts: Acts) -> dict[str, Any]:
    """It is told nothing new; what waits for it is still sent."""
    operator = acts.operator
    return await acts.do(lambda c: webhooks.remove_webhook(c, operator, webhook_id=webhook_id))


@router.get("/webhook-deliveries", summary="List messages")
async def deliveries(
    acts: Acts, after: After = "", limit: PageSize = 100, webhook: str | None = None,
    state: Annotated[list[State] | None, Query(description="Only these; default: all.")] = None,
) -> dict[str, Any]:  # fmt: skip
    """Oldest first, with attempts, the last status and why they did not arrive."""
    states = tuple(state) if state else tuple(State)
    found = await acts.read(
        "webhook.read",
        lambda c: list_deliveries(c, states=states, webhook_id=webhook, after=after, limit=limit + 1),
    )
    return page(found, limit, dict)


@router.post("/webhook-deliveries/{delivery_id}/redeliver", summary="Send a message again")
async def redeliver(delivery_id: str, acts: Acts) -> dict[str, Any]:
    """A dead or delivered one, under its id."""
    operator = acts.operator
    return await acts.do(lambda c: webhooks.send_again(c, operator, delivery_id=delivery_id))


@router.get("/tenants/{tenant}/alerts", summary="Show a tenant's alert percentages")
async def show_alerts(tenant: str, acts: Acts) -> dict[str, Any]:
    """Its own, or the usual ones."""
    return await acts.read("tenant.read", lambda c: webhooks.percents_of(c, tenant))


@router.put("/tenants/{tenant}/alerts", openapi_extra=body_schema(AlertsBody), summary="Set a tenant's percentages")
async def set_alerts(tenant: str, request: Request, acts: Acts) -> dict[str, Any]:
    """For all of its budgets."""
    body, operator = await read_body(request, AlertsBody), acts.operator
    return await acts.do(
        lambda c: webhooks.put_percents(c, operator, tenant_name=tenant, percents=body.percents)
    )  # fmt: skip

"""OpenAI's projects, as far as they map honestly: a project is a tenant, a service account is one of its keys.

Users, roles, groups and residency do not exist here and have no routes.
"""

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.admin_acting import Acts, After
from app.api.body import read_body
from app.api.document import body_schema
from app.api.organization_keys import SECONDS_MAX, Limit, expiry_us, found_key, list_json, seconds_of
from app.errors import NotFound
from app.metering import money_acts
from app.metering.budgets import BudgetKind, BudgetState, list_budgets
from app.metering.database import microseconds
from app.metering.keys import KeyRecord, is_usable, list_keys
from app.metering.limits import LimitRule
from app.metering.money import NANO
from app.metering.tenants import Status, TenantRecord, find_tenant, list_tenants

router = APIRouter(prefix="/v1/organization/projects", tags=["organization"])
NANO_PER_CENT = NANO // 100
ALL_MODELS = "rl-all-models"
"""Our limits are a tenant's, for all models together: one rate limit by this id."""


class ProjectBody(BaseModel):
    """A project: a tenant."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "acme"}]})

    name: str


class AccountBody(BaseModel):
    """A service account: a key of the tenant."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "web"}]})

    name: str
    expires_in_seconds: int | None = Field(default=None, ge=1, le=SECONDS_MAX)


class RateLimitBody(BaseModel):
    """What is not sent stays. Limits that Tollgate does not have are refused."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"max_requests_per_1_minute": 600}]})

    max_requests_per_1_minute: int | None = Field(default=None, ge=1, lt=2**53)
    max_tokens_per_1_minute: int | None = Field(default=None, ge=1, lt=2**53)


class SpendLimitBody(BaseModel):
    """A month's budget in cents."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"threshold_amount": 2500, "currency": "USD", "interval": "month"}]},
    )

    threshold_amount: int = Field(ge=0, lt=2**63 // NANO_PER_CENT, strict=True, description="Cents.")
    currency: Literal["USD"]
    interval: Literal["month"]


def project_json(record: TenantRecord) -> dict[str, Any]:
    """A tenant as a project; suspended and erased ones are archived (when is not kept)."""
    is_active = record.status is Status.ACTIVE
    return {
        "object": "organization.project", "id": record.id, "name": record.name,
        "created_at": seconds_of(record.created_us), "archived_at": None,
        "status": "active" if is_active else "archived",
    }  # fmt: skip


def account_json(record: KeyRecord) -> dict[str, Any]:
    """A key as a service account."""
    return {
        "object": "organization.project.service_account", "id": record.id, "name": record.name, "role": "member",
        "created_at": seconds_of(record.created_us),
    }  # fmt: skip


def key_json(record: KeyRecord, now_us: int) -> dict[str, Any]:
    """A key as a project's API key, owned by the service account that it is."""
    account = {name: value for name, value in account_json(record).items() if name != "object"}
    return {
        "object": "organization.project.api_key", "id": record.id, "name": record.name,
        "redacted_value": record.display, "created_at": seconds_of(record.created_us),
        "last_used_at": seconds_of(record.last_used_us), "expires_at": seconds_of(record.expires_us),
        "owner": {"type": "service_account", "service_account": account},
        "owner_project_access": "active" if is_usable(record, now_us) else "inactive",
    }  # fmt: skip


@router.get("", summary="List projects")
async def list_all(acts: Acts, after: After = "", limit: Limit = 20, include_archived: bool = False) -> dict[str, Any]:
    """Tenants, oldest first; suspended and erased ones only with `include_archived`."""
    statuses = tuple(Status) if include_archived else (Status.ACTIVE,)
    found = await acts.read(
        "tenant.read", lambda c: list_tenants(c, after=after, limit=limit + 1, statuses=statuses)
    )  # fmt: skip
    return list_json([project_json(one) for one in found[:limit]], len(found) > limit)


@router.post("", openapi_extra=body_schema(ProjectBody), summary="Make a project")
async def create(request: Request, acts: Acts) -> dict[str, Any]:
    """A tenant, with weight 1 in the standard tier."""
    body, operator = await read_body(request, ProjectBody), acts.operator
    return project_json(await acts.do(lambda c: operator.create_tenant(c, name=body.name)))


@router.get("/{project_id}", summary="Show a project")
async def show(project_id: str, acts: Acts) -> dict[str, Any]:
    """By id."""
    return project_json(await acts.read("tenant.read", lambda c: find_tenant(c, project_id)))


@router.post("/{project_id}", openapi_extra=body_schema(ProjectBody), summary="Rename a project")
async def update(project_id: str, request: Request, acts: Acts) -> dict[str, Any]:
    """Its name."""
    body, operator = await read_body(request, ProjectBody), acts.operator
    return project_json(
        await acts.do(lambda c: operator.update_tenant(c, name=project_id, changes={"name": body.name}))
    )


@router.post("/{project_id}/archive", summary="Archive a project")
async def archive(project_id: str, acts: Acts) -> dict[str, Any]:
    """Suspends the tenant: its keys are refused and its streams stop. `POST /admin/tenants/{id}/resume` undoes it."""
    return project_json(await acts.do(lambda c: acts.operator.suspend_tenant(c, name=project_id)))


@router.get("/{project_id}/api_keys", summary="List a project's keys")
async def list_project_keys(project_id: str, acts: Acts, after: After = "", limit: Limit = 20) -> dict[str, Any]:
    """The tenant's keys that are no admin's and were not deleted, oldest first."""
    found, now_us = await keys_of(project_id, acts, after, limit), microseconds(acts.desk.clock.now())
    return list_json([key_json(one, now_us) for one in found[:limit]], len(found) > limit)


async def keys_of(project_id: str, acts: Acts, after: str, limit: int) -> list[KeyRecord]:
    """One more than `limit` of a tenant's keys."""
    return await acts.read(
        "key.read",
        lambda c: list_keys(
            c, tenant_id=find_tenant(c, project_id).id, after=after, limit=limit + 1, is_admin=False, is_alive=True
        ),
    )


@router.get("/{project_id}/api_keys/{key_id}", summary="Show a project's key")
async def show_key(project_id: str, key_id: str, acts: Acts) -> dict[str, Any]:
    """By id."""
    record = await found_key(key_id, acts, is_admin=False, tenant_id=project_id)
    return key_json(record, microseconds(acts.desk.clock.now()))


@router.delete("/{project_id}/api_keys/{key_id}", summary="Delete a project's key")
async def delete_key(project_id: str, key_id: str, acts: Acts) -> dict[str, Any]:
    """Revoked, within 2 s on every replica; what it used stays in the books."""
    await found_key(key_id, acts, is_admin=False, tenant_id=project_id)
    await acts.do(lambda c: acts.operator.revoke_key(c, key=key_id))
    return {"object": "organization.project.api_key.deleted", "id": key_id, "deleted": True}


@router.get("/{project_id}/service_accounts", summary="List a project's service accounts")
async def list_accounts(project_id: str, acts: Acts, after: After = "", limit: Limit = 20) -> dict[str, Any]:
    """A service account is a key."""
    found = await keys_of(project_id, acts, after, limit)
    return list_json([account_json(one) for one in found[:limit]], len(found) > limit)


@router.post("/{project_id}/service_accounts", openapi_extra=body_schema(AccountBody), summary="Make a service account")
async def create_account(project_id: str, request: Request, acts: Acts) -> dict[str, Any]:
    """A key of the tenant; `api_key.value` is shown this once."""
    body, operator = await read_body(request, AccountBody), acts.operator
    expires_us = expiry_us(acts, body.expires_in_seconds)
    made = await acts.do(
        lambda c: operator.create_key(
            c, tenant_name=find_tenant(c, project_id).name, name=body.name, expires_us=expires_us
        )
    )
    key = {
        "object": "organization.project.service_account.api_key", "id": made.record.id, "name": made.record.name,
        "value": made.key, "created_at": seconds_of(made.record.created_us),
        "expires_at": seconds_of(made.record.expires_us),
    }  # fmt: skip
    return account_json(made.record) | {"api_key": key}


@router.get("/{project_id}/service_accounts/{key_id}", summary="Show a service account")
async def show_account(project_id: str, key_id: str, acts: Acts) -> dict[str, Any]:
    """By id."""
    return account_json(await found_key(key_id, acts, is_admin=False, tenant_id=project_id))


@router.delete("/{project_id}/service_accounts/{key_id}", summary="Delete a service account")
async def delete_account(project_id: str, key_id: str, acts: Acts) -> dict[str, Any]:
    """Its key is revoked."""
    await delete_key(project_id, key_id, acts)
    return {"object": "organization.project.service_account.deleted", "id": key_id, "deleted": True}


def rate_limit_json(record: TenantRecord) -> dict[str, Any]:
    """A tenant's own limits; null where its tier's hold."""
    return {
        "object": "project.rate_limit", "id": ALL_MODELS, "model": "*",
        "max_requests_per_1_minute": record.limits.requests_per_minute,
        "max_tokens_per_1_minute": record.limits.tokens_per_minute,
    }  # fmt: skip


@router.get("/{project_id}/rate_limits", summary="List a project's rate limits")
async def list_rate_limits(project_id: str, acts: Acts) -> dict[str, Any]:
    """One, for all models together."""
    found = await acts.read("tenant.read", lambda c: find_tenant(c, project_id))
    return list_json([rate_limit_json(found)], False)


@router.post(
    "/{project_id}/rate_limits/{limit_id}", openapi_extra=body_schema(RateLimitBody), summary="Set a rate limit"
)
async def set_rate_limit(project_id: str, limit_id: str, request: Request, acts: Acts) -> dict[str, Any]:
    """It holds for all of the tenant's keys together, within 2 s on every replica."""
    if limit_id != ALL_MODELS:
        raise NotFound(f"limits are a project's, not a model's: the only one is {ALL_MODELS}")
    body, operator = await read_body(request, RateLimitBody), acts.operator
    before = await acts.read("tenant.read", lambda c: find_tenant(c, project_id))
    limits = LimitRule(
        requests_per_minute=body.max_requests_per_1_minute or before.limits.requests_per_minute,
        tokens_per_minute=body.max_tokens_per_1_minute or before.limits.tokens_per_minute,
        concurrent_requests=before.limits.concurrent_requests,
    )
    return rate_limit_json(await acts.do(lambda c: operator.set_tenant_limits(c, name=project_id, limits=limits)))


async def monthly_of(project_id: str, acts: Acts) -> BudgetState:
    """The tenant's own monthly budget, if it binds. Raises NotFound."""
    found = await acts.read(
        "budget.read",
        lambda c: list_budgets(c, clock=acts.desk.clock, tenant_id=find_tenant(c, project_id).id),
    )
    for state in found:
        if state.kind is BudgetKind.MONTHLY and state.key_id is None and state.is_active:
            return state
    raise NotFound("this project has no spend limit")


def spend_limit_json(state: BudgetState) -> dict[str, Any]:
    """A month's budget in cents, rounded down; /admin/budgets shows it exactly."""
    return {
        "object": "project.spend_limit", "threshold_amount": state.limit_nano // NANO_PER_CENT, "currency": "USD",
        "interval": "month", "enforcement": {"status": "enforcing" if state.available_nano <= 0 else "inactive"},
    }  # fmt: skip


@router.get("/{project_id}/spend_limit", summary="Show a project's spend limit")
async def show_spend_limit(project_id: str, acts: Acts) -> dict[str, Any]:
    """Its budget a month. `enforcing`: nothing is left of it, requests are refused."""
    return spend_limit_json(await monthly_of(project_id, acts))


@router.post(
    "/{project_id}/spend_limit", openapi_extra=body_schema(SpendLimitBody), summary="Set a project's spend limit"
)
async def set_spend_limit(project_id: str, request: Request, acts: Acts) -> dict[str, Any]:
    """A budget a calendar month (UTC), never overspent."""
    body, operator = await read_body(request, SpendLimitBody), acts.operator
    limit = body.threshold_amount * NANO_PER_CENT
    return spend_limit_json(
        await acts.do(lambda c: money_acts.put_monthly(c, operator, tenant=project_id, limit_nano=limit))
    )


@router.delete("/{project_id}/spend_limit", summary="Take a project's spend limit away")
async def remove_spend_limit(project_id: str, acts: Acts) -> dict[str, Any]:
    """Its monthly budget binds no new request."""
    state, operator = await monthly_of(project_id, acts), acts.operator
    await acts.do(lambda c: money_acts.drop_budget(c, operator, budget_id=state.id))
    return {"object": "project.spend_limit.deleted", "deleted": True}

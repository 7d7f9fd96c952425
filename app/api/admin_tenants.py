"""The operator's routes for tenants."""

from typing import Any

from fastapi import APIRouter, Request

from app.api.admin_acting import Acts, After, PageSize, page
from app.api.admin_bodies import ErasureBody, LimitsBody, TenantBody, TenantChangeBody, TenantList, TenantShown
from app.api.body import read_body
from app.api.document import body_schema
from app.errors import InvalidRequest
from app.metering import tenants
from app.metering.limits import NO_LIMITS
from app.metering.tenants import tenant_json

router = APIRouter(prefix="/admin/tenants", tags=["admin: tenants"])


@router.post(
    "", status_code=201, response_model=TenantShown, openapi_extra=body_schema(TenantBody), summary="Make a tenant"
)
async def create(request: Request, acts: Acts) -> dict[str, Any]:
    """A tenant pays for its keys; `keys` made for a new name make one too."""
    body = await read_body(request, TenantBody)
    made = await acts.do(
        lambda connection: acts.operator.create_tenant(
            connection, name=body.name, weight=body.weight, tier=body.tier, limits=body.limits.rule()
        )
    )
    return tenant_json(made)


@router.get("", response_model=TenantList, summary="List tenants")
async def list_all(acts: Acts, after: After = "", limit: PageSize = 100) -> dict[str, Any]:
    """Oldest first."""
    found = await acts.read(
        "tenant.read", lambda connection: tenants.list_tenants(connection, after=after, limit=limit + 1)
    )
    return page(found, limit, tenant_json)


@router.get("/{tenant}", response_model=TenantShown, summary="Show a tenant")
async def show(tenant: str, acts: Acts) -> dict[str, Any]:
    """By id or name."""
    return tenant_json(await acts.read("tenant.read", lambda connection: tenants.find_tenant(connection, tenant)))


@router.patch(
    "/{tenant}", response_model=TenantShown, openapi_extra=body_schema(TenantChangeBody), summary="Change a tenant"
)
async def update(tenant: str, request: Request, acts: Acts) -> dict[str, Any]:
    """Its name, weight or tier; what is not sent stays."""
    body = await read_body(request, TenantChangeBody)
    return tenant_json(await acts.do(lambda c: acts.operator.update_tenant(c, name=tenant, changes=body.given())))


@router.get("/{tenant}/limits", response_model=LimitsBody, summary="Show a tenant's own limits")
async def show_limits(tenant: str, acts: Acts) -> dict[str, Any]:
    """Null where its tier's limit holds."""
    return tenant_json(await acts.read("tenant.read", lambda connection: tenants.find_tenant(connection, tenant)))[
        "limits"
    ]


@router.put(
    "/{tenant}/limits",
    response_model=TenantShown,
    openapi_extra=body_schema(LimitsBody),
    summary="Set a tenant's limits",
)
async def set_limits(tenant: str, request: Request, acts: Acts) -> dict[str, Any]:
    """All three are replaced; they hold for all of the tenant's keys together, within 2 s on every replica."""
    body = await read_body(request, LimitsBody)
    return tenant_json(await acts.do(lambda c: acts.operator.set_tenant_limits(c, name=tenant, limits=body.rule())))


@router.delete("/{tenant}/limits", response_model=TenantShown, summary="Take a tenant's own limits away")
async def clear_limits(tenant: str, acts: Acts) -> dict[str, Any]:
    """Its tier's hold again."""
    return tenant_json(await acts.do(lambda c: acts.operator.set_tenant_limits(c, name=tenant, limits=NO_LIMITS)))


@router.post("/{tenant}/suspend", response_model=TenantShown, summary="Suspend a tenant")
async def suspend(tenant: str, acts: Acts) -> dict[str, Any]:
    """Its keys are refused and its streams stop, within 2 s on every replica."""
    return tenant_json(await acts.do(lambda c: acts.operator.suspend_tenant(c, name=tenant)))


@router.post("/{tenant}/resume", response_model=TenantShown, summary="Resume a tenant")
async def resume(tenant: str, acts: Acts) -> dict[str, Any]:
    """Its keys work again."""
    return tenant_json(await acts.do(lambda c: acts.operator.resume_tenant(c, name=tenant)))


@router.post(
    "/{tenant}/erase", response_model=TenantShown, openapi_extra=body_schema(ErasureBody), summary="Erase a tenant"
)
async def erase(tenant: str, request: Request, acts: Acts) -> dict[str, Any]:
    """Forget its names, its keys' names and display forms, and what the audit log said of them; sums stay.

    Its keys are revoked. This cannot be undone.
    """
    body = await read_body(request, ErasureBody)
    record = await acts.read("tenant.erase", lambda connection: tenants.find_tenant(connection, tenant))
    if body.confirm != record.name:
        raise InvalidRequest("confirm must be the tenant's name: what is erased is gone", field="confirm")
    erased = await acts.do(lambda c: acts.operator.erase_tenant(c, name=record.id))
    await acts.desk.database.flush_log()
    return tenant_json(erased)

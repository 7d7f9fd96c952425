"""The operator's routes for keys."""

from typing import Any

from fastapi import APIRouter, Request

from app.api.admin_acting import Acting, Acts, After, OfTenant, PageSize
from app.api.admin_bodies import (
    KeyBody,
    KeyChangeBody,
    KeyList,
    KeyShown,
    LimitsBody,
    NewKeyShown,
    RotationBody,
    ScopesBody,
)
from app.api.body import read_body
from app.api.document import body_schema
from app.metering import keys
from app.metering.keys import key_json
from app.metering.limits import NO_LIMITS
from app.metering.moments import moment_us, span_us

router = APIRouter(prefix="/admin/keys", tags=["admin: keys"])


def tuple_of(values: list[Any] | None) -> tuple[str, ...] | None:
    """A list as the rooms keep it."""
    return None if values is None else tuple(str(value) for value in values)


def scopes_of(body: ScopesBody, acts: Acting) -> dict[str, Any]:
    """The scopes that a body gives, as columns."""
    given = {name: value for name, value in body.given().items() if name in ScopesBody.model_fields}
    scopes: dict[str, Any] = {
        name: tuple_of(given[name]) for name in ("tasks", "models", "networks", "acts") if name in given
    }
    if "expires" in given:
        is_never = body.expires is None
        scopes["expires_us"] = None if is_never else moment_us(body.expires or "", clock=acts.desk.clock)
    return scopes


@router.post("", status_code=201, response_model=NewKeyShown, openapi_extra=body_schema(KeyBody), summary="Make a key")
async def create(request: Request, acts: Acts) -> dict[str, Any]:
    """The answer holds the key, this once."""
    body = await read_body(request, KeyBody)
    scopes = scopes_of(body, acts)
    made = await acts.do(
        lambda connection: acts.operator.create_key(
            connection, tenant_name=body.tenant, name=body.name, is_admin=body.is_admin, limits=body.limits.rule(),
            **scopes,
        )
    )  # fmt: skip
    return {"key": made.key} | key_json(made.record)


@router.get("", response_model=KeyList, summary="List keys")
async def list_all(acts: Acts, after: After = "", limit: PageSize = 100, tenant: OfTenant = None) -> dict[str, Any]:
    """Oldest first, revoked ones too."""
    return await acts.read_page("key.read", keys.list_keys, key_json, tenant=tenant, after=after, limit=limit)


@router.get("/{key}", response_model=KeyShown, summary="Show a key")
async def show(key: str, acts: Acts) -> dict[str, Any]:
    """By id."""
    return key_json(await acts.read("key.read", lambda connection: keys.get_key(connection, key)))


@router.patch("/{key}", response_model=KeyShown, openapi_extra=body_schema(KeyChangeBody), summary="Change a key")
async def update(key: str, request: Request, acts: Acts) -> dict[str, Any]:
    """Its name and scopes; what is not sent stays, null allows all. It holds within 2 s on every replica."""
    body = await read_body(request, KeyChangeBody)
    changes = scopes_of(body, acts) | ({"name": body.name} if "name" in body.model_fields_set else {})
    return key_json(await acts.do(lambda c: acts.operator.update_key(c, key=key, changes=changes)))


@router.post(
    "/{key}/rotate", status_code=201, response_model=NewKeyShown, openapi_extra=body_schema(RotationBody),
    summary="Rotate a key",
)  # fmt: skip
async def rotate(key: str, request: Request, acts: Acts) -> dict[str, Any]:
    """Make a successor with the same rights; the old key lives on for the overlap."""
    body = await read_body(request, RotationBody)
    overlap_us = span_us(body.overlap)
    expires_us = None if body.expires is None else moment_us(body.expires, clock=acts.desk.clock)
    made = await acts.do(lambda c: acts.operator.rotate_key(c, key=key, overlap_us=overlap_us, expires_us=expires_us))
    return {"key": made.key} | key_json(made.record)


@router.post("/{key}/revoke", response_model=KeyShown, summary="Revoke a key")
async def revoke(key: str, acts: Acts) -> dict[str, Any]:
    """Refused from now on, and its streams stop, within 2 s on every replica."""
    return key_json(await acts.do(lambda c: acts.operator.revoke_key(c, key=key)))


@router.get("/{key}/limits", response_model=LimitsBody, summary="Show a key's own limits")
async def show_limits(key: str, acts: Acts) -> dict[str, Any]:
    """Beside these, its tenant's hold."""
    return key_json(await acts.read("key.read", lambda connection: keys.get_key(connection, key)))["limits"]


@router.put(
    "/{key}/limits", response_model=KeyShown, openapi_extra=body_schema(LimitsBody), summary="Set a key's limits"
)
async def set_limits(key: str, request: Request, acts: Acts) -> dict[str, Any]:
    """All three are replaced; they hold within 2 s on every replica."""
    body = await read_body(request, LimitsBody)
    return key_json(await acts.do(lambda c: acts.operator.set_key_limits(c, key=key, limits=body.rule())))


@router.delete("/{key}/limits", response_model=KeyShown, summary="Take a key's own limits away")
async def clear_limits(key: str, acts: Acts) -> dict[str, Any]:
    """Only its tenant's hold."""
    return key_json(await acts.do(lambda c: acts.operator.set_key_limits(c, key=key, limits=NO_LIMITS)))

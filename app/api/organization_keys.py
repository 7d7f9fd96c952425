"""OpenAI's admin API keys: the same keys as /admin/keys shows, in the shape that OpenAI's SDK reads."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.admin_acting import Acts, After
from app.api.body import read_body
from app.api.context import Admin
from app.api.document import body_schema
from app.errors import NotFound
from app.metering.database import microseconds
from app.metering.keys import KeyRecord, get_key, list_keys

router = APIRouter(prefix="/v1/organization/admin_api_keys", tags=["organization"])
SECOND_US = 1_000_000
SECONDS_MAX = 100 * 366 * 86_400
Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]


class AdminKeyBody(BaseModel):
    """A key for an operator; it may do what the key that makes it may do."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "ci"}]})

    name: str
    expires_in_seconds: int | None = Field(default=None, ge=1, le=SECONDS_MAX, description="None: it does not expire.")


def seconds_of(moment_us: int | None) -> int | None:
    """A moment as OpenAI tells it."""
    return None if moment_us is None else moment_us // SECOND_US


def expiry_us(acts: Acts, seconds: int | None) -> int | None:
    """The moment that lies so many seconds from now."""
    return None if seconds is None else microseconds(acts.desk.clock.now()) + seconds * SECOND_US


def admin_key_json(record: KeyRecord) -> dict[str, Any]:
    """An admin key in OpenAI's words; its owner is the tenant that it belongs to."""
    return {
        "object": "organization.admin_api_key", "id": record.id, "name": record.name, "redacted_value": record.display,
        "created_at": seconds_of(record.created_us), "expires_at": seconds_of(record.expires_us),
        "last_used_at": seconds_of(record.last_used_us),
        "owner": {
            "type": "user", "object": "organization.user", "id": record.tenant_id, "name": record.tenant,
            "role": "owner", "created_at": None,
        },
    }  # fmt: skip


def list_json(shown: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """OpenAI's page."""
    first, last = (shown[0]["id"], shown[-1]["id"]) if shown else (None, None)
    return {"object": "list", "data": shown, "has_more": has_more, "first_id": first, "last_id": last}


async def found_key(key_id: str, acts: Acts, *, is_admin: bool, tenant_id: str | None = None) -> KeyRecord:
    """A key that was not deleted. Raises NotFound also for one of another kind or tenant."""
    record = await acts.read("key.read", lambda c: get_key(c, key_id))
    is_other = record.is_admin is not is_admin or (tenant_id is not None and record.tenant_id != tenant_id)
    if is_other or record.revoked_us is not None:
        raise NotFound(f"there is no key {key_id!r} here")
    return record


@router.get("", summary="List admin keys")
async def list_all(
    acts: Acts, after: After = "", limit: Limit = 20, order: Literal["asc", "desc"] = "asc"
) -> dict[str, Any]:
    """By the time at which they were made; deleted ones are left out."""
    found = await acts.read(
        "key.read",
        lambda c: list_keys(
            c, after=after, limit=limit + 1, is_admin=True, is_alive=True, is_newest_first=order == "desc"
        ),
    )
    return list_json([admin_key_json(one) for one in found[:limit]], len(found) > limit)


@router.post("", openapi_extra=body_schema(AdminKeyBody), summary="Make an admin key")
async def create(request: Request, acts: Acts, principal: Admin) -> dict[str, Any]:
    """In the caller's tenant, with the caller's acts. `value` is shown this once."""
    body = await read_body(request, AdminKeyBody)
    expires_us, operator = expiry_us(acts, body.expires_in_seconds), acts.operator
    made = await acts.do(
        lambda c: operator.create_key(
            c, tenant_name=principal.tenant, name=body.name, is_admin=True, acts=principal.acts, expires_us=expires_us
        )
    )
    return admin_key_json(made.record) | {"value": made.key}


@router.get("/{key_id}", summary="Show an admin key")
async def show(key_id: str, acts: Acts) -> dict[str, Any]:
    """By id."""
    return admin_key_json(await found_key(key_id, acts, is_admin=True))


@router.delete("/{key_id}", summary="Delete an admin key")
async def delete(key_id: str, acts: Acts) -> dict[str, Any]:
    """Revoked: refused from now on, within 2 s on every replica; its uses stay in the books."""
    await found_key(key_id, acts, is_admin=True)
    await acts.do(lambda c: acts.operator.revoke_key(c, key=key_id))
    return {"object": "organization.admin_api_key.deleted", "id": key_id, "deleted": True}

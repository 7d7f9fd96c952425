"""The operator's routes for the audit log."""

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.api.admin_acting import Acts, PageSize
from app.api.admin_bodies import AuditList, AuditVerdict
from app.metering import audit

router = APIRouter(prefix="/admin/audit", tags=["admin: audit"])


@router.get("", response_model=AuditList, summary="List acts")
async def list_all(
    acts: Acts, limit: PageSize = 100,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="The last number of the page before.")] = 0,
    tenant: Annotated[str | None, Query(description="Only what concerns this tenant: its id or name.")] = None,
) -> dict[str, Any]:  # fmt: skip
    """Every act of an operator, oldest first: who, what, before and after."""
    return await acts.read_page("audit.read", audit.list_audit, dict, tenant=tenant, after=after, limit=limit)


@router.get("/verify", response_model=AuditVerdict, summary="Verify the audit log")
async def verify(
    acts: Acts, head: Annotated[str | None, Query(description="A head that was noted earlier.")] = None
) -> dict[str, Any]:
    """Walk the chain: a row that was changed, removed or put in is named."""
    pepper = acts.desk.pepper
    verdict = await acts.read("audit.read", lambda c: audit.verify(c, pepper=pepper, head=head))
    return dataclasses.asdict(verdict) | {"is_sound": verdict.is_sound}

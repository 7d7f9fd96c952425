"""The operator's routes for the ledger: its entries, and whether the books balance."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from app.api.admin_acting import Acts
from app.metering.invoices import csv_text
from app.metering.ledger import SHOWN, list_entries
from app.metering.moments import instant_us
from app.metering.prices import tenant_id_of
from app.metering.verify import balance

router = APIRouter(prefix="/admin/usage", tags=["admin: usage"])
ENTRIES_MAX = 10_000
Moment = Annotated[str | None, Query(description="ISO 8601, UTC if it names no zone.")]


@router.get("/entries", responses={200: {"content": {"text/csv": {}}}}, summary="List the ledger's entries")
async def entries(
    acts: Acts, tenant: Annotated[str | None, Query(description="Only this tenant's: its id or name.")] = None,
    model: str | None = None, start: Annotated[Moment, Query(alias="from")] = None, until: Moment = None,
    limit: Annotated[int, Query(ge=1, le=ENTRIES_MAX, description="The newest so many.")] = 1000,
    form: Annotated[Literal["json", "csv"], Query(alias="format")] = "json",
) -> Response:  # fmt: skip
    """An entry a request, oldest first, from `from` until before `until`."""
    from_us, until_us = (None if text is None else instant_us(text) for text in (start, until))
    found = await acts.read(
        "usage.read",
        lambda c: list_entries(
            c, tenant_id=None if tenant is None else tenant_id_of(c, tenant), model=model, from_us=from_us,
            until_us=until_us, limit=limit,
        ),
    )  # fmt: skip
    if form == "csv":
        columns = ("request_id", "occurred_at", "tenant", "key_name", *SHOWN)
        return PlainTextResponse(csv_text(found, columns), media_type="text/csv")
    return JSONResponse({"object": "list", "data": found})


@router.get("/verify", summary="Do the books balance")
async def verify(acts: Acts) -> dict[str, Any]:
    """Entries, sums, budgets and holds against each other. It reads the whole ledger: call it in quiet hours."""
    found = await acts.read("usage.read", balance)
    return {"balanced": not found, "drifts": found}

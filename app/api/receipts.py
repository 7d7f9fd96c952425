"""Receipts: what a request cost, in headers, and later by its id."""

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from app.api.admin_acting import acting
from app.api.context import Caller, Rooms
from app.errors import NotFound
from app.metering.ledger import Receipt, find_receipt
from app.metering.money import decimal_text


def cost_headers(receipt: Receipt) -> dict[str, str]:
    """Cost, and what is left in the tightest budget: exact decimal numbers of the currency."""
    headers = {
        "x-tollgate-cost": decimal_text(receipt.cost_nano), "x-tollgate-currency": receipt.currency,
        "x-tollgate-input-tokens": str(receipt.input_tokens), "x-tollgate-output-tokens": str(receipt.output_tokens),
    }  # fmt: skip
    if receipt.balance_nano is not None:
        headers["x-tollgate-balance"] = decimal_text(receipt.balance_nano)
    return headers


class Cancellation(BaseModel):
    """What became of the wish."""

    id: str
    object: Literal["request.cancellation"] = "request.cancellation"
    status: Literal["cancelling", "ended"] = Field(description="ended: it was over before; its receipt says how.")


router = APIRouter(prefix="/v1", tags=["usage"])


@router.get("/requests/{request_id}", summary="What a request cost")
async def show_request(request_id: str, principal: Caller, serving: Rooms) -> dict[str, Any]:
    """The receipt of one of this account's requests: its entry in the ledger, or what is held while it runs."""
    found = await serving.books.database.run(
        lambda connection: find_receipt(
            connection, request_id=request_id[:40], tenant_id=principal.tenant_id, clock=serving.clock
        )
    )
    if found is None:
        raise NotFound("There is no such request of yours; the header x-tollgate-request-id of an answer tells its id.")
    return found


@router.post("/requests/{request_id}/cancel", response_model=Cancellation, summary="End a request that runs")
async def cancel_request(request: Request, request_id: str, principal: Caller, serving: Rooms) -> dict[str, Any]:
    """A generation ends where it is, with its usage; any other task's request is refused as `request_cancelled`.

    A key ends requests of its own account, an admin's key those of any. One that another process serves ends within
    half a second.
    """
    wanted, tenant_id = request_id[:40], principal.tenant_id
    if principal.is_admin:
        await (await acting(request, principal)).note("request.cancel", wanted, {})
        tenant_id = None
    is_running = await serving.cancel(wanted, tenant_id=tenant_id)
    return {"id": wanted, "status": "cancelling" if is_running else "ended"}

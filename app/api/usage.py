"""Usage: a customer's own, and the operator's in the shape that OpenAI's SDK reads."""

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from app.api.admin_acting import Acts
from app.api.context import Caller, Rooms
from app.errors import InvalidRequest
from app.metering.budgets import balance_nano
from app.metering.database import microseconds
from app.metering.invoices import as_csv, as_page, csv_text, invoice
from app.metering.ledger import SHOWN, list_entries
from app.metering.money import NANO, decimal_text
from app.metering.usage import WIDTHS, Bucket, Chosen, buckets
from app.registry.model import TaskName

SECOND_US = 1_000_000
LIMITS = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}
"""Buckets a page: the default, and the most."""
COSTS_MAX = 180
TASKS = {
    "completions": TaskName.GENERATION, "classifications": TaskName.CLASSIFICATION,
    "translations": TaskName.TRANSLATION, "answers": TaskName.ANSWERING, "embeddings": TaskName.EMBEDDING,
}  # fmt: skip
NOT_SOLD = frozenset(
    {
        "decisions", "moderations", "images", "audio_speeches", "audio_transcriptions",
        "vector_stores", "code_interpreter_sessions", "file_search_calls", "web_search_calls",
    }
)  # fmt: skip
"""Kinds that OpenAI has and Tollgate does not sell: their buckets are empty."""
COLUMN_OF = {"project_id": "tenant_id", "api_key_id": "key_id", "model": "model"}
NO_COLUMN = frozenset({"user_id", "batch", "service_tier", "api_source"})
Width = Literal["1m", "1h", "1d"]


def listed(request: Request, name: str) -> list[str]:
    """A list in a query, as SDKs send it: `name=a&name=b`, `name[]=a`, or `name=a,b`."""
    found = [*request.query_params.getlist(name), *request.query_params.getlist(f"{name}[]")]
    return [one for text in found for one in text.split(",") if one]


class Asked:
    """The query that all of OpenAI's usage routes share: seconds since 1970, and a page that is a bucket's start."""

    def __init__(
        self, request: Request, serving: Rooms, start_time: Annotated[int, Query(ge=0, lt=10**11)],
        end_time: Annotated[int | None, Query(ge=0, lt=10**11)] = None, bucket_width: Width = "1d",
        limit: Annotated[int | None, Query(ge=1)] = None, page: str | None = None,
    ) -> None:  # fmt: skip
        if page is not None and not re.fullmatch(r"\d{1,20}", page):
            raise InvalidRequest("page is what next_page said", field="page")
        self.width = bucket_width
        self.group_by = listed(request, "group_by")
        self.chosen = Chosen(
            tenant_ids=listed(request, "project_ids"), key_ids=listed(request, "api_key_ids"),
            models=listed(request, "models"),
        )  # fmt: skip
        now_us = microseconds(serving.clock.now())
        self.start_us = start_time * SECOND_US if page is None else int(page)
        self.end_us = now_us if end_time is None else end_time * SECOND_US
        self.limit = limit

    def span(self, default: int, most: int) -> tuple[int, int, bool]:
        """Where this page's buckets begin and end, and whether there are more."""
        count = min(self.limit or default, most)
        length_us = WIDTHS[self.width][2]
        first_us = self.start_us - self.start_us % length_us
        last_us = min(self.end_us, first_us + count * length_us)
        return first_us, last_us, last_us < self.end_us

    def columns(self, allowed: dict[str, str]) -> list[str]:
        """The columns grouped by. Raises InvalidRequest for a word that is none of OpenAI's."""
        for name in self.group_by:
            if name not in allowed and name not in NO_COLUMN:
                raise InvalidRequest(f"group_by takes {', '.join([*allowed, *sorted(NO_COLUMN)])}", field="group_by")
        return list(dict.fromkeys(allowed[name] for name in self.group_by if name in allowed))


AskedDep = Annotated[Asked, Depends(Asked)]


def page_json(found: list[dict[str, Any]], *, last_us: int, has_more: bool) -> dict[str, Any]:
    """OpenAI's page."""
    return {"object": "page", "data": found, "has_more": has_more, "next_page": str(last_us) if has_more else None}


def bucket_json(bucket: Bucket, results: list[dict[str, Any]]) -> dict[str, Any]:
    """OpenAI's bucket."""
    return {
        "object": "bucket", "start_time": bucket.start_us // SECOND_US, "end_time": bucket.end_us // SECOND_US,
        "results": results,
    }  # fmt: skip


AS_CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {}}}}
router = APIRouter(prefix="/v1", tags=["usage"])


@router.get("/organization/usage/{kind}", summary="Usage of all accounts, in OpenAI's shape")
async def organization_usage(kind: str, asked: AskedDep, acts: Acts) -> dict[str, Any]:
    """Buckets of completions, classifications, translations or answers. Needs an admin key that may `usage.read`."""
    if kind not in TASKS and kind not in NOT_SOLD:
        raise InvalidRequest(f"there is usage of {', '.join(TASKS)}", field="kind")
    first_us, last_us, has_more = asked.span(*LIMITS[asked.width])
    columns = asked.columns(COLUMN_OF)
    chosen = asked.chosen
    chosen = Chosen(
        tenant_ids=chosen.tenant_ids, key_ids=chosen.key_ids, models=chosen.models,
        tasks=(TASKS[kind].value if kind in TASKS else "none",),
    )  # fmt: skip
    found = await acts.read(
        "usage.read",
        lambda connection: buckets(
            connection, width=asked.width, start_us=first_us, end_us=last_us, chosen=chosen, group_by=columns
        ),
    )
    data = [bucket_json(bucket, [usage_result(kind, row) for row in bucket.sums]) for bucket in found]
    return page_json(data, last_us=last_us, has_more=has_more)


def usage_result(kind: str, row: dict[str, Any]) -> dict[str, Any]:
    """A group's usage."""
    return {
        "object": f"organization.usage.{kind}.result", "input_tokens": row["input_tokens"],
        "output_tokens": row["output_tokens"], "input_cached_tokens": row["cached_tokens"],
        "num_model_requests": row["requests"], "characters": row["characters"], "project_id": row.get("tenant_id"),
        "api_key_id": row.get("key_id"), "model": row.get("model"), "user_id": None, "batch": None,
        "service_tier": None,
    }  # fmt: skip


@router.get("/organization/costs", summary="Costs of all accounts, in OpenAI's shape")
async def organization_costs(asked: AskedDep, acts: Acts) -> dict[str, Any]:
    """Costs a day. `amount.value` is a float, as OpenAI's is; `amount.nano` is exact."""
    asked.width = "1d"
    first_us, last_us, has_more = asked.span(LIMITS["1d"][0], COSTS_MAX)
    columns = asked.columns({"project_id": "tenant_id", "api_key_id": "key_id", "line_item": "model"})
    found = await acts.read(
        "usage.read",
        lambda connection: buckets(
            connection, width="1d", start_us=first_us, end_us=last_us, chosen=asked.chosen, group_by=columns
        ),
    )
    data = [bucket_json(bucket, [cost_result(row) for row in bucket.sums]) for bucket in found]
    return page_json(data, last_us=last_us, has_more=has_more)


def cost_result(row: dict[str, Any]) -> dict[str, Any]:
    """A group's cost."""
    cost = row["cost_nano"]
    return {
        "object": "organization.costs.result",
        "amount": {"value": cost / NANO, "currency": "usd", "nano": cost}, "line_item": row.get("model"),
        "project_id": row.get("tenant_id"), "api_key_id": row.get("key_id"),
    }  # fmt: skip


@router.get(
    "/organization/invoices/{tenant}/{month}", responses={200: {"content": {"text/csv": {}, "text/html": {}}}},
    summary="A tenant's month as an invoice",
)  # fmt: skip
async def show_invoice(
    tenant: str, month: str, acts: Acts, serving: Rooms, request: Request,
    form: Annotated[Literal["json", "csv", "html"], Query(alias="format")] = "json",
) -> Response:  # fmt: skip
    """JSON, CSV, or a page to print."""
    now = serving.clock.now()
    issuer = request.app.state.settings.metering.issuer
    found = await acts.read("usage.read", lambda c: invoice(c, tenant_name=tenant, month=month, now=now, issuer=issuer))
    if form == "json":
        return JSONResponse(found)
    media_type = "text/csv" if form == "csv" else "text/html"
    return Response(as_csv(found) if form == "csv" else as_page(found), media_type=media_type)


@router.get("/usage", summary="What this account used")
async def own_usage(asked: AskedDep, principal: Caller, serving: Rooms) -> dict[str, Any]:
    """Sums by model, task and key in buckets of a minute, an hour or a day, and what is left in the budgets."""
    first_us, last_us, has_more = asked.span(*LIMITS[asked.width])
    columns, now_us = ("model", "task", "key_id"), microseconds(serving.clock.now())
    chosen = Chosen(tenant_ids=(principal.tenant_id,), key_ids=asked.chosen.key_ids, models=asked.chosen.models)
    found, left = await serving.books.database.run(
        lambda connection: (
            buckets(connection, width=asked.width, start_us=first_us, end_us=last_us, chosen=chosen, group_by=columns),
            balance_nano(connection, tenant_id=principal.tenant_id, key_id=principal.key_id, at_us=now_us),
        )
    )
    data = [
        bucket_json(bucket, [row | {"cost": decimal_text(row["cost_nano"])} for row in bucket.sums]) for bucket in found
    ]
    balance = None if left is None else decimal_text(left)
    return page_json(data, last_us=last_us, has_more=has_more) | {"currency": "USD", "balance": balance}


@router.get("/usage/entries", responses=AS_CSV, summary="This account's entries")
async def own_entries(
    asked: AskedDep, principal: Caller, serving: Rooms,
    form: Annotated[Literal["json", "csv"], Query(alias="format")] = "json",
) -> Response:  # fmt: skip
    """The ledger's entries of a stretch of time, the newest 10,000 at most, as JSON or CSV."""
    found = await serving.books.database.run(
        lambda connection: list_entries(
            connection, tenant_id=principal.tenant_id, from_us=asked.start_us, until_us=asked.end_us,
            limit=min(asked.limit or 10_000, 10_000),
        )
    )  # fmt: skip
    if form == "csv":
        columns = ("request_id", "occurred_at", "key_name", *SHOWN)
        return PlainTextResponse(csv_text(found, columns), media_type="text/csv")
    return JSONResponse({"object": "list", "data": found})

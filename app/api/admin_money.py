"""The operator's routes for prices, budgets and top-ups."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse

from app.api.admin_acting import Acts, After, OfTenant, PageSize
from app.api.admin_money_bodies import (
    BudgetBody,
    BudgetList,
    BudgetShown,
    MadeTopUpShown,
    PresentPrices,
    PriceBody,
    PriceList,
    TopUpBody,
    TopUpList,
)
from app.api.body import read_body
from app.api.document import body_schema
from app.errors import InvalidRequest
from app.metering import money_acts
from app.metering.balances import budget_json, get_budget, list_top_ups
from app.metering.budgets import list_budgets
from app.metering.database import microseconds, moment_of
from app.metering.moments import instant_us
from app.metering.money import nano_of, per_million_text, pico_of
from app.metering.prices import list_prices, prices_of, tenant_id_of
from app.registry.model import TaskName

router = APIRouter(prefix="/admin", tags=["admin: money"])
NO_KEY = "a top-up needs the header Idempotency-Key: the payment's id, say; a retry with it moves no money twice"


def nano_from(text: str, field: str) -> int:
    """An amount. Raises InvalidRequest naming the field."""
    try:
        return nano_of(text)
    except ValueError as cause:
        raise InvalidRequest(f"{field}: {cause}", field=field) from cause


def pico_from(body: PriceBody) -> int:
    """The one price that a body gives. Raises InvalidRequest."""
    given = [body.per_million is not None, body.pico_per_unit is not None, body.free]
    if sum(given) != 1:
        raise InvalidRequest("give one of per_million, pico_per_unit and free", field="per_million")
    if body.free or body.pico_per_unit is not None:
        return body.pico_per_unit or 0
    try:
        return pico_of(body.per_million or "")
    except ValueError as cause:
        raise InvalidRequest(f"per_million: {cause}", field="per_million") from cause


@router.post(
    "/prices", status_code=201, response_model=PriceList, openapi_extra=body_schema(PriceBody), summary="Set a price"
)
async def set_price(request: Request, acts: Acts) -> dict[str, Any]:
    """From a moment on; entries keep the price that they were made at. The answer lists what was set."""
    body = await read_body(request, PriceBody)
    pico, operator, meter = pico_from(body), acts.operator, body.meter
    scope: dict[str, Any] = {
        "model": body.model, "task": body.task.value, "tenant": body.tenant,
        "effective_us": None if body.start is None else instant_us(body.start),
    }  # fmt: skip
    if meter is None:
        if not body.free:
            raise InvalidRequest("say what is sold: input_token, output_token, character or request", field="meter")
        return {"data": await acts.do(lambda c: money_acts.put_free(c, operator, **scope))}
    made = await acts.do(lambda c: money_acts.put_price(c, operator, meter=meter, pico_per_unit=pico, **scope))
    return {"data": [made]}


@router.get("/prices", response_model=PriceList, summary="List prices")
async def list_all_prices(
    acts: Acts, after: After = "", limit: PageSize = 100, model: str | None = None, task: TaskName | None = None,
    tenant: Annotated[str | None, Query(description="What this tenant pays: its own and the common ones.")] = None,
) -> dict[str, Any]:  # fmt: skip
    """Every price ever set, in that order; `state` says which hold."""
    return await acts.read_page(
        "price.read", list_prices, dict, tenant=tenant, after=after, limit=limit, clock=acts.desk.clock, model=model,
        task=None if task is None else task.value,
    )  # fmt: skip


@router.get("/prices/present", response_model=PresentPrices, summary="What a model costs at a moment")
async def present_prices(
    acts: Acts, model: str, task: TaskName,
    tenant: Annotated[str | None, Query(description="For this tenant: its own prices go first.")] = None,
    at: Annotated[str | None, Query(description="ISO 8601; default: now.")] = None,
) -> dict[str, Any]:  # fmt: skip
    """By meter; what is not named costs nothing, and a model with no price at all is refused."""
    at_us = microseconds(acts.desk.clock.now()) if at is None else instant_us(at)
    found = await acts.read(
        "price.read",
        lambda c: prices_of(
            c, model=model, task=task.value, at_us=at_us, tenant_id=None if tenant is None else tenant_id_of(c, tenant)
        ),
    )
    return {
        "model": model, "task": task.value, "tenant": tenant, "at": moment_of(at_us).isoformat(timespec="seconds"),
        "pico_per_unit": found, "per_million": {meter: per_million_text(pico) for meter, pico in found.items()},
    }  # fmt: skip


@router.put(
    "/budgets", response_model=BudgetShown, openapi_extra=body_schema(BudgetBody), summary="Set a month's limit"
)
async def set_budget(request: Request, acts: Acts) -> dict[str, Any]:
    """What may be spent a calendar month (UTC), from this month on; requests never pass it together."""
    body = await read_body(request, BudgetBody)
    limit, operator = nano_from(body.monthly, "monthly"), acts.operator
    if limit < 0:
        raise InvalidRequest("a limit is at least 0", field="monthly")
    return budget_json(
        await acts.do(lambda c: money_acts.put_monthly(c, operator, tenant=body.tenant, limit_nano=limit, key=body.key))
    )


@router.get("/budgets", response_model=BudgetList, summary="List budgets")
async def list_all_budgets(
    acts: Acts, after: After = "", limit: PageSize = 100, tenant: OfTenant = None
) -> dict[str, Any]:
    """Balances and months as they stand: limit, spent, held by running requests, available."""
    return await acts.read_page(
        "budget.read", list_budgets, budget_json, tenant=tenant, after=after, limit=limit, clock=acts.desk.clock
    )


@router.get("/budgets/{budget_id}", response_model=BudgetShown, summary="Show a budget")
async def show_budget(budget_id: str, acts: Acts) -> dict[str, Any]:
    """As it stands now."""
    clock = acts.desk.clock
    return budget_json(await acts.read("budget.read", lambda c: get_budget(c, clock=clock, budget_id=budget_id)))


@router.delete("/budgets/{budget_id}", response_model=BudgetShown, summary="Take a budget away")
async def remove_budget(budget_id: str, acts: Acts) -> dict[str, Any]:
    """It binds no new request; what was spent stays in the books."""
    operator = acts.operator
    return budget_json(await acts.do(lambda c: money_acts.drop_budget(c, operator, budget_id=budget_id)))


@router.post(
    "/top-ups", status_code=201, response_model=MadeTopUpShown, openapi_extra=body_schema(TopUpBody),
    responses={200: {"description": "A retry: it was made before.", "model": MadeTopUpShown}},
    summary="Top a balance up",
)  # fmt: skip
async def top_up(
    request: Request, acts: Acts,
    idempotency_key: Annotated[
        str | None, Header(max_length=255, description="Required; kept for ever, so a retry moves no money twice.")
    ] = None,
) -> JSONResponse:  # fmt: skip
    """The first top-up makes the balance: from then on requests need it. 201 the first time, 200 for a retry."""
    if not idempotency_key:
        raise InvalidRequest(NO_KEY, field="Idempotency-Key")
    body = await read_body(request, TopUpBody)
    amount, operator = nano_from(body.amount, "amount"), acts.operator
    made = await acts.do(
        lambda c: money_acts.put_money(
            c, operator, tenant=body.tenant, amount_nano=amount, note=body.note, key=body.key,
            reference=idempotency_key,
        )
    )  # fmt: skip
    if made["is_new"]:
        return JSONResponse(made, 201)
    return JSONResponse(made, 200, {"idempotency-replayed": "true"})


@router.get("/top-ups", response_model=TopUpList, summary="List top-ups")
async def list_all_top_ups(
    acts: Acts, after: After = "", limit: PageSize = 100, tenant: OfTenant = None
) -> dict[str, Any]:
    """Oldest first."""
    return await acts.read_page("budget.read", list_top_ups, dict, tenant=tenant, after=after, limit=limit)

"""What the admin routes about money read and show. Amounts are exact decimal texts; numbers are refused: no floats."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.admin_bodies import AdminBody
from app.metering.money import Meter
from app.registry.model import TaskName

Amount = Annotated[str, Field(max_length=40, description="A decimal number of US dollars.", examples=["25.00"])]
PRICE: dict[str, Any] = {
    "id": "price_019aef…", "tenant": None, "model": "gpt2", "task": "text-generation", "meter": "output_token",
    "pico_per_unit": 600_000, "per_million": "0.6", "effective_at": "2026-12-01T00:00:00+00:00", "state": "to_come",
}  # fmt: skip
BUDGET: dict[str, Any] = {
    "id": "budget_019aef…", "tenant_id": "tenant_019aef…", "tenant": "acme", "key_id": None, "key_name": None,
    "kind": "monthly", "from": "2026-11-01", "limit": "25", "spent": "3.2", "held": "0", "available": "21.8",
    "limit_nano": 25_000_000_000, "spent_nano": 3_200_000_000, "held_nano": 0, "available_nano": 21_800_000_000,
    "active": True,
}  # fmt: skip
TOP_UP: dict[str, Any] = {
    "id": "topup_019aef…", "budget_id": "budget_019aef…", "tenant_id": "tenant_019aef…", "tenant": "acme",
    "key_name": None, "amount": "10", "amount_nano": 10_000_000_000, "note": "invoice 17",
    "at": "2026-11-24T07:00:00+00:00",
}  # fmt: skip


class PriceBody(AdminBody):
    """A price, `per_million` units or exact in `pico_per_unit`; or `free`: nothing, on purpose."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"model": "gpt2", "task": "text-generation", "meter": "output_token", "per_million": "0.60"},
                {"model": "gpt2", "task": "text-generation", "free": True},
            ]
        },
    )

    model: str = Field(min_length=1, max_length=200)
    task: TaskName
    meter: Meter | None = Field(default=None, description="What is sold; with `free` only this, and else everything.")
    per_million: Amount | None = None
    pico_per_unit: int | None = Field(default=None, ge=0, lt=2**63, strict=True)
    free: bool = False
    tenant: str | None = Field(default=None, description="Only for this tenant: its id or name.")
    start: str | None = Field(default=None, alias="from", description="From this moment on, ISO 8601; default: now.")


class PriceShown(BaseModel):
    """A price."""

    model_config = ConfigDict(json_schema_extra={"examples": [PRICE]})

    id: str
    tenant: str | None
    model: str
    task: str
    meter: str
    pico_per_unit: int
    per_million: str
    effective_at: str
    state: Literal["in_force", "to_come", "past"]


class PriceList(BaseModel):
    """Prices in the order in which they were set."""

    object: Literal["list"] = "list"
    data: list[PriceShown]
    has_more: bool = False


class PresentPrices(BaseModel):
    """What a tenant pays at a moment: pico-units per unit, by meter. Without any, requests are refused."""

    model: str
    task: str
    tenant: str | None
    at: str
    pico_per_unit: dict[str, int]
    per_million: dict[str, str]


class BudgetBody(AdminBody):
    """What a tenant, or one of its keys, may spend a calendar month."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"tenant": "acme", "monthly": "25.00"}]})

    tenant: str = Field(description="Its id or name.")
    key: str | None = Field(default=None, description="Only for this key of the tenant: its id or name.")
    monthly: Amount


class TopUpBody(AdminBody):
    """Money for a prepaid balance; below 0 it is a correction."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"tenant": "acme", "amount": "10", "note": "invoice 17"}]}
    )

    tenant: str = Field(description="Its id or name.")
    key: str | None = Field(default=None, description="Only for this key of the tenant: its id or name.")
    amount: Amount
    note: str = Field(default="", max_length=200, description="Why, for the books.")


class BudgetShown(BaseModel):
    """A budget as it stands."""

    model_config = ConfigDict(json_schema_extra={"examples": [BUDGET]}, populate_by_name=True)

    id: str
    tenant_id: str
    tenant: str
    key_id: str | None
    key_name: str | None
    kind: Literal["prepaid", "monthly"]
    start: str | None = Field(alias="from")
    limit: str
    spent: str
    held: str
    available: str
    limit_nano: int
    spent_nano: int
    held_nano: int
    available_nano: int
    active: bool


class BudgetList(BaseModel):
    """Budgets, oldest first."""

    object: Literal["list"] = "list"
    data: list[BudgetShown]
    has_more: bool


class TopUpShown(BaseModel):
    """A top-up."""

    model_config = ConfigDict(json_schema_extra={"examples": [TOP_UP]})

    id: str
    budget_id: str
    tenant_id: str
    tenant: str
    key_name: str | None
    amount: str
    amount_nano: int
    note: str
    at: str


class MadeTopUpShown(TopUpShown):
    """A top-up, and what the balance has now."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [TOP_UP | {"is_new": True, "available_nano": 10_000_000_000}]}
    )

    is_new: bool = Field(description="False when this Idempotency-Key had done it before: nothing moved now.")
    available_nano: int


class TopUpList(BaseModel):
    """Top-ups, oldest first."""

    object: Literal["list"] = "list"
    data: list[TopUpShown]
    has_more: bool

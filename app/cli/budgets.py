"""tollgate budgets: set, topup, show, remove."""

import json
from typing import Annotated, Any

import typer

from app.cli.context import operator, read
from app.clock import SystemClock
from app.metering.acts import noting
from app.metering.budgets import BudgetState, add_money, list_budgets, set_monthly
from app.metering.budgets import remove as remove_budget
from app.metering.database import moment_of
from app.metering.money import decimal_text, nano_of

app = typer.Typer(no_args_is_help=True, help="Budgets: prepaid balances and limits a month, never overspent.")
Tenant = Annotated[str, typer.Option(help="Whose budget it is.")]
Key = Annotated[str | None, typer.Option(help="Only for this key of the tenant: its id or name.")]


def amount_of(text: str) -> int:
    """A decimal number in nano-units."""
    try:
        return nano_of(text)
    except ValueError as cause:
        raise typer.BadParameter(str(cause)) from cause


def plain(state: BudgetState) -> dict[str, Any]:
    """A budget as JSON shows it: exact decimal numbers."""
    return {
        "id": state.id, "tenant": state.tenant, "key_name": state.key, "kind": state.kind.value,
        "from": None if state.window_us == 0 else moment_of(state.window_us).date().isoformat(),
        "limit": decimal_text(state.limit_nano), "spent": decimal_text(state.spent_nano),
        "held": decimal_text(state.held_nano), "available": decimal_text(state.available_nano),
        "active": state.is_active,
    }  # fmt: skip


@app.command("set")
def set_one(
    tenant: Tenant,
    monthly: Annotated[str, typer.Option(help="At most so much a calendar month (UTC), such as 25.00.")],
    key: Key = None,
) -> None:
    """Limit what may be spent a month, from this month on."""
    limit = amount_of(monthly)
    if limit < 0:
        raise typer.BadParameter("a limit is at least 0")
    budget_id = read(
        noting(
            operator(),
            lambda connection: set_monthly(
                connection, clock=SystemClock(), tenant_name=tenant, limit_nano=limit, key=key
            ),
            act="budget.set", details={"limit_nano": limit},
        )
    )  # fmt: skip
    typer.echo(f"{budget_id}: {key or tenant} may spend {decimal_text(limit)} a month")


@app.command()
def topup(
    tenant: Tenant,
    amount: Annotated[str, typer.Option(help="How much; below 0 it is a correction.")],
    note: Annotated[str, typer.Option(help="Why, for the books.")] = "",
    key: Key = None,
) -> None:
    """Add to a prepaid balance. The first top-up makes the balance: from then on requests need it."""
    nano = amount_of(amount)
    budget_id = read(
        noting(
            operator(),
            lambda connection: add_money(
                connection, clock=SystemClock(), tenant_name=tenant, amount_nano=nano, note=note[:200], key=key
            ),
            act="budget.topup", details={"amount_nano": nano},
        )
    )  # fmt: skip
    typer.echo(f"{budget_id}: {decimal_text(nano)} for {key or tenant}")


@app.command()
def show(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show every budget as it stands."""
    found = [plain(state) for state in read(lambda connection: list_budgets(connection, clock=SystemClock()))]
    if as_json:
        typer.echo(json.dumps(found))
        return
    for one in found:
        whose = one["tenant"] + (f"/{one['key_name']}" if one["key_name"] else "")
        state = f"{one['available']} left of {one['limit']} ({one['spent']} spent, {one['held']} held)"
        typer.echo(f"{one['id']}  {whose}  {one['kind']}: {state}{'' if one['active'] else ', binds nobody'}")


@app.command()
def remove(budget_id: Annotated[str, typer.Argument(help="The budget's id.")]) -> None:
    """Let a budget bind no new request; what was spent stays in the books."""
    read(
        noting(
            operator(),
            lambda connection: remove_budget(connection, budget_id=budget_id),
            act="budget.remove",
            details={},
        )
    )
    typer.echo(f"{budget_id} binds nobody any more.")

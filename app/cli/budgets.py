"""tollgate budgets: set, topup, show, topups, remove."""

import json
from typing import Annotated, Any

import typer

from app.cli.context import AsJson, operator, or_usage, read, say
from app.clock import SystemClock
from app.metering import money_acts
from app.metering.balances import budget_json, list_top_ups
from app.metering.budgets import list_budgets
from app.metering.money import decimal_text, nano_of
from app.metering.tenants import find_tenant

app = typer.Typer(no_args_is_help=True, help="Budgets: prepaid balances and limits a month, never overspent.")
Tenant = Annotated[str, typer.Option(help="Whose budget it is: a name or id.")]
Only = Annotated[str | None, typer.Option("--tenant", help="Only this tenant's: its name or id.")]
Key = Annotated[str | None, typer.Option(help="Only for this key of the tenant: its id or name.")]


@app.command("set")
def set_one(
    tenant: Tenant,
    monthly: Annotated[str, typer.Option(help="At most so much a calendar month (UTC), such as 25.00.")],
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Limit what may be spent a month, from this month on."""
    limit, by = or_usage(lambda: nano_of(monthly)), operator()
    if limit < 0:
        raise typer.BadParameter("a limit is at least 0")
    state = read(lambda c: money_acts.put_monthly(c, by, tenant=tenant, limit_nano=limit, key=key))
    say(budget_json(state), f"{state.id}: {key or tenant} may spend {decimal_text(limit)} a month", as_json)


@app.command()
def topup(
    tenant: Tenant,
    amount: Annotated[str, typer.Option(help="How much; below 0 it is a correction.")],
    note: Annotated[str, typer.Option(help="Why, for the books.")] = "",
    key: Key = None,
    reference: Annotated[
        str | None, typer.Option("--idempotency-key", help="The same again moves no money twice: a payment's id, say.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add to a prepaid balance. The first top-up makes the balance: from then on requests need it."""
    nano, by = or_usage(lambda: nano_of(amount)), operator()
    made = read(
        lambda c: money_acts.put_money(
            c, by, tenant=tenant, amount_nano=nano, note=note[:200], key=key, reference=reference
        )
    )
    done = "" if made["is_new"] else " (before, under this idempotency key; nothing moved now)"
    say(made, f"{made['budget_id']}: {made['amount']} for {key or tenant}{done}", as_json)


@app.command()
def show(tenant: Only = None, as_json: AsJson = False) -> None:
    """Show every budget as it stands."""
    found = [
        budget_json(state)
        for state in read(
            lambda c: list_budgets(
                c, clock=SystemClock(), tenant_id=None if tenant is None else find_tenant(c, tenant).id
            )
        )
    ]
    if as_json:
        typer.echo(json.dumps(found))
        return
    for one in found:
        whose = one["tenant"] + (f"/{one['key_name']}" if one["key_name"] else "")
        state = f"{one['available']} left of {one['limit']} ({one['spent']} spent, {one['held']} held)"
        typer.echo(f"{one['id']}  {whose}  {one['kind']}: {state}{'' if one['active'] else ', binds nobody'}")


@app.command()
def topups(tenant: Only = None, as_json: AsJson = False) -> None:
    """Show every top-up, oldest first."""
    found: list[dict[str, Any]] = read(
        lambda c: list_top_ups(c, tenant_id=None if tenant is None else find_tenant(c, tenant).id)
    )
    if as_json:
        typer.echo(json.dumps(found))
        return
    for one in found:
        typer.echo(f"{one['id']}  {one['at']}  {one['tenant']}  {one['amount']}  {one['note']}")


@app.command()
def remove(budget_id: Annotated[str, typer.Argument(help="The budget's id.")], as_json: AsJson = False) -> None:
    """Let a budget bind no new request; what was spent stays in the books."""
    by = operator()
    state = read(lambda c: money_acts.drop_budget(c, by, budget_id=budget_id))
    say(budget_json(state), f"{budget_id} binds nobody any more.", as_json)

"""tollgate tenants: create, list, show, update, suspend, resume, alerts, erase."""

import json
from typing import Annotated, Any

import typer

from app.cli.context import AsJson, limits_of, operator, printed_limits, read, say, with_database
from app.cli.tables import print_table, table_of
from app.metering import tenants
from app.metering.database import Database
from app.metering.tenants import STANDARD, TenantRecord, tenant_json
from app.metering.webhooks import percents_of, put_percents

app = typer.Typer(no_args_is_help=True, help="Tenants: who pays, with how much weight, and how much at most.")
Name = Annotated[str, typer.Argument(help="The tenant's name or id.")]
Weight = Annotated[int, typer.Option(min=1, max=1000, help="Its share when many wait.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="A name that no other tenant has.")],
    weight: Weight = 1,
    tier: Annotated[str, typer.Option(help="Which of limits.tiers holds for it.")] = STANDARD,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="For all its keys together.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="For all its keys together.")] = None,
    concurrent_requests: Annotated[int | None, typer.Option(min=1, help="For all its keys together.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a tenant."""
    limits, by = limits_of(requests_per_minute, tokens_per_minute, concurrent_requests), operator()
    made = read(lambda connection: by.create_tenant(connection, name=name, weight=weight, tier=tier, limits=limits))
    say(tenant_json(made), f"{made.id}: {made.name}", as_json)


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """Show every tenant."""
    rows = [tenant_json(record) for record in read(tenants.list_tenants)]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = table_of("id", "name", "status", "weight", "tier", "limits", "created")
    for row in rows:
        table.add_row(
            row["id"], row["name"], row["status"], str(row["weight"]), row["tier"], printed_limits(row["limits"]),
            row["created_at"],
        )  # fmt: skip
    print_table(table)


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show a tenant."""
    shown = tenant_json(read(lambda connection: tenants.find_tenant(connection, name)))
    if as_json:
        typer.echo(json.dumps(shown))
        return
    for field, value in shown.items():
        typer.echo(f"{field:11} {printed_limits(value) if field == 'limits' else value}")


@app.command()
def update(
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", help="Another name.")] = None,
    weight: Annotated[int | None, typer.Option(min=1, max=1000, help="Its share when many wait.")] = None,
    tier: Annotated[str | None, typer.Option(help="Which of limits.tiers holds for it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a tenant's name, weight or tier; `tollgate limits set` changes its limits."""
    given: dict[str, Any] = {"name": new_name, "weight": weight, "tier": tier}
    changes = {field: value for field, value in given.items() if value is not None}
    if not changes:
        raise typer.BadParameter("nothing to change; see --help")
    by = operator()
    done(read(lambda connection: by.update_tenant(connection, name=name, changes=changes)), "changed", as_json)


@app.command()
def suspend(name: Name, as_json: AsJson = False) -> None:
    """Refuse a tenant's keys and stop its streams, within 2 s."""
    by = operator()
    done(read(lambda connection: by.suspend_tenant(connection, name=name)), "suspended", as_json)


@app.command()
def resume(name: Name, as_json: AsJson = False) -> None:
    """Undo a suspension."""
    by = operator()
    done(read(lambda connection: by.resume_tenant(connection, name=name)), "active", as_json)


@app.command()
def alerts(
    name: Name,
    percents: Annotated[list[int] | None, typer.Option("--percent", help="May be repeated: 50, 80, 100.")] = None,
    is_off: Annotated[bool, typer.Option("--off", help="Tell nobody of its budgets.")] = False,
    is_usual: Annotated[bool, typer.Option("--usual", help="At 50, 80 and 100 % again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show, or set, at which shares of its budgets webhooks are told."""
    given = [] if is_off else None if is_usual else percents
    if bool(percents) + is_off + is_usual > 1:
        raise typer.BadParameter("give one of --percent, --off and --usual")
    if percents or is_off or is_usual:
        by = operator()
        shown = read(lambda c: put_percents(c, by, tenant_name=name, percents=given))
    else:
        shown = read(lambda c: percents_of(c, name))
    told = ", ".join(f"{percent} %" for percent in shown["percents"]) or "never"
    say(shown, f"{shown['tenant']}: {told}", as_json)


@app.command()
def erase(
    name: Name,
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget a tenant's names, its keys' names and display forms; sums stay. This cannot be undone."""
    if not is_sure:
        typer.confirm(
            f"Erase {name}? Its keys are revoked, and its names cannot be brought back.", abort=True, err=True
        )
    by = operator()

    async def erase_and_flush(database: Database) -> TenantRecord:
        erased = await database.run(lambda connection: by.erase_tenant(connection, name=name))
        await database.flush_log()
        return erased

    done(with_database(erase_and_flush), "erased", as_json)


def done(record: TenantRecord, what: str, as_json: bool) -> None:
    """What became of a tenant."""
    say(tenant_json(record), f"{record.name} is {what}.", as_json)

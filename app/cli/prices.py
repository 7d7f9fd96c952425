"""tollgate prices: set, list, show."""

import json
from typing import Annotated

import typer

from app.cli.context import AsJson, operator, or_usage, read, say
from app.cli.tables import print_table, table_of
from app.clock import SystemClock
from app.metering import money_acts
from app.metering.database import microseconds
from app.metering.moments import instant_us
from app.metering.money import Meter, per_million_text, pico_of
from app.metering.prices import list_prices, prices_of, tenant_id_of
from app.registry.model import TaskName

app = typer.Typer(no_args_is_help=True, help="Prices: per model, task and meter, from a moment on.")


@app.command("set")
def set_one(
    model: Annotated[str, typer.Option(help="The model's id.")],
    task: Annotated[TaskName, typer.Option(help="The task.")],
    meter: Annotated[Meter | None, typer.Option(help="What is sold; with --free: only this (default: all).")] = None,
    per_million: Annotated[str | None, typer.Option(help="Price of a million units, such as 0.25.")] = None,
    is_free: Annotated[bool, typer.Option("--free", help="It costs nothing, on purpose.")] = False,
    tenant: Annotated[str | None, typer.Option(help="Only for this tenant: a name or id.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="From this moment on, ISO 8601; default: now.")] = None,
    as_json: AsJson = False,
) -> None:
    """Set a price from a moment on. Entries keep the price that they were made at."""
    if is_free == (per_million is not None):
        raise typer.BadParameter("give a price with --per-million, or --free")
    if meter is None and not is_free:
        raise typer.BadParameter("say what is sold with --meter")
    effective_us = None if start is None else or_usage(lambda: instant_us(start))
    pico, by = or_usage(lambda: pico_of(per_million or "0")), operator()
    if meter is None:
        made = read(
            lambda c: money_acts.put_free(c, by, model=model, task=task.value, tenant=tenant, effective_us=effective_us)
        )
        say(made, f"{model}, {task.value}: free", as_json)
        return
    shown = read(
        lambda c: money_acts.put_price(
            c, by, model=model, task=task.value, meter=meter, pico_per_unit=pico, tenant=tenant,
            effective_us=effective_us,
        )
    )  # fmt: skip
    say(shown, f"{shown['id']}: {model}, {task.value}, {meter.value}: {shown['per_million']} a million", as_json)


@app.command("list")
def list_all(
    model: Annotated[str | None, typer.Option(help="Only this model's.")] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Those that this tenant pays: its own and the common ones.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show every price ever set, and which of them hold."""
    found = read(
        lambda c: list_prices(
            c, clock=SystemClock(), model=model, tenant_id=None if tenant is None else tenant_id_of(c, tenant)
        )
    )
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = table_of("effective_at", "state", "tenant", "model", "task", "meter", "per million")
    for row in found:
        table.add_row(
            row["effective_at"], row["state"].replace("_", " "), row["tenant"] or "(all)", row["model"], row["task"],
            row["meter"], row["per_million"],
        )  # fmt: skip
    print_table(table)


@app.command("show")
def show(
    model: Annotated[str, typer.Option(help="The model's id.")],
    task: Annotated[TaskName, typer.Option(help="The task.")],
    tenant: Annotated[str | None, typer.Option(help="What this tenant pays.")] = None,
    moment: Annotated[str | None, typer.Option("--at", help="At this moment, ISO 8601; default: now.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model costs at a moment: pico-units per unit, by meter."""
    at_us = microseconds(SystemClock().now()) if moment is None else or_usage(lambda: instant_us(moment))
    found = read(
        lambda connection: prices_of(
            connection, model=model, task=task.value, at_us=at_us,
            tenant_id=None if tenant is None else tenant_id_of(connection, tenant),
        )
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(found))
    elif not found:
        typer.echo(f"{model} has no price for {task.value}: it is refused, unless the catalogue marks it free")
    for meter, pico in sorted(found.items()) if not as_json else ():
        typer.echo(f"{meter}: {per_million_text(pico)} a million")

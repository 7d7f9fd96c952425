"""tollgate prices: set, list, show."""

import json
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from app.cli.context import operator, read, with_database
from app.clock import SystemClock
from app.metering.acts import noting
from app.metering.database import microseconds
from app.metering.money import Meter
from app.metering.prices import list_prices, prices_of, set_price, tenant_id_of
from app.registry.model import TaskName

app = typer.Typer(no_args_is_help=True, help="Prices: per model, task and meter, from a moment on.")
PICO = 10**12
MILLION = 10**6


def pico_of(per_million: str) -> int:
    """A price per million units, as a decimal number of the currency, in pico-units per unit."""
    try:
        pico = Decimal(per_million) * PICO / MILLION
    except InvalidOperation as cause:
        raise typer.BadParameter(f"{per_million!r} is no number") from cause
    if not pico.is_finite() or pico < 0 or pico != int(pico) or pico >= 2**63:
        raise typer.BadParameter("a price is at least 0 and has at most six decimal places")
    return int(pico)


def moment_us(text: str) -> int:
    """A moment in ISO 8601; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as cause:
        raise typer.BadParameter(f"{text!r} is no moment; write 2026-12-01 or 2026-12-01T08:00:00+01:00") from cause
    return microseconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


@app.command("set")
def set_one(
    model: Annotated[str, typer.Option(help="The model's id.")],
    task: Annotated[TaskName, typer.Option(help="The task.")],
    meter: Annotated[Meter, typer.Option(help="What is sold.")] = Meter.REQUEST,
    per_million: Annotated[str | None, typer.Option(help="Price of a million units, such as 0.25.")] = None,
    is_free: Annotated[bool, typer.Option("--free", help="It costs nothing, on purpose.")] = False,
    tenant: Annotated[str | None, typer.Option(help="Only for this tenant.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="From this moment on, ISO 8601; default: now.")] = None,
) -> None:
    """Set a price from a moment on. Entries keep the price that they were made at."""
    if is_free == (per_million is not None):
        raise typer.BadParameter("give a price with --per-million, or --free")
    per_million = per_million or "0"
    pico, effective_us = pico_of(per_million), None if start is None else moment_us(start)
    details = {"model": model, "task": task.value, "meter": meter.value, "pico_per_unit": pico}
    price_id = read(
        noting(
            operator(),
            lambda connection: set_price(
                connection, clock=SystemClock(), model=model, task=task.value, meter=meter, pico_per_unit=pico,
                tenant_name=tenant, effective_us=effective_us,
            ),
            act="price.set", details=details,
        )
    )  # fmt: skip
    typer.echo(f"{price_id}: {model}, {task.value}, {meter.value}: {per_million} a million")


@app.command("list")
def list_all(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show every price, the newest last; the newest of a kind holds."""
    found = with_database(lambda database: database.run(list_prices))
    if as_json:
        typer.echo(json.dumps([dict(row) for row in found]))
        return
    table = Table("effective_at", "tenant", "model", "task", "meter", "per million")
    for row in found:
        per_million = Decimal(row["pico_per_unit"]) * MILLION / PICO
        table.add_row(
            row["effective_at"], row["tenant"] or "(all)", row["model"], row["task"], row["meter"], f"{per_million:f}"
        )
    Console().print(table)


@app.command("show")
def show(
    model: Annotated[str, typer.Option(help="The model's id.")],
    task: Annotated[TaskName, typer.Option(help="The task.")],
    tenant: Annotated[str | None, typer.Option(help="What this tenant pays.")] = None,
    moment: Annotated[str | None, typer.Option("--at", help="At this moment, ISO 8601; default: now.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a model costs at a moment: pico-units per unit, by meter."""
    at_us = microseconds(SystemClock().now()) if moment is None else moment_us(moment)
    found = with_database(
        lambda database: database.run(
            lambda connection: prices_of(
                connection, model=model, task=task.value, at_us=at_us,
                tenant_id=None if tenant is None else tenant_id_of(connection, tenant),
            )
        )
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(found))
    elif not found:
        typer.echo(f"{model} has no price for {task.value}: it is refused, unless the catalogue marks it free")
    for meter, pico in sorted(found.items()) if not as_json else ():
        typer.echo(f"{meter}: {Decimal(pico) * MILLION / PICO:f} a million")

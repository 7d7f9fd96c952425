"""tollgate prices: set, list."""

import json
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from app.cli.context import with_database
from app.clock import SystemClock
from app.metering.money import Meter
from app.metering.prices import list_prices, set_price
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


@app.command("set")
def set_one(
    model: Annotated[str, typer.Option(help="The model's id.")],
    task: Annotated[TaskName, typer.Option(help="The task.")],
    meter: Annotated[Meter, typer.Option(help="What is sold.")],
    per_million: Annotated[str, typer.Option(help="Price of a million units, such as 0.25.")],
    tenant: Annotated[str | None, typer.Option(help="Only for this tenant.")] = None,
) -> None:
    """Set a price from now on. Entries keep the price that they were made at."""
    pico = pico_of(per_million)
    price_id = with_database(
        lambda database: database.run(
            lambda connection: set_price(
                connection, clock=SystemClock(), model=model, task=task.value, meter=meter, pico_per_unit=pico,
                tenant_name=tenant,
            )
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

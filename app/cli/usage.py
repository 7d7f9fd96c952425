"""tollgate usage: what each request counted."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from app.cli.context import with_database
from app.metering.ledger import list_entries

COLUMNS = (
    "occurred_at", "tenant", "key_name", "model", "task", "outcome", "input_tokens", "output_tokens", "cost_nano",
)  # fmt: skip


def usage(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list, an object an entry.")] = False,
) -> None:
    """Show the ledger's newest entries, oldest first."""
    entries = with_database(
        lambda database: database.run(
            lambda connection: list_entries(connection, tenant_name=tenant, model=model, limit=limit)
        )
    )
    if as_json:
        typer.echo(json.dumps(entries))
        return
    table = Table(*COLUMNS)
    for entry in entries:
        table.add_row(*(str(entry[name]) for name in COLUMNS))
    Console().print(table)

"""tollgate audit: list, verify."""

import dataclasses
import json
from typing import Annotated

import typer

from app.cli.context import AsJson, home_folder, read
from app.cli.tables import print_table, table_of
from app.metering import audit
from app.metering.keys import Pepper
from app.metering.tenants import find_tenant

app = typer.Typer(
    no_args_is_help=True, help="The audit log: every act of an operator, each row signing the one before."
)


@app.command("list")
def list_all(
    tenant: Annotated[str | None, typer.Option(help="Only what concerns this tenant.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Begin after this number.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Show acts, oldest first: who, what, before and after."""
    rows = read(
        lambda c: audit.list_audit(
            c, after=after, limit=limit, tenant_id=None if tenant is None else find_tenant(c, tenant).id
        )
    )
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = table_of("number", "at", "who", "act", "target", "details")
    for row in rows:
        details = "(erased)" if row["details"] is None else json.dumps(row["details"].get("after", row["details"]))
        table.add_row(str(row["sequence"]), row["at"], row["actor"], row["act"], row["target"], details)
    print_table(table)


@app.command()
def verify(
    head: Annotated[str | None, typer.Option(help="A head that was noted earlier: nothing was cut off since.")] = None,
    as_json: AsJson = False,
) -> None:
    """Walk the chain; exit code 1 when a row was changed, removed or put in."""
    pepper = Pepper(home_folder())
    verdict = read(lambda connection: audit.verify(connection, pepper=pepper, head=head))
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(verdict) | {"is_sound": verdict.is_sound}))
    else:
        for fault in verdict.faults:
            typer.echo(f"tollgate: {fault}", err=True)
        typer.echo(f"{verdict.rows} rows, {'sound' if verdict.is_sound else 'NOT sound'}; head {verdict.head}")
    raise typer.Exit(0 if verdict.is_sound else 1)

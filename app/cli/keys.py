"""tollgate keys: create, list, revoke."""

import dataclasses
import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from app.cli.context import home_folder, with_database
from app.clock import SystemClock
from app.metering.database import moment_of
from app.metering.keys import KeyRecord, Pepper, create_key, list_keys, revoke_key

app = typer.Typer(no_args_is_help=True, help="API keys: who may call, shown once and kept as digests.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def plain(record: KeyRecord) -> dict[str, Any]:
    """A record as JSON shows it: times in ISO 8601."""
    shown = {name: value for name, value in dataclasses.asdict(record).items() if not name.endswith("_us")}
    for name in ("created", "expires", "revoked"):
        value: int | None = getattr(record, f"{name}_us")
        shown[f"{name}_at"] = None if value is None else moment_of(value).isoformat(timespec="seconds")
    return shown


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose key it is; a new name makes a new tenant.")],
    name: Annotated[str, typer.Option(help="What the key is called in lists and usage.")],
    is_admin: Annotated[bool, typer.Option("--admin", help="May also use the admin routes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it: it cannot be shown again."""
    if not tenant.strip() or not name.strip():
        raise typer.BadParameter("--tenant and --name must not be empty")
    pepper = Pepper(home_folder())
    made = with_database(
        lambda database: database.run(
            lambda connection: create_key(
                connection, clock=SystemClock(), pepper=pepper, tenant_name=tenant, name=name, is_admin=is_admin
            )
        )
    )
    if as_json:
        typer.echo(json.dumps({"key": made.key} | plain(made.record)))
    else:
        typer.echo(made.key)
        typer.echo("Keep it now: only its digest is stored, it cannot be shown again.", err=True)


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """Show every key, without the keys themselves."""
    records = with_database(lambda database: database.run(list_keys))
    if as_json:
        typer.echo(json.dumps([plain(record) for record in records]))
        return
    table = Table("id", "tenant", "name", "key", "admin", "created", "revoked")
    for record in records:
        shown = plain(record)
        table.add_row(
            record.id, record.tenant, record.name, record.display, "yes" if record.is_admin else "",
            shown["created_at"], shown["revoked_at"] or "",
        )  # fmt: skip
    Console().print(table)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id, its shortened form, or its name.")], as_json: AsJson = False
) -> None:
    """Refuse a key from now on."""
    record = with_database(
        lambda database: database.run(lambda connection: revoke_key(connection, clock=SystemClock(), key=key))
    )
    typer.echo(json.dumps(plain(record)) if as_json else f"{record.display} ({record.name}) is revoked.")

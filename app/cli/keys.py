"""tollgate keys: create, list, show, update, rotate, revoke."""

import json
from typing import Annotated, Any

import typer

from app.cli.context import AsJson, limits_of, operator, or_exit, printed_limits, read, say
from app.cli.tables import print_table, table_of
from app.clock import SystemClock
from app.metering.keys import NewKey, get_key, key_json, list_keys, resolve_key
from app.metering.moments import moment_us, span_us
from app.metering.tenants import find_tenant
from app.registry.model import TaskName

app = typer.Typer(no_args_is_help=True, help="API keys: who may call, shown once and kept as digests.")
KeyName = Annotated[str, typer.Argument(help="The key's id, its shortened form, or its name.")]
Tasks = Annotated[list[TaskName] | None, typer.Option("--task", help="Allow only this task; may be repeated.")]
Models = Annotated[list[str] | None, typer.Option("--model", help="Allow only this model, or a pattern.")]
Networks = Annotated[list[str] | None, typer.Option("--network", help="Allow only this network, as 192.0.2.0/24.")]
Acts = Annotated[list[str] | None, typer.Option("--act", help="An admin key: allow only this act, as `key.*`.")]
Expires = Annotated[str | None, typer.Option(help="When it ends: 90d, or a date in ISO 8601.")]
CLEARABLE = ("tasks", "models", "networks", "acts", "expires")


def expiry_of(expires: str | None) -> int | None:
    """An option as a moment."""
    return None if expires is None else or_exit(lambda: moment_us(expires, clock=SystemClock()))


def several(values: list[Any] | None) -> tuple[str, ...] | None:
    """Options that may be repeated; none allows all."""
    return tuple(str(value) for value in values) if values else None


def show_new(made: NewKey, as_json: bool) -> None:
    """The only time that a key is printed."""
    if as_json:
        typer.echo(json.dumps({"key": made.key} | key_json(made.record)))
    else:
        typer.echo(made.key)
        typer.echo("Keep it now: only its digest is stored, it cannot be shown again.", err=True)


@app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose key it is; a new name makes a new tenant.")],
    name: Annotated[str, typer.Option(help="What the key is called in lists and usage.")],
    is_admin: Annotated[bool, typer.Option("--admin", help="May also use the admin routes.")] = False,
    tasks: Tasks = None,
    models: Models = None,
    networks: Networks = None,
    acts: Acts = None,
    expires: Expires = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Its own limit.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Its own limit.")] = None,
    concurrent_requests: Annotated[int | None, typer.Option(min=1, help="Its own limit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it: it cannot be shown again."""
    if not tenant.strip() or not name.strip():
        raise typer.BadParameter("--tenant and --name must not be empty")
    limits = limits_of(requests_per_minute, tokens_per_minute, concurrent_requests)
    by, expires_us = operator(), expiry_of(expires)
    made = read(
        lambda connection: by.create_key(
            connection, tenant_name=tenant, name=name, is_admin=is_admin, tasks=several(tasks), models=several(models),
            networks=several(networks), acts=several(acts), expires_us=expires_us, limits=limits,
        )
    )  # fmt: skip
    show_new(made, as_json)


@app.command("list")
def list_all(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None, as_json: AsJson = False
) -> None:
    """Show every key, without the keys themselves."""
    records = read(
        lambda connection: list_keys(
            connection, tenant_id=None if tenant is None else find_tenant(connection, tenant).id
        )
    )
    rows = [key_json(record) for record in records]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = table_of("id", "tenant", "name", "key", "admin", "created", "last used", "expires", "revoked")
    for row in rows:
        table.add_row(
            row["id"], row["tenant"], row["name"], row["display"], "yes" if row["is_admin"] else "", row["created_at"],
            row["last_used_at"] or "", row["expires_at"] or "", row["revoked_at"] or "",
        )  # fmt: skip
    print_table(table)


@app.command()
def show(key: KeyName, as_json: AsJson = False) -> None:
    """Show what a key may do, and its own limits."""
    shown = key_json(read(lambda c: get_key(c, key) if key.startswith("key_") else resolve_key(c, key)))
    if as_json:
        typer.echo(json.dumps(shown))
        return
    for name, value in shown.items():
        text = printed_limits(value) if name == "limits" else value
        typer.echo(f"{name:13} {', '.join(value) if name in CLEARABLE and value else text or ''}")


@app.command()
def update(
    key: KeyName,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    tasks: Tasks = None,
    models: Models = None,
    networks: Networks = None,
    acts: Acts = None,
    expires: Expires = None,
    clear: Annotated[list[str] | None, typer.Option(help=f"Take a restriction away: {', '.join(CLEARABLE)}.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a key's name and scopes; what is not given stays. It holds within 2 s."""
    unknown = [one for one in clear or () if one not in CLEARABLE]
    if unknown:
        raise typer.BadParameter(f"--clear takes {', '.join(CLEARABLE)}; {unknown[0]!r} is none of them")
    given: dict[str, Any] = {
        "tasks": several(tasks), "models": several(models), "networks": several(networks), "acts": several(acts),
        "expires_us": expiry_of(expires), "name": name,
    }  # fmt: skip
    changes = {column: value for column, value in given.items() if value is not None}
    changes |= {"expires_us" if one == "expires" else one: None for one in clear or ()}
    if not changes:
        raise typer.BadParameter("nothing to change; see --help")
    by = operator()
    record = read(lambda connection: by.update_key(connection, key=key, changes=changes))
    say(key_json(record), f"{record.display} ({record.name}) is changed.", as_json)


@app.command()
def rotate(
    key: KeyName,
    overlap: Annotated[str, typer.Option(help="How long the old key lives on: 0s, 30m, 24h.")] = "24h",
    expires: Expires = None,
    as_json: AsJson = False,
) -> None:
    """Make a successor with the same rights and print it."""
    by, expires_us = operator(), expiry_of(expires)
    overlap_us = or_exit(lambda: span_us(overlap))
    show_new(read(lambda c: by.rotate_key(c, key=key, overlap_us=overlap_us, expires_us=expires_us)), as_json)


@app.command()
def revoke(key: KeyName, as_json: AsJson = False) -> None:
    """Refuse a key from now on; its running streams stop within 2 s."""
    by = operator()
    record = read(lambda connection: by.revoke_key(connection, key=key))
    say(key_json(record), f"{record.display} ({record.name}) is revoked.", as_json)

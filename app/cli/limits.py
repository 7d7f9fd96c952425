"""tollgate limits: set, show."""

import json
from typing import Annotated, Any

import typer

from app.cli.context import AsJson, limits_of, operator, printed_limits, read
from app.metering.keys import key_json, resolve_key
from app.metering.tenants import find_tenant, tenant_json

app = typer.Typer(no_args_is_help=True, help="Rate limits of a tenant (all its keys together) or of one key.")
Tenant = Annotated[str | None, typer.Option(help="The tenant's name or id.")]
Key = Annotated[str | None, typer.Option(help="The key's id, its shortened form, or its name.")]


def one_of(tenant: str | None, key: str | None) -> None:
    """Exactly one of the two options."""
    if (tenant is None) == (key is None):
        raise typer.BadParameter("give either --tenant or --key")


def shown(found: dict[str, Any], as_json: bool) -> None:
    """The limits that are set."""
    if as_json:
        typer.echo(json.dumps({"id": found["id"], "name": found["name"], **found["limits"]}))
    else:
        typer.echo(f"{found['name']}: {printed_limits(found['limits']) or 'none of its own'}")


@app.command("set")
def set_all(
    tenant: Tenant = None,
    key: Key = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Not given: none of its own.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Not given: none of its own.")] = None,
    concurrent_requests: Annotated[int | None, typer.Option(min=1, help="Not given: none of its own.")] = None,
    as_json: AsJson = False,
) -> None:
    """Replace all three limits; they hold within 2 s. A tenant without one has its tier's."""
    one_of(tenant, key)
    limits, by = limits_of(requests_per_minute, tokens_per_minute, concurrent_requests), operator()
    if tenant is not None:
        shown(tenant_json(read(lambda c: by.set_tenant_limits(c, name=tenant, limits=limits))), as_json)
    elif key is not None:
        shown(key_json(read(lambda c: by.set_key_limits(c, key=key, limits=limits))), as_json)


@app.command()
def show(tenant: Tenant = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show the limits that a tenant or a key has of its own."""
    one_of(tenant, key)
    if tenant is not None:
        shown(tenant_json(read(lambda c: find_tenant(c, tenant))), as_json)
    elif key is not None:
        shown(key_json(read(lambda c: resolve_key(c, key))), as_json)

"""The tollgate command: mounts the nouns."""

from typing import Annotated

import typer

from app import __version__
from app.cli import audit, budgets, db, keys, limits, models, pepper, prices, serve, tenants, usage, webhooks

cli = typer.Typer(no_args_is_help=True, help="Tollgate: a machine becomes a paid model API.", add_completion=False)
cli.command()(serve.serve)
cli.add_typer(models.app, name="models")
cli.add_typer(tenants.app, name="tenants")
cli.add_typer(keys.app, name="keys")
cli.add_typer(limits.app, name="limits")
cli.add_typer(audit.app, name="audit")
cli.add_typer(prices.app, name="prices")
cli.add_typer(budgets.app, name="budgets")
cli.add_typer(usage.app, name="usage")
cli.add_typer(db.app, name="db")
cli.add_typer(pepper.app, name="pepper")
cli.add_typer(webhooks.app, name="webhooks")


def show_version(is_asked: bool) -> None:
    """Print the version and end."""
    if is_asked:
        typer.echo(f"tollgate {__version__}")
        raise typer.Exit


@cli.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Tollgate: a machine becomes a paid model API."""


def main() -> None:
    """The console script's entry."""
    cli()

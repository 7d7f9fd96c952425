"""tollgate usage: what each request counted; verify, export, events, feeds, invoice."""

import json
import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.context import AsJson, operator, or_exit, or_usage, read, say, with_database
from app.cli.tables import print_table, table_of
from app.clock import SystemClock
from app.delivery.cloudevents import event_of
from app.errors import InvalidRequest
from app.metering.database import Database, microseconds
from app.metering.feed import entries_between, list_feeds
from app.metering.feed import stop as stop_feed
from app.metering.invoices import as_csv, as_page, csv_text, invoice
from app.metering.ledger import SHOWN, list_entries
from app.metering.moments import instant_us
from app.metering.tenants import find_tenant
from app.metering.verify import balance
from app.settings import load_settings

COLUMNS = (
    "occurred_at", "tenant", "key_name", "model", "task", "outcome", "input_tokens", "output_tokens", "cost_nano",
)  # fmt: skip
PAGE = 1000
app = typer.Typer(help="Usage: the ledger's entries, their check, exports and invoices.")


class Form(StrEnum):
    """How something is printed."""

    JSON = "json"
    CSV = "csv"
    HTML = "html"


Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file; default: print.")]


def write(text: str, output: Path | None) -> None:
    """To a file, or to the terminal."""
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


@app.callback(invoke_without_command=True)
def usage(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model's.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list, an object an entry.")] = False,
) -> None:
    """Show the ledger's newest entries, oldest first."""
    if context.invoked_subcommand is not None:
        return
    entries = read(lambda connection: list_entries(connection, tenant_name=tenant, model=model, limit=limit))
    if as_json:
        typer.echo(json.dumps(entries))
        return
    table = table_of("at (UTC)", "tenant", "key", "model", "task", "outcome", "in", "out", "cost")
    for entry in entries:
        at, *others = (str(entry[name]) for name in COLUMNS)
        table.add_row(at[:19].replace("T", " "), *others)
    print_table(table)


@app.command()
def verify(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check entries, sums, budgets and holds against each other; exit code 1 when they differ."""
    found = read(balance)
    if as_json:
        typer.echo(json.dumps({"balanced": not found, "drifts": found}))
    else:
        typer.echo("\n".join(found) or "The books balance: entries, sums, budgets and holds agree.")
    if found:
        raise typer.Exit(1)


def day_us(text: str) -> int:
    """The first moment of a day in UTC."""
    try:
        return microseconds(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC))
    except ValueError as cause:
        raise InvalidRequest(f"{text!r} is no day; write 2026-11-01") from cause


@app.command()
def export(
    start: Annotated[str, typer.Option("--from", help="First day (UTC), such as 2026-11-01.")],
    until: Annotated[str | None, typer.Option(help="Last day, included; default: up to now.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    form: Annotated[Form, typer.Option("--format", help="json or csv.")] = Form.CSV,
    output: Output = None,
) -> None:
    """Export entries, oldest first."""
    if form is Form.HTML:
        raise typer.BadParameter("entries are exported as json or csv")
    from_us = or_exit(lambda: day_us(start))
    until_us = (
        None if until is None else or_exit(lambda: day_us(until)) + timedelta(days=1) // timedelta(microseconds=1)
    )
    found: list[dict[str, Any]] = read(
        lambda connection: list_entries(connection, tenant_name=tenant, from_us=from_us, until_us=until_us, limit=None)
    )
    columns = ("request_id", "occurred_at", "tenant", "key_name", *SHOWN)
    write(csv_text(found, columns) if form is Form.CSV else json.dumps(found) + "\n", output)


@app.command()
def events(
    since: Annotated[str, typer.Option(help="From this moment on, ISO 8601, such as 2026-11-01.")],
    until: Annotated[str | None, typer.Option(help="Before this moment; default: up to now.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's: its name or id.")] = None,
    source: Annotated[str | None, typer.Option(help="The events' source; default: events.source.")] = None,
    output: Output = None,
) -> None:
    """Print entries again as CloudEvents, a JSON object a line: the same ids, for a consumer that missed some."""
    since_us, until_us = (
        or_usage(lambda: instant_us(since)),
        None if until is None else or_usage(lambda: instant_us(until)),
    )
    named = source or or_exit(load_settings).events.source

    async def work(database: Database) -> None:
        now_us = microseconds(SystemClock().now()) + 1
        tenant_id = await database.run(lambda c: None if tenant is None else find_tenant(c, tenant).id)
        after = (0, "")
        with nullcontext(sys.stdout) if output is None else output.open("w", encoding="utf-8") as file:
            while True:
                page = await database.run(
                    lambda c, after=after: entries_between(
                        c, since_us=since_us, until_us=until_us or now_us, tenant_id=tenant_id, after=after,
                        limit=PAGE,
                    )
                )  # fmt: skip
                for entry in page:
                    file.write(json.dumps(event_of(entry, named), separators=(",", ":")) + "\n")
                if len(page) < PAGE:
                    return
                after = (page[-1]["occurred_us"], page[-1]["id"])

    with_database(work)


@app.command()
def feeds(
    stop: Annotated[str | None, typer.Option(help="Let go of this feed and of what waits in it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show which feeds of usage events there are, when they were last taken from, and how many entries wait."""
    if stop is not None:
        by, name = operator(), stop

        def work(connection: Any) -> int:
            dropped = stop_feed(connection, name)
            by.note(connection, act="feed.stop", target=name, details={"dropped": dropped})
            return dropped

        dropped = read(work)
        say({"name": stop, "dropped": dropped}, f"{stop} is let go of; {dropped} entries waited in it", as_json)
        return
    found = read(list_feeds)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for one in found:
        typer.echo(f"{one['name']}: {one['waiting']} wait, last taken from {one['seen_at']}")


@app.command("invoice")
def show_invoice(
    tenant: Annotated[str, typer.Option(help="Whose.")],
    month: Annotated[str, typer.Option(help="Which month (UTC), such as 2026-11.")],
    form: Annotated[Form, typer.Option("--format", help="json, csv, or html to print.")] = Form.JSON,
    output: Output = None,
) -> None:
    """A tenant's month as an invoice."""
    now = SystemClock().now()
    issuer = or_exit(load_settings).metering.issuer
    found = read(lambda connection: invoice(connection, tenant_name=tenant, month=month, now=now, issuer=issuer))
    text = {Form.JSON: lambda: json.dumps(found, indent=2) + "\n", Form.CSV: lambda: as_csv(found)}
    write(text.get(form, lambda: as_page(found) + "\n")(), output)

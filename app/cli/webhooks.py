"""tollgate webhooks: create, list, rotate, remove, test, deliveries, redeliver."""

import json
from typing import Annotated

import typer

from app.cli.context import AsJson, home_folder, operator, or_exit, read, say
from app.cli.tables import print_table, table_of
from app.delivery.addresses import checked_url
from app.metering import webhooks
from app.metering.outbox import State, list_deliveries
from app.metering.pepper import Pepper
from app.metering.tenants import find_tenant
from app.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Webhooks: who is told, signed, when a budget nears its end.")
WebhookId = Annotated[str, typer.Argument(help="The webhook's id.")]


@app.command()
def create(
    url: Annotated[str, typer.Argument(help="An https address (webhooks.allowed_hosts may allow http).")],
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's budgets; default: everybody's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell this address of budget alerts; prints the secret that signs them."""
    checked = or_exit(lambda: checked_url(url, load_settings().webhooks.allowed_hosts))
    by, pepper = operator(), Pepper(home_folder())
    made = read(lambda c: webhooks.create_webhook(c, by, pepper, url=checked, tenant_name=tenant))
    say(made, f"{made['id']}\n{made['secret']}", as_json)


@app.command("list")
def list_all(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's: its name or id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show every webhook."""
    rows = read(
        lambda c: webhooks.list_webhooks(c, tenant_id=None if tenant is None else find_tenant(c, tenant).id)
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = table_of("id", "tenant", "url", "created")
    for row in rows:
        table.add_row(row["id"], row["tenant"] or "(all)", row["url"], row["created_at"])
    print_table(table)


@app.command()
def rotate(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Sign with another secret from now on, and print it."""
    by, pepper = operator(), Pepper(home_folder())
    made = read(lambda c: webhooks.rotate_secret(c, by, pepper, webhook_id=webhook_id))
    say(made, made["secret"], as_json)


@app.command()
def remove(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Tell a webhook nothing new; what waits for it is still sent."""
    by = operator()
    say(read(lambda c: webhooks.remove_webhook(c, by, webhook_id=webhook_id)), f"{webhook_id} is removed", as_json)


@app.command()
def test(webhook_id: WebhookId, as_json: AsJson = False) -> None:
    """Let a running server send it a test message; `deliveries` shows what came of it."""
    by = operator()
    sent = read(lambda c: webhooks.try_webhook(c, by, webhook_id=webhook_id))
    say({"queued": sent}, "a message waits for the server to send it", as_json)


@app.command()
def deliveries(
    state: Annotated[list[State] | None, typer.Option(help="Only these; default: waiting and dead.")] = None,
    webhook: Annotated[str | None, typer.Option(help="Only this webhook's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show messages, how often they were tried, and why they did not arrive."""
    states = tuple(state) if state else (State.WAITING, State.DEAD)
    rows = read(lambda c: list_deliveries(c, states=states, webhook_id=webhook))
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = table_of("id", "webhook", "type", "state", "attempts", "last error", "next")
    for row in rows:
        shown = (row["id"], row["webhook_id"], row["type"], row["state"], str(row["attempts"]))
        table.add_row(*shown, row["error"] or "", row["next_at"] or "")
    print_table(table)


@app.command()
def redeliver(
    delivery_id: Annotated[str, typer.Argument(help="The message's id, as `deliveries` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Send a dead or delivered message again, under its id."""
    by = operator()
    say(read(lambda c: webhooks.send_again(c, by, delivery_id=delivery_id)), f"{delivery_id} waits", as_json)

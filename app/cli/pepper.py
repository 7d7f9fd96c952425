"""tollgate pepper: list, add, activate, rotate, retire."""

import json
from typing import Annotated, Any

import typer

from app.cli.context import AsJson, home_folder, operator, or_exit, read, say
from app.cli.tables import print_table, table_of
from app.clock import SystemClock
from app.errors import Conflict
from app.metering.database import microseconds
from app.metering.pepper import Pepper
from app.metering.peppers import activate as activate_pepper
from app.metering.peppers import choose_current, keys_under, pepper_rows

app = typer.Typer(
    no_args_is_help=True, help="The pepper: the secret under which keys are digested, and its successors."
)
PepperId = Annotated[str, typer.Argument(help="The pepper's id, as `tollgate pepper list` shows it.")]


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """Show every pepper, and how many keys, rows of the audit log and webhooks still hang on it."""
    pepper = or_exit(lambda: Pepper(home_folder()))
    rows = read(lambda c: pepper_rows(c, pepper))
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = table_of("id", "file", "in use", "keys", "audit rows", "webhooks")
    for row in rows:
        file = row["file"] or "NOT IN THIS FOLDER"
        counts = (str(row[name]) for name in ("keys", "audit_rows", "webhooks"))
        table.add_row(row["id"], file, "yes" if row["in_use"] else "", *counts)
    print_table(table)


@app.command()
def add(as_json: AsJson = False) -> None:
    """Make another pepper, not used yet: copy its file to every replica's data folder before you activate it."""
    pepper = or_exit(lambda: Pepper(home_folder()))
    made, by = pepper.add(), operator()
    read(lambda c: by.note(c, act="pepper.add", target=made, details={}))
    say(
        {"id": made, "file": f"pepper.{made}"},
        f"{made}: copy pepper.{made} to every replica, then activate it",
        as_json,
    )


@app.command()
def activate(pepper_id: PepperId, as_json: AsJson = False) -> None:
    """Digest new keys under this pepper, on every replica, within a second; old keys follow when they are used."""
    put_in_use(pepper_id)
    say({"id": pepper_id}, f"{pepper_id} is in use", as_json)


@app.command()
def rotate(as_json: AsJson = False) -> None:
    """Make a pepper and use it at once. Only with one replica: more would not know it yet."""
    made = or_exit(lambda: Pepper(home_folder())).add()
    put_in_use(made)
    say({"id": made, "file": f"pepper.{made}"}, f"{made} is in use; back the file pepper.{made} up", as_json)


def put_in_use(pepper_id: str) -> None:
    """Activate it, with its row in the audit log, which is the first to be signed under it."""
    pepper, by = or_exit(lambda: Pepper(home_folder())), operator()
    now_us = microseconds(SystemClock().now())

    def work(connection: Any) -> None:
        activate_pepper(connection, pepper, pepper_id, at_us=now_us)
        by.note(connection, act="pepper.activate", target=pepper_id, details={})

    read(work)


@app.command()
def retire(
    pepper_id: PepperId,
    is_sure: Annotated[bool, typer.Option("--yes", help="Also when keys are left under it: they are lost.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a pepper open no key any more; what it signed can still be verified. Do it on every replica."""
    pepper, by = or_exit(lambda: Pepper(home_folder())), operator()

    def work(connection: Any) -> int:
        choose_current(connection, pepper)
        left = keys_under(connection, pepper_id)
        if pepper_id == pepper.id:
            raise Conflict(f"{pepper_id} is the pepper in use; activate another one first")
        if left and not is_sure:
            raise Conflict(f"{left} keys are still digested under {pepper_id}: wait for their next use, or give --yes")
        by.note(connection, act="pepper.retire", target=pepper_id, details={"keys": left})
        return left

    left = read(work)
    or_exit(lambda: pepper.retire(pepper_id))
    say({"id": pepper_id, "keys_lost": left}, f"{pepper_id} is retired; {left} keys were lost with it", as_json)

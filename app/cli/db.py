"""tollgate db: upgrade, copy, back up, restore, recover, partitions, prune."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.context import AsJson, home_folder, operator, or_exit, read, say, with_database
from app.clock import SystemClock
from app.metering.backup import back_up
from app.metering.backup import restore as put_back
from app.metering.copying import copy_database
from app.metering.database import Database
from app.metering.partitions import list_partitions
from app.metering.pruning import prune as prune_ledger
from app.metering.replicas import recover_lost
from app.metering.transactions import revision

app = typer.Typer(no_args_is_help=True, help="The database: from SQLite to PostgreSQL.")


@app.command()
def copy(
    target: Annotated[str, typer.Option("--to", help="postgresql://user:password@host/database, empty.")],
    as_json: AsJson = False,
) -> None:
    """Copy this installation's database, every row of it, into an empty one. Stop the server first."""

    async def work(source: Database) -> int:
        other = Database(home=home_folder(), url=target)
        try:
            await other.open()
            return await copy_database(source, other, say=lambda name, rows: typer.echo(f"{name}: {rows}", err=True))
        finally:
            await other.close()

    total = with_database(work)
    next_step = "Set metering.database_url (TOLLGATE_METERING__DATABASE_URL) and start the server."
    say({"rows": total}, f"{total} rows copied. {next_step}", as_json)


@app.command()
def upgrade(as_json: AsJson = False) -> None:
    """Bring the schema to this release's, as a server's start does; servers of the release before may run on."""
    at = read(revision)
    say({"revision": at}, f"The schema is at {at}.", as_json)


@app.command()
def recover(
    replica: Annotated[str, typer.Option(help="The lost replica's name: the file `replica` of its data folder.")],
    as_json: AsJson = False,
) -> None:
    """Settle what a replica had running whose disk is lost, by what it last reported; it must not run any more."""
    count = read(lambda connection: recover_lost(connection, replica_id=replica, clock=SystemClock()))
    text = f"{count} requests of {replica} are settled as crashed; nothing of it is held any more."
    say({"replica": replica, "settled": count}, text, as_json)


@app.command()
def partitions(as_json: AsJson = False) -> None:
    """The months of the ledger on PostgreSQL; each is made by the server before it begins."""
    found = read(list_partitions)
    shown = [{"table": one.table, "month": one.month, "rows": one.rows, "bytes": one.bytes_size} for one in found]
    lines = [f"{one.month:8} {one.table:14} about {one.rows:>12,} rows {one.bytes_size:>16,} bytes" for one in found]
    say(shown, "\n".join(lines) or "SQLite has no partitions.", as_json)


@app.command()
def prune(
    keep_months: Annotated[int, typer.Option(help="Whole months that stay, besides this one.")] = 24,
    is_dropped: Annotated[
        bool, typer.Option("--drop", help="Delete them; else PostgreSQL keeps them as detached tables, to archive.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take old months' entries away, after a proof that the books balance; sums, invoices and budgets stay."""
    acting = operator()
    done = read(lambda c: prune_ledger(c, acting, keep_months=keep_months, is_dropped=is_dropped))
    detached = "" if is_dropped or not done["tables"] else f" Detached, yours to archive: {', '.join(done['tables'])}."
    say(
        done,
        f"{done['entries']} entries from before {done['before']} were taken away; their sums stay.{detached}",
        as_json,
    )


@app.command()
def backup(
    target: Annotated[Path, typer.Option("--to", help="A file that does not exist yet.")], as_json: AsJson = False
) -> None:
    """Copy the SQLite ledger to a file, as it is at one moment; the server may run. Keep the pepper with it."""
    entries = or_exit(lambda: back_up(home_folder(), target))
    say({"file": str(target), "entries": entries}, f"{target}: {entries} entries.", as_json)


@app.command()
def restore(
    source: Annotated[Path, typer.Option("--from", help="A file that `tollgate db backup` made.")],
    is_replacing: Annotated[bool, typer.Option("--replace", help="Put the present database aside.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup of the SQLite ledger in place. Stop the server first."""
    entries = or_exit(lambda: put_back(source, home_folder(), is_replacing=is_replacing))
    say({"file": str(source), "entries": entries}, f"{entries} entries restored; start the server.", as_json)

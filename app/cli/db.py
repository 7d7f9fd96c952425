"""tollgate db: copy, recover."""

from typing import Annotated

import typer

from app.cli.context import AsJson, home_folder, read, say, with_database
from app.clock import SystemClock
from app.metering.copying import copy_database
from app.metering.database import Database
from app.metering.replicas import recover_lost

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
def recover(
    replica: Annotated[str, typer.Option(help="The lost replica's name: the file `replica` of its data folder.")],
    as_json: AsJson = False,
) -> None:
    """Settle what a replica had running whose disk is lost, by what it last reported; it must not run any more."""
    count = read(lambda connection: recover_lost(connection, replica_id=replica, clock=SystemClock()))
    text = f"{count} requests of {replica} are settled as crashed; nothing of it is held any more."
    say({"replica": replica, "settled": count}, text, as_json)

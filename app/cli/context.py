"""What every command needs: the data folder, the database, and a way to end with one line on an error."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import typer

from app.errors import TollgateError
from app.metering.database import Database
from app.settings import load_settings

T = TypeVar("T")


def home_folder() -> Path:
    """TOLLGATE_HOME, or ~/.tollgate."""
    return Path(os.environ.get("TOLLGATE_HOME") or Path.home() / ".tollgate").expanduser()


def with_database(work: Callable[[Database], Awaitable[T]]) -> T:
    """Run `work` on the opened database; an error of Tollgate's ends the command with its message and exit code 1."""

    async def run() -> T:
        settings = load_settings()
        database = Database(home=home_folder(), url=settings.metering.database_url)
        try:
            await database.open()
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except TollgateError as error:
        typer.echo(f"tollgate: {error.message}", err=True)
        raise typer.Exit(1) from error

"""What every command needs: the data folder, the database, who acts, and one line on an error."""

import asyncio
import getpass
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from app.clock import SystemClock
from app.errors import TollgateError
from app.metering.acts import Operator
from app.metering.database import Database, Work
from app.metering.keys import Pepper
from app.metering.limits import LimitRule
from app.settings import load_settings

T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def home_folder() -> Path:
    """TOLLGATE_HOME, or ~/.tollgate."""
    return Path(os.environ.get("TOLLGATE_HOME") or Path.home() / ".tollgate").expanduser()


def with_database(work: Callable[[Database], Awaitable[T]]) -> T:
    """Run `work` on the opened database; an error of Tollgate's ends the command with its message and exit code 1."""

    async def run() -> T:
        settings = load_settings()
        database = Database(home=home_folder(), url=settings.metering.opened_url)
        try:
            await database.open()
            return await work(database)
        finally:
            await database.close()

    return or_exit(lambda: asyncio.run(run()))


def or_exit(work: Callable[[], T]) -> T:
    """The result, or one line on standard error and exit code 1."""
    try:
        return work()
    except TollgateError as error:
        typer.echo(f"tollgate: {error.message}", err=True)
        raise typer.Exit(1) from error


def or_usage(parse: Callable[[], T]) -> T:
    """The result, or the usage error of an option that cannot be parsed (exit code 2)."""
    try:
        return parse()
    except ValueError as cause:
        raise typer.BadParameter(str(cause)) from cause
    except TollgateError as cause:
        raise typer.BadParameter(cause.message) from cause


def read(work: Work[T]) -> T:
    """The result of one transaction."""
    return with_database(lambda database: database.run(work))


def operator() -> Operator:
    """Whoever runs the command, as the audit log names them."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return Operator(actor=f"cli:{name}", clock=SystemClock(), pepper=Pepper(home_folder()))


def limits_of(requests: int | None, tokens: int | None, concurrent: int | None) -> LimitRule:
    """Three options as limits."""
    return or_exit(
        lambda: LimitRule(requests_per_minute=requests, tokens_per_minute=tokens, concurrent_requests=concurrent)
    )


def printed_limits(limits: dict[str, Any]) -> str:
    """Limits in a few words."""
    short = {"requests_per_minute": "req/min", "tokens_per_minute": "tok/min", "concurrent_requests": "at once"}
    return ", ".join(f"{limits[name]:,} {word}" for name, word in short.items() if limits[name] is not None)


def say(shown: Any, text: str, as_json: bool) -> None:
    """One object as JSON, or one line."""
    typer.echo(json.dumps(shown) if as_json else text)

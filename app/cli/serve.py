"""tollgate serve: the server."""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, cast

import typer
import uvicorn

from app.errors import TollgateError
from app.observability import logs
from app.settings import load_settings, printed


class Server(uvicorn.Server):
    """Tells the road that it drains as soon as a signal asks for the end, and greets when it has begun."""

    greet: Callable[[], Coroutine[Any, Any, None]] | None = None
    _greeting: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if self.greet is not None and self.started:
            self._greeting = asyncio.create_task(self.greet())

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Drain and end with code 0; a second signal ends at once. (uvicorn would die of the signal after its work.)"""
        serving = getattr(cast("Any", self.config.app).state, "serving", None)
        if serving is not None:
            serving.is_draining = True
        self.force_exit = self.should_exit
        self.should_exit = True


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A settings file; default: tollgate.yaml, if there is one.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    is_welcoming: Annotated[
        bool, typer.Option("--welcome", help="When ready, print a key and a call for each task.")
    ] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the settings and end.")] = False,
) -> None:
    """Start the server. Settings: tollgate.yaml, then TOLLGATE_* variables, then flags."""
    api = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    flags: dict[str, Any] = {"api": api} if api else {}
    if log_level is not None:
        flags["log_level"] = log_level
    from app.main import build_app  # here, because it brings torch: seconds that other commands must not pay

    try:
        settings = load_settings(flags, file=config)
        if print_config:
            typer.echo(printed(settings), nl=False)
            return
        logs.set_up(level=settings.log_level, is_json=settings.log_format == "json")
        app = build_app(settings)
    except TollgateError as error:
        typer.echo(f"tollgate: {error.message}", err=True)
        raise typer.Exit(1) from error
    server = Server(
        uvicorn.Config(
            app, host=settings.api.host, port=settings.api.port, log_config=None, access_log=False,
            proxy_headers=False,  # api/context.py reads X-Forwarded-For, from trusted proxies only
            timeout_graceful_shutdown=int(settings.api.drain_s), timeout_keep_alive=75,
        )
    )  # fmt: skip
    if is_welcoming:
        from app.cli.welcome import welcome  # it needs the registry, which other commands need not load

        server.greet = lambda: welcome(app.state, settings)
    server.run()
    logging.getLogger(__name__).info("stopped")
    raise typer.Exit(0 if server.started else 1)

"""tollgate serve: the server."""

import asyncio
import logging
import math
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
import uvicorn
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from app.api.guard import guarded
from app.cli.listening import listen_all
from app.errors import TollgateError
from app.observability import logs
from app.observability.process import settle_heap
from app.settings import Settings, load_settings, printed

if TYPE_CHECKING:
    from app.serving import Serving


CUT_OFF_S = 8.0
"""How long requests that are cut off may take to settle and say goodbye."""
ABORT_S = 3.0
POLL_S = 0.1
FILES_WANTED = 65_536
FILES_OWN = 160
"""Files that are open without any customer: the database's and Redis' connections, journal, spool, engine, webhooks."""
SWITCH_S = 0.0005
"""How long a thread keeps the interpreter that another waits for. With Python's 5 ms, a transaction could wait so long
after each of its statements while a burst of requests was parsed."""


class Server(uvicorn.Server):
    """Leaves in steps when it is asked to end, and greets when it has begun.

    Not ready at once, but accepting for `drain_delay_s`; then it accepts nothing more, and what runs may go on for
    `drain_s`; what still runs then is cut off and settled. The exit code is 0. A second signal ends at once, with 1:
    what ran is settled by the next start.
    """

    greet: Callable[[], Coroutine[Any, Any, None]] | None = None
    """Run when the models are loaded."""
    _beginning: asyncio.Task[None] | None = None
    _asked_s: float | None = None

    def __init__(self, config: uvicorn.Config, *, drain_delay_s: float, drain_s: float) -> None:
        super().__init__(config)
        self._drain_delay_s = drain_delay_s
        self._drain_s = drain_s

    @property
    def _serving(self) -> "Serving | None":
        return getattr(cast("Any", self.config.app).state, "serving", None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if self.started:
            self._beginning = asyncio.create_task(self._begin())

    async def _begin(self) -> None:
        while (serving := self._serving) is None or not serving.is_started:  # noqa: ASYNC110 (once, at the start)
            await asyncio.sleep(POLL_S)
        settle_heap()
        if self.greet is not None:
            await self.greet()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """The first signal begins to leave, the second aborts. (uvicorn would die of the signal after its work.)"""
        if self._asked_s is not None:
            self.force_exit = self.should_exit = True
            threading.Timer(ABORT_S, os._exit, (1,)).start()
            return
        self._asked_s = time.monotonic()
        if (serving := self._serving) is not None:
            serving.is_leaving = True
        if not self.started:
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """See uvicorn: asked ten times a second whether to shut down."""
        if self._asked_s is not None and time.monotonic() - self._asked_s >= self._drain_delay_s:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn, which waits for its connections: for those whose time is over, this ends their requests."""
        serving = self._serving
        if serving is None:
            await super().shutdown(sockets)
            return
        serving.is_leaving = serving.is_draining = True

        async def cut_off() -> None:
            await asyncio.sleep(self._drain_s)
            await serving.cut_off()

        cutting = asyncio.create_task(cut_off())
        try:
            await super().shutdown(sockets)
        finally:
            cutting.cancel()
            await asyncio.gather(cutting, return_exceptions=True)


class InOneLine:
    """The application; a start that fails by an error of ours is told by its message, without a trace."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self.state = app.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def told(message: Message) -> None:
            error = sys.exc_info()[1]
            if message["type"] == "lifespan.startup.failed" and isinstance(error, TollgateError):
                message = {**message, "message": error.message}
            await send(message)

        await self._app(scope, receive, told if scope["type"] == "lifespan" else send)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A settings file; default: tollgate.yaml, if there is one.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that answer HTTP; all share one engine.")] = None,
    is_welcoming: Annotated[
        bool, typer.Option("--welcome", help="When ready, print a key and a call for each task.")
    ] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the settings and end.")] = False,
) -> None:
    """Start the server. Settings: tollgate.yaml, then TOLLGATE_* variables, then flags."""
    given = (("host", host), ("port", port), ("workers", workers))
    api = {name: value for name, value in given if value is not None}
    flags: dict[str, Any] = {"api": api} if api else {}
    if log_level is not None:
        flags["log_level"] = log_level
    from app.cli.waiting import wait_for_database  # here, because they bring every room: other commands need not pay
    from app.main import build_app

    try:
        settings = load_settings(flags, file=config)
        if print_config:
            typer.echo(printed(settings), nl=False)
            return
        raise_file_limit()
        logs.set_up(level=settings.log_level, is_json=settings.log_format == "json")
        if settings.api.workers > 1:
            from app.cli.workers import run_workers

            raise typer.Exit(asyncio.run(run_workers(settings, is_welcoming=is_welcoming)))
        app = build_app(settings)
        if not asyncio.run(wait_for_database(settings)):
            raise typer.Exit(0)
        listeners = None if settings.api.admin_port is None else listen_all(settings.api)
    except TollgateError as error:
        typer.echo(f"tollgate: {error.message}", err=True)
        raise typer.Exit(1) from error
    server = server_of(app, settings, is_welcoming=is_welcoming)
    for listener in listeners or ():
        logging.getLogger(__name__).info("listening on http://%s:%d", *listener.getsockname()[:2])
    server.run(sockets=listeners)
    logging.getLogger(__name__).info("stopped")
    raise typer.Exit(0 if server.started and not server.force_exit else 1)


def raise_file_limit() -> None:
    """As many open files as the system grants: a connection is one, and shells often allow 1024 only."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_max(wanted: int) -> int:
    """As many as the files that the system grants leave room for: a caller past them would wait, and get no answer."""
    granted = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if granted == resource.RLIM_INFINITY or granted >= wanted + FILES_OWN:
        return wanted
    possible = max(1, granted - FILES_OWN)
    logging.getLogger(__name__).warning(
        "the system grants %d open files: %d connections at a time are taken, not %d; raise it (ulimit -Hn)",
        granted, possible, wanted,
    )  # fmt: skip
    return possible


def server_of(app: FastAPI, settings: Settings, *, is_welcoming: bool) -> Server:
    """The server of one process."""
    sys.setswitchinterval(SWITCH_S)
    api = settings.api.model_copy(update={"connections_max": connections_max(settings.api.connections_max)})
    server = Server(
        uvicorn.Config(
            InOneLine(app), host=settings.api.host, port=settings.api.port, log_config=None, access_log=False,
            http=guarded(api),
            proxy_headers=False,  # api/context.py reads X-Forwarded-For, from trusted proxies only
            timeout_graceful_shutdown=math.ceil(settings.api.drain_s + CUT_OFF_S), timeout_keep_alive=75,
        ),
        drain_delay_s=settings.api.drain_delay_s, drain_s=settings.api.drain_s,
    )  # fmt: skip
    if is_welcoming:
        from app.cli.welcome import welcome  # it needs the registry, which other commands need not load

        server.greet = lambda: welcome(app.state, settings)
    return server

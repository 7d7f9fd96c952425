"""tollgate serve --workers: one engine and one listening socket for several processes that answer HTTP.

Run as `python -m app.cli.workers` this is such a process: the first line on its stdin says what to do, its stdin's end
is the order to drain.
"""

import asyncio
import json
import logging
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from app.admission.mapped_buckets import make_file
from app.cli.listening import listen_all
from app.cli.serve import CUT_OFF_S, server_of
from app.cli.waiting import wait_for_database
from app.engine.transports.process import EngineProcess, KeptProcess, await_stdin_end, no_room, own_environment
from app.errors import SettingsError
from app.main import build_app, open_database, settle_leftovers
from app.observability import logs
from app.observability.metrics import PROCESSES_FOLDER
from app.secret import REVEALED
from app.settings import Settings

log = logging.getLogger(__name__)
LIMITS_NAME = "limits"
"""Of the file, beside the engine's socket, in which the workers count rate limits together."""
ENGINE_CLOSE_S = 5.0
DRAIN_MARGIN_S = CUT_OFF_S + 5.0


async def run_workers(settings: Settings, *, is_welcoming: bool) -> int:
    """Keep the engine and the workers until a signal asks for the end; returns the exit code."""
    if settings.engine.transport != "child":
        raise SettingsError("several workers share an engine of its own process: set engine.transport to child")
    listeners = listen_all(settings.api)
    settings = with_port(settings, listeners[0].getsockname()[1])
    build_app(settings)  # a wrong catalogue stops the start here, in one line
    if not await wait_for_database(settings, listeners=listeners):
        return 0
    database = open_database(settings)
    await database.open()
    try:
        await settle_leftovers(settings, database)
    finally:
        await database.close()
    engine = EngineProcess(settings=settings.engine, log_level=settings.log_level, log_format=settings.log_format)
    asked, aborted, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

    def on_signal() -> None:
        (aborted if asked.is_set() else asked).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    counters = engine.folder / "metrics"
    try:
        counters.mkdir()
        make_file(engine.folder / LIMITS_NAME, workers=settings.api.workers)
    except OSError as cause:
        raise no_room(cause) from cause
    workers = [
        worker_process(settings, number, listeners, engine, counters, is_welcoming=is_welcoming and number == 1)
        for number in range(1, settings.api.workers + 1)
    ]
    try:
        for process in (engine, *workers):
            process.start()
        log.info("%d workers listen on http://%s:%d", len(workers), settings.api.host, settings.api.port)
        await asked.wait()
    finally:
        for listener in listeners:
            listener.close()
        abort = asyncio.create_task(kill_when(aborted, (*workers, engine)))
        drain_s = settings.api.drain_delay_s + settings.api.drain_s + DRAIN_MARGIN_S
        await asyncio.gather(*(worker.close(timeout_s=drain_s) for worker in workers))
        await engine.close(timeout_s=ENGINE_CLOSE_S)
        abort.cancel()
    log.info("stopped")
    return 1 if aborted.is_set() else 0


async def kill_when(aborted: asyncio.Event, processes: Iterable[KeptProcess]) -> None:
    """A second signal: nobody waits for anything. What ran is settled by the next start."""
    await aborted.wait()
    for process in processes:
        process.signal(signal.SIGKILL)


def with_port(settings: Settings, port: int) -> Settings:
    """The settings with the port that was found."""
    return settings.model_copy(update={"api": settings.api.model_copy(update={"port": port})})


def worker_process(
    settings: Settings, number: int, listeners: list[socket.socket], engine: EngineProcess, counters: Path, *,
    is_welcoming: bool,
) -> KeptProcess:  # fmt: skip
    """Worker `number`, not yet started. A restarted one bears the same name, and settles what it left open."""
    descriptors = [listener.fileno() for listener in listeners]
    order = {
        "settings": settings.model_dump(mode="json", context=REVEALED), "worker": number, "listeners": descriptors,
        "engine": str(engine.socket), "is_welcoming": is_welcoming,
    }  # fmt: skip
    return KeptProcess(
        name=f"worker {number}", command=(sys.executable, "-m", "app.cli.workers"),
        environment=own_environment() | {PROCESSES_FOLDER: str(counters)},
        first_line=json.dumps(order).encode() + b"\n", pass_fds=tuple(descriptors), stdout=None,
    )  # fmt: skip


def main() -> None:
    """A worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to everybody; the parent answers
    order: dict[str, Any] = json.loads(sys.stdin.buffer.readline() or b"{}")
    if not order:
        return
    settings = Settings(**order["settings"])
    logs.set_up(level=settings.log_level, is_json=settings.log_format == "json")
    engine = Path(order["engine"])
    app = build_app(
        settings, worker=order["worker"], engine_socket=engine, limits_file=engine.with_name(LIMITS_NAME)
    )  # fmt: skip
    server = server_of(app, settings, is_welcoming=order["is_welcoming"])

    def drain_at_end() -> None:
        await_stdin_end()
        server.handle_exit(signal.SIGTERM, None)

    threading.Thread(target=drain_at_end, name="tollgate-parent", daemon=True).start()
    server.run(sockets=[socket.socket(fileno=descriptor) for descriptor in order["listeners"]])


if __name__ == "__main__":
    main()

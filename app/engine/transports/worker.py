"""The engine's process: one loop on a thread, and a Unix socket on which any number of API processes ask for work.

Run as `python -m app.engine.transports.worker <socket>`; its first line on stdin is its settings, its stdin's end is
its own. The loop's thread writes to no socket: it hands each step's events over and goes on.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import msgspec

from app.clock import SystemClock
from app.engine.client import EngineStats, LoadedModel
from app.engine.events import Event, FailedEvent, FinishedEvent, FinishReason, TokenEvent
from app.engine.jobs import Job, ModelSpec
from app.engine.loop import EngineLoop
from app.engine.messages import Cancel, Close, Load, Pause, Submit, Unload
from app.engine.settings import EngineSettings
from app.engine.transports.postbag import Postbag
from app.engine.transports.process import await_stdin_end
from app.engine.transports.wire import (
    Batch,
    CancelJob,
    Frames,
    FromEngine,
    Loaded,
    LoadModel,
    Read,
    Refused,
    Stats,
    SubmitDecode,
    SubmitEncode,
    ToEngine,
    UnloadModel,
    WireEvent,
    error_to_wire,
    framed,
    to_wire,
)  # fmt: skip
from app.errors import Conflict, ModelUnavailable, TollgateError
from app.observability import logs
from app.observability.process import resident_bytes, settle_heap

log = logging.getLogger(__name__)
STATS_S = 0.25
BEAT_S = 1.0
"""Something is said at least so often, so that silence means a process that hangs."""
END_S = 3.0
"""How long the loop may take over its last step before the process ends without it."""


class Window:
    """How many tokens of each job its reader has not taken; at `tokens_max` the row pauses, below it goes on.

    The loop's thread counts up, so that a pause holds before the next step; the socket's thread counts down.
    """

    def __init__(self, *, tokens_max: int, pause: Callable[[str, bool], None]) -> None:
        self._tokens_max = tokens_max
        self._pause = pause
        self._unread: dict[str, int] = {}
        self._paused: set[str] = set()
        self._lock = threading.Lock()

    def put(self, events: list[Event]) -> None:
        """Count a step's tokens, and pause the rows whose readers are too far behind."""
        with self._lock:
            for event in events:
                if isinstance(event, FinishedEvent | FailedEvent):
                    self._unread.pop(event.job_id, None)
                    self._paused.discard(event.job_id)
                elif isinstance(event, TokenEvent):
                    self._unread[event.job_id] = self._unread.get(event.job_id, 0) + len(event.ids)
            for event in events:
                job_id = event.job_id
                if job_id not in self._paused and self._unread.get(job_id, 0) >= self._tokens_max:
                    self._paused.add(job_id)
                    self._pause(job_id, True)

    def take(self, job_id: str, tokens: int) -> None:
        """The reader took `tokens`."""
        with self._lock:
            if job_id not in self._unread:
                return
            self._unread[job_id] -= tokens
            if job_id in self._paused and self._unread[job_id] < self._tokens_max:
                self._paused.discard(job_id)
                self._pause(job_id, False)


@dataclass(slots=True, kw_only=True)
class Held:
    """A model in the engine and the connections that need it; the last one to leave takes it along."""

    spec: ModelSpec
    answer: asyncio.Future[LoadedModel | TollgateError]
    users: set["Connection"] = field(default_factory=set["Connection"])


class Connection(asyncio.Protocol):
    """One API process. When it goes, its jobs are cancelled and its claims on models end."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker
        self._frames = Frames()
        self._transport: asyncio.WriteTransport | None = None
        self.jobs: dict[int, Job] = {}
        self.unloaded: set[int] = set()
        """Handles whose model this connection gave back while others keep it: their end is a failure."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's does not derive from it
        self._worker.connections.add(self)
        self.send(Stats(self._worker.stats))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._transport = None
        self._worker.leave(self)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            for body in self._frames.feed(data):
                self._worker.receive(self, self._worker.decoder.decode(body))
        except (ValueError, msgspec.MsgspecError):
            log.exception("a connection is closed: what it sent makes no sense")
            if self._transport is not None:
                self._transport.close()

    def send(self, message: FromEngine) -> None:
        """Write one message; what a slow process has not read is bounded by its jobs' windows."""
        if self._transport is not None:
            self._transport.write(framed(message))


class Worker:
    """What the socket's thread knows: connections, whose job is whose, who needs which model."""

    def __init__(self, settings: EngineSettings) -> None:
        self.connections: set[Connection] = set()
        self.decoder = msgspec.msgpack.Decoder(ToEngine)
        self._asyncio_loop = asyncio.get_running_loop()
        self._owners: dict[str, tuple[Connection, int]] = {}
        self._held: dict[str, Held] = {}
        self._jobs_count = 0
        self._loop = EngineLoop(settings=settings, clock=SystemClock(), emit_batch=self._emit)
        self._window = Window(tokens_max=settings.event_queue, pause=self._pause)
        self._postbag = Postbag(tokens_max=settings.event_queue // 2)
        self._telling: asyncio.TimerHandle | None = None
        self.stats = with_memory(self._loop.stats())
        self._thread = threading.Thread(target=self._run_loop, name="tollgate-engine", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the loop, or give up on it after END_S. May be called on any thread."""
        self._loop.inbox.put(Close())
        self._thread.join(END_S)

    def receive(self, connection: Connection, message: ToEngine) -> None:
        """One message, handed to the loop in the order of arrival."""
        match message:
            case SubmitDecode(handle, job) | SubmitEncode(handle, job):
                self._jobs_count += 1
                named = dataclasses.replace(job, id=str(self._jobs_count))
                self._owners[named.id] = connection, handle
                connection.jobs[handle] = named
                self._postbag.expect(named)
                self._loop.inbox.put(Submit(named))
            case CancelJob(handle):
                if handle in connection.jobs:
                    self._loop.inbox.put(Cancel(connection.jobs[handle].id))
            case Read(handle, tokens):
                if handle in connection.jobs:
                    self._window.take(connection.jobs[handle].id, tokens)
            case LoadModel(call, spec):
                self._load(connection, call, spec)
            case UnloadModel(model):
                self._unload(connection, model)

    def leave(self, connection: Connection) -> None:
        """The process at the other end is gone."""
        self.connections.discard(connection)
        for job in connection.jobs.values():
            del self._owners[job.id]
            self._loop.inbox.put(Cancel(job.id))
        connection.jobs.clear()
        for model in [name for name, held in self._held.items() if connection in held.users]:
            self._unload(connection, model)

    async def tell_stats(self) -> None:
        """Send how busy the engine is to everybody, for ever: when it has changed, and as a sign of life."""
        told, told_s = self._loop.stats(), 0.0
        while True:
            await asyncio.sleep(STATS_S)
            found, now_s = self._loop.stats(), self._asyncio_loop.time()
            if found != told or now_s - told_s >= BEAT_S:
                told, told_s = found, now_s
                self.stats = with_memory(found)
                for connection in self.connections:
                    connection.send(Stats(self.stats))

    def _load(self, connection: Connection, call: int, spec: ModelSpec) -> None:
        held = self._held.get(spec.id)
        if held is not None and held.spec != spec and held.users - {connection}:
            error = Conflict(f"{spec.id} is loaded from elsewhere, or otherwise, and another process uses it")
            connection.send(Refused(call, error_to_wire(error)))
            return
        if held is None or held.spec != spec:
            answer: asyncio.Future[LoadedModel | TollgateError] = self._asyncio_loop.create_future()
            held = self._held[spec.id] = Held(spec=spec, answer=answer)

            def settle(found: LoadedModel | TollgateError) -> None:
                if isinstance(found, LoadedModel):
                    settle_heap()
                elif self._held.get(spec.id) is held:
                    del self._held[spec.id]
                answer.set_result(found)

            self._loop.inbox.put(Load(spec, lambda found: self._call(lambda: settle(found))))
        held.users.add(connection)

        def tell(answer: asyncio.Future[LoadedModel | TollgateError]) -> None:
            found = answer.result()
            is_refused = isinstance(found, TollgateError)
            connection.send(Refused(call, error_to_wire(found)) if is_refused else Loaded(call, found))

        held.answer.add_done_callback(tell)

    def _unload(self, connection: Connection, model: str) -> None:
        held = self._held.get(model)
        if held is None or connection not in held.users:
            return
        held.users.discard(connection)
        if not held.users:
            del self._held[model]
            self._loop.inbox.put(Unload(model))
            return
        for handle, job in connection.jobs.items():
            if job.model == model:
                connection.unloaded.add(handle)
                self._loop.inbox.put(Cancel(job.id))

    def _pause(self, job_id: str, is_paused: bool) -> None:
        self._loop.inbox.put(Pause(job_id, is_paused=is_paused))

    def _run_loop(self) -> None:
        try:
            self._loop.run()
        except BaseException:
            log.critical("the engine's loop failed; its process ends", exc_info=True)
            os._exit(1)

    def _emit(self, events: list[Event]) -> None:
        """On the loop's thread."""
        self._window.put(events)
        due_s = self._postbag.put(events, self._asyncio_loop.time())
        if due_s is not None:
            self._call(lambda: self._tell_at(due_s))

    def _call(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the socket's thread has ended: nobody is there to be told
            self._asyncio_loop.call_soon_threadsafe(work)

    def _tell_at(self, due_s: float) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if due_s <= self._asyncio_loop.time():
            self._tell()
        else:
            self._telling = self._asyncio_loop.call_at(due_s, self._tell)

    def _tell(self) -> None:
        events, due_s = self._postbag.take(self._asyncio_loop.time())
        self._deliver(events)
        if due_s is not None:
            self._tell_at(due_s)

    def _deliver(self, events: list[Event]) -> None:
        """One message a connection, however many rows have something to tell."""
        batches: dict[Connection, list[WireEvent]] = defaultdict(list)
        for event in events:
            owner = self._owners.get(event.job_id)
            if owner is None:
                continue
            connection, handle = owner
            if isinstance(event, FinishedEvent | FailedEvent):
                del self._owners[event.job_id], connection.jobs[handle]
                is_unloaded = handle in connection.unloaded
                connection.unloaded.discard(handle)
                if is_unloaded and isinstance(event, FinishedEvent) and event.reason is FinishReason.CANCELLED:
                    error = ModelUnavailable("The model was unloaded while it worked on this; try again.")
                    event = FailedEvent(job_id=event.job_id, error=error, usage=event.usage, times=event.times)
            batches[connection].append(to_wire(handle, event))
        for connection, found in batches.items():
            connection.send(Batch(found))


def with_memory(stats: EngineStats) -> EngineStats:
    """What the loop says, and what its process takes."""
    return dataclasses.replace(stats, resident_bytes=int(resident_bytes()))


def watch_parent(worker: Worker, socket: Path) -> None:
    """Wait for stdin's end, then end: the parent asks for it, or is dead."""
    await_stdin_end()
    worker.close()
    with contextlib.suppress(OSError):  # whoever made the folder may have removed it already
        socket.unlink(missing_ok=True)
        socket.parent.rmdir()
    os._exit(0)


async def serve(socket: Path, settings: EngineSettings) -> None:
    """Accept connections until the process ends."""
    worker = Worker(settings)
    threading.Thread(target=watch_parent, args=(worker, socket), name="tollgate-parent", daemon=True).start()
    await asyncio.get_running_loop().create_unix_server(lambda: Connection(worker), socket)
    await worker.tell_stats()


def main() -> None:
    """The process. Signals that a terminal or a supervisor sends to a whole group are the parent's to answer."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    options = json.loads(sys.stdin.buffer.readline() or b"{}")
    if not options:
        return
    logs.set_up(level=options["log_level"], is_json=options["is_json"])
    socket = Path(sys.argv[1])
    socket.unlink(missing_ok=True)  # what a killed one left
    asyncio.run(serve(socket, EngineSettings.model_validate(options["settings"])))


if __name__ == "__main__":
    main()

"""The engine in a process of its own: jobs go over a Unix socket, and outlive the engine's death where they can."""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from app.engine.client import EngineStats, LoadedModel, nobody_asks
from app.engine.events import Event, FailedEvent, FinishedEvent, FinishReason, JobUsage, TokenEvent
from app.engine.jobs import DecodeJob, Job, ModelSpec
from app.engine.settings import EngineSettings
from app.engine.transports.channel import Channel
from app.engine.transports.link import Link
from app.engine.transports.process import EngineProcess
from app.engine.transports.wire import (
    Batch,
    CancelJob,
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
    error_from_wire,
    from_wire,
)  # fmt: skip
from app.errors import EngineLost, EngineOverloaded, InvalidRequest, TollgateError

log = logging.getLogger(__name__)
DOWN = EngineStats(running=0, waiting=0, loaded=(), is_alive=False)
CONNECT_POLL_S = 0.02
START_S = 60.0
"""How long a load waits for an engine that is not there."""
RESUME_S = 30.0
"""How long a job that has delivered nothing waits for the next engine."""
CLOSE_S = 5.0
CHECKS = 4
"""How often a hung engine is looked for, in the time after which it counts as one."""


@dataclass(slots=True, kw_only=True)
class Open:
    """A job on its way."""

    job: Job
    channel: Channel
    handle: int
    output_tokens: int = 0
    tokens_read: int = 0
    """Taken by the reader and not yet told to the engine."""
    has_delivered: bool = False
    is_resumed: bool = False
    is_cancelled: bool = False

    @property
    def usage(self) -> JobUsage:
        """What is known of it when the engine is no longer there to tell."""
        if not self.has_delivered:
            return JobUsage()
        return JobUsage(input_tokens=len(self.job.ids), output_tokens=self.output_tokens)


class ChildEngine:
    """An EngineClient of the engine that listens on a socket. Made, used and closed on one event loop.

    With `process` it also keeps that engine's process; without, somebody else does, and others share it.
    """

    def __init__(self, *, settings: EngineSettings, socket: Path, process: EngineProcess | None = None) -> None:
        self.process = process
        self.on_gone: Callable[[str, str], None] = nobody_asks
        self._settings = settings
        self._socket = socket
        self._numbers = itertools.count(1)
        self._jobs: dict[str, Open] = {}
        self._handles: dict[int, Open] = {}
        self._specs: dict[str, ModelSpec] = {}
        self._calls: dict[int, asyncio.Future[LoadedModel]] = {}
        self._link: Link | None = None
        self._stats = DOWN
        self._losses = 0
        self._is_up = asyncio.Event()
        self._is_closed = False
        if process is not None:
            process.start()
        self._running = asyncio.create_task(self._run())

    @classmethod
    def start(cls, settings: EngineSettings, *, log_level: str = "info", log_format: str = "text") -> "ChildEngine":
        """An engine of one's own. Returns at once: `load` waits until the process answers."""
        process = EngineProcess(settings=settings, log_level=log_level, log_format=log_format)
        return cls(settings=settings, socket=process.socket, process=process)

    def submit(self, job: Job) -> AsyncIterator[Event]:
        """See EngineClient.submit."""
        channel = Channel(job.id, tokens_max=self._settings.event_queue)
        opened = Open(job=job, channel=channel, handle=next(self._numbers))
        if self._is_closed or not self._is_up.is_set():
            channel.put(FailedEvent(job_id=job.id, error=EngineLost()))
        elif job.id in self._jobs or len(self._jobs) >= self._settings.queue_jobs + self._settings.slots:
            channel.put(FailedEvent(job_id=job.id, error=EngineOverloaded()))
        else:
            self._jobs[job.id] = opened
            self._post(opened)
        return self._events(opened)

    async def cancel(self, job_id: str) -> None:
        """See EngineClient.cancel."""
        opened = self._jobs.get(job_id)
        if opened is None:
            return
        opened.is_cancelled = True
        if opened.handle in self._handles:
            self._send(CancelJob(opened.handle))
        else:
            self._end(opened, FinishedEvent(job_id=job_id, reason=FinishReason.CANCELLED, usage=JobUsage()))

    async def load(self, spec: ModelSpec) -> LoadedModel:
        """See EngineClient.load. An engine that dies over it is asked once more; then raises EngineLost."""
        for _ in range(2):
            await self._until_up()
            with contextlib.suppress(EngineLost):
                loaded = await self._call(spec)
                self._specs[spec.id] = spec
                return loaded
        raise EngineLost(f"the engine stopped while it loaded {spec.id}; the log says why")

    async def unload(self, model_id: str) -> None:
        """See EngineClient.unload."""
        self._specs.pop(model_id, None)
        self._send(UnloadModel(model_id))

    def stats(self) -> EngineStats:
        """See EngineClient.stats. As old as the engine's last message of that kind: a quarter of a second."""
        return self._stats if self._is_up.is_set() else replace(DOWN, losses=self._losses)

    async def close(self) -> None:
        """See EngineClient.close."""
        if self._is_closed:
            return
        self._is_closed = True
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        if self._link is not None:
            link = self._link
            link.close()
            await link.ended.wait()
        for opened in list(self._jobs.values()):
            self._end(opened, FailedEvent(job_id=opened.job.id, error=EngineLost(), usage=opened.usage))
        if self.process is not None:
            await self.process.close(timeout_s=CLOSE_S)

    async def _run(self) -> None:
        """Connect to each life of the engine in turn, and give it what the last one had."""
        while True:
            link = await self._connect()
            watching = asyncio.create_task(self._watch(link))
            try:
                await self._restore(link)
                await link.ended.wait()
            finally:
                watching.cancel()
                link.close()

    async def _watch(self, link: Link) -> None:
        """Kill an engine that lives and does nothing: its jobs then end as those of a dead one, and it starts again."""
        silent = 0
        while not link.ended.is_set():
            link.has_spoken = False
            await asyncio.sleep(self._settings.hang_s / CHECKS)
            silent = 0 if link.has_spoken else silent + 1
            if silent >= CHECKS or self._stats.step_s >= self._settings.hang_s:
                break
        else:
            return
        log.error("the engine has not moved for %.0f s and is killed", self._settings.hang_s)
        pid = link.peer or (self.process.pid if self.process is not None else None)
        if pid is None:
            link.abort()
            return
        with contextlib.suppress(OSError):  # it may have ended by itself; its end of the connection ends with it
            os.kill(pid, signal.SIGKILL)

    async def _connect(self) -> Link:
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(OSError):
                _, link = await loop.create_unix_connection(lambda: Link(self._receive, self._lose), str(self._socket))
                self._link = link
                return link
            await asyncio.sleep(CONNECT_POLL_S)

    async def _restore(self, link: Link) -> None:
        """Load again what was loaded, then send again the jobs that had delivered nothing."""
        for spec in list(self._specs.values()):
            try:
                await self._call(spec)
            except EngineLost:
                return
            except TollgateError as error:
                log.error("model %s could not be loaded again: %s", spec.id, error.message)
                self._specs.pop(spec.id, None)
                self.on_gone(spec.id, error.message)
        if self._link is not link:
            return
        self._is_up.set()
        for opened in list(self._jobs.values()):
            if opened.handle not in self._handles:
                self._post(opened)

    async def _until_up(self) -> None:
        if self._is_closed:
            raise EngineLost
        try:
            await asyncio.wait_for(self._is_up.wait(), START_S)
        except TimeoutError as cause:
            raise EngineLost(f"the engine did not start within {START_S:.0f} s; the log says why") from cause

    async def _call(self, spec: ModelSpec) -> LoadedModel:
        number = next(self._numbers)
        answer: asyncio.Future[LoadedModel] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        if self._link is None:
            raise EngineLost
        try:
            self._send(LoadModel(number, spec))
            return await answer
        finally:
            self._calls.pop(number, None)

    def _post(self, opened: Open) -> None:
        message = SubmitDecode if isinstance(opened.job, DecodeJob) else SubmitEncode
        self._handles[opened.handle] = opened
        try:
            self._send(message(opened.handle, opened.job))  # pyright: ignore[reportArgumentType] (the class fits the job)
        except OverflowError:
            error = InvalidRequest("a number of the request is too large")
            self._end(opened, FailedEvent(job_id=opened.job.id, error=error))

    def _send(self, message: ToEngine) -> None:
        if self._link is not None:
            self._link.send(message)

    def _receive(self, message: FromEngine) -> None:
        match message:
            case Batch(events):
                for event in events:
                    opened = self._handles.get(event.handle)
                    if opened is not None:
                        self._deliver(opened, from_wire(opened.job.id, event))
            case Stats(stats):
                self._stats = replace(stats, losses=self._losses)
            case Loaded(call, model):
                if (answer := self._calls.get(call)) is not None and not answer.done():
                    answer.set_result(model)
            case Refused(call, error):
                if (answer := self._calls.get(call)) is not None and not answer.done():
                    answer.set_exception(error_from_wire(error))

    def _deliver(self, opened: Open, event: Event) -> None:
        if isinstance(event, FinishedEvent | FailedEvent):
            self._end(opened, event)
            return
        if isinstance(event, TokenEvent):
            opened.output_tokens += len(event.ids)
        opened.has_delivered = True
        opened.channel.put(event)

    def _end(self, opened: Open, event: FinishedEvent | FailedEvent) -> None:
        """The job's one last event."""
        self._handles.pop(opened.handle, None)
        del self._jobs[opened.job.id]
        opened.channel.put(event)

    def _lose(self, link: Link) -> None:
        """The engine is gone: what has delivered something fails, the rest waits for the next one, once."""
        if self._link is not link:
            return
        self._link, self._stats = None, DOWN
        self._is_up.clear()
        for answer in self._calls.values():
            if not answer.done():
                answer.set_exception(EngineLost())
        if self._is_closed:
            return
        self._losses += link.is_answered
        sent = set(self._handles)
        self._handles.clear()
        resumed = 0
        for opened in list(self._jobs.values()):
            job_id = opened.job.id
            if opened.is_cancelled:
                self._end(opened, FinishedEvent(job_id=job_id, reason=FinishReason.CANCELLED, usage=opened.usage))
            elif opened.handle not in sent:
                continue  # it waits already
            elif opened.has_delivered or opened.is_resumed:
                self._end(opened, FailedEvent(job_id=job_id, error=EngineLost(), usage=opened.usage))
            else:
                opened.is_resumed, opened.handle = True, next(self._numbers)
                asyncio.get_running_loop().call_later(RESUME_S, self._give_up, opened)
                resumed += 1
        log.error("the engine is lost; %d jobs that had delivered nothing wait for the next one", resumed)

    def _give_up(self, opened: Open) -> None:
        if self._jobs.get(opened.job.id) is opened and opened.handle not in self._handles:
            self._end(opened, FailedEvent(job_id=opened.job.id, error=EngineLost()))

    async def _events(self, opened: Open) -> AsyncIterator[Event]:
        enough = max(1, self._settings.event_queue // 2)
        while True:
            event = await opened.channel.get()
            if isinstance(event, TokenEvent):
                opened.tokens_read += len(event.ids)
                if opened.tokens_read >= enough and opened.handle in self._handles:
                    self._send(Read(opened.handle, opened.tokens_read))
                    opened.tokens_read = 0
            yield event
            if isinstance(event, FinishedEvent | FailedEvent):
                return

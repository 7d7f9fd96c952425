"""The engine in this process: its loop on one thread, its events handed to the event loop of whoever asked."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

from app.clock import Clock
from app.engine.client import EngineStats, LoadedModel, nobody_asks
from app.engine.events import Event, FailedEvent, FinishedEvent
from app.engine.jobs import Job, ModelSpec
from app.engine.loop import EngineLoop
from app.engine.messages import Cancel, Close, Load, Message, Pause, Submit, Unload
from app.engine.settings import EngineSettings
from app.engine.transports.channel import Channel
from app.errors import EngineLost, EngineOverloaded, TollgateError


class InlineEngine:
    """An EngineClient over a thread of this process. Made, used and closed on one event loop."""

    def __init__(self, *, settings: EngineSettings, clock: Clock) -> None:
        self.on_gone: Callable[[str, str], None] = nobody_asks  # it never begins anew
        self._settings = settings
        self._asyncio_loop = asyncio.get_running_loop()
        self._channels: dict[str, Channel] = {}
        self._loop = EngineLoop(settings=settings, clock=clock, emit_batch=self._emit)
        self._thread = threading.Thread(target=self._loop.run, name="tollgate-engine", daemon=True)
        self._thread.start()
        self._is_closed = False

    def submit(self, job: Job) -> AsyncIterator[Event]:
        """See EngineClient.submit."""
        channel = Channel(job.id, tokens_max=self._settings.event_queue)
        if self._is_closed or not self._thread.is_alive():
            channel.put(FailedEvent(job_id=job.id, error=EngineLost()))
        elif job.id in self._channels or len(self._channels) >= self._settings.queue_jobs + self._settings.slots:
            channel.put(FailedEvent(job_id=job.id, error=EngineOverloaded()))
        else:
            self._channels[job.id] = channel
            self._send(Submit(job))
        return self._events(channel)

    async def cancel(self, job_id: str) -> None:
        """See EngineClient.cancel."""
        if job_id in self._channels:
            self._send(Cancel(job_id))

    async def load(self, spec: ModelSpec) -> LoadedModel:
        """See EngineClient.load."""
        if self._is_closed:
            raise EngineLost
        answer: asyncio.Future[LoadedModel | TollgateError] = self._asyncio_loop.create_future()

        def reply(found: LoadedModel | TollgateError) -> None:
            self._asyncio_loop.call_soon_threadsafe(lambda: None if answer.done() else answer.set_result(found))

        self._send(Load(spec, reply))
        found = await answer
        if isinstance(found, TollgateError):
            raise found
        return found

    async def unload(self, model_id: str) -> None:
        """See EngineClient.unload."""
        self._send(Unload(model_id))

    def stats(self) -> EngineStats:
        """See EngineClient.stats."""
        return self._loop.stats()

    async def close(self) -> None:
        """See EngineClient.close."""
        if not self._is_closed:
            self._is_closed = True
            self._send(Close())
            await asyncio.to_thread(self._thread.join)
            await asyncio.sleep(0)

    def _send(self, message: Message) -> None:
        self._loop.inbox.put(message)

    def _emit(self, events: list[Event]) -> None:
        if not self._asyncio_loop.is_closed():
            self._asyncio_loop.call_soon_threadsafe(self._deliver_all, events)

    def _deliver_all(self, events: list[Event]) -> None:
        for event in events:
            self._deliver(event)

    def _deliver(self, event: Event) -> None:
        channel = self._channels.get(event.job_id)
        if channel is None:
            return
        channel.put(event)
        if isinstance(event, FinishedEvent | FailedEvent):
            del self._channels[event.job_id]
        elif channel.is_overfull and not channel.is_paused:
            channel.is_paused = True
            self._send(Pause(event.job_id, is_paused=True))

    async def _events(self, channel: Channel) -> AsyncIterator[Event]:
        while True:
            event = await channel.get()
            if channel.is_paused and not channel.is_overfull:
                channel.is_paused = False
                self._send(Pause(channel.job_id, is_paused=False))
            yield event
            if isinstance(event, FinishedEvent | FailedEvent):
                return

"""The engine in this process: its loop on one thread, its events handed to the event loop of whoever asked."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator

from app.clock import Clock
from app.engine.client import EngineStats, LoadedModel
from app.engine.events import Event, FailedEvent, FinishedEvent, TokenEvent
from app.engine.jobs import Job, ModelSpec
from app.engine.loop import Cancel, Close, EngineLoop, Load, Message, Pause, Submit, Unload
from app.engine.settings import EngineSettings
from app.errors import EngineLost, EngineOverloaded, TollgateError


class Channel:
    """One job's events on their way to a reader. A slow reader first gets merged tokens, then its row pauses."""

    def __init__(self, job_id: str, *, tokens_max: int) -> None:
        self.job_id = job_id
        self.is_paused = False
        self._tokens_max = tokens_max
        self._held: deque[Event] = deque()
        self._has_event = asyncio.Event()

    @property
    def is_overfull(self) -> bool:
        """Whether the reader is so far behind that the row should wait."""
        return sum(len(event.ids) for event in self._held if isinstance(event, TokenEvent)) >= self._tokens_max

    def put(self, event: Event) -> None:
        """Append `event`; consecutive unread tokens become one event."""
        last = self._held[-1] if self._held else None
        if isinstance(event, TokenEvent) and isinstance(last, TokenEvent):
            self._held[-1] = TokenEvent(
                job_id=event.job_id,
                ids=last.ids + event.ids,
                logprobs=last.logprobs + event.logprobs,
                top=last.top + event.top,
            )
        else:
            self._held.append(event)
        self._has_event.set()

    async def get(self) -> Event:
        """The next event, when there is one."""
        while not self._held:
            self._has_event.clear()
            await self._has_event.wait()
        return self._held.popleft()


class InlineEngine:
    """An EngineClient over a thread of this process. Made, used and closed on one event loop."""

    def __init__(self, *, settings: EngineSettings, clock: Clock) -> None:
        self._settings = settings
        self._asyncio_loop = asyncio.get_running_loop()
        self._channels: dict[str, Channel] = {}
        self._loop = EngineLoop(settings=settings, clock=clock, emit=self._emit)
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

    def _emit(self, event: Event) -> None:
        if not self._asyncio_loop.is_closed():
            self._asyncio_loop.call_soon_threadsafe(self._deliver, event)

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

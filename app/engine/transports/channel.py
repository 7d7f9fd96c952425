"""One job's events between a transport and its reader, on one event loop."""

import asyncio
from collections import deque

from app.engine.events import Event, TokenEvent


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
            self._held[-1] = last.and_then(event)
        else:
            self._held.append(event)
        self._has_event.set()

    async def get(self) -> Event:
        """The next event, when there is one."""
        while not self._held:
            self._has_event.clear()
            await self._has_event.wait()
        return self._held.popleft()

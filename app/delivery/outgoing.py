"""Everything that leaves by itself, as one thing for main.py: loops to run, and an end."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from app.clock import Clock
from app.delivery.events import Events, sinks_of
from app.delivery.settings import EventSettings, WebhookSettings
from app.delivery.webhooks import Webhooks
from app.metering.database import Database
from app.metering.pepper import Pepper
from app.observability.metrics import Metrics


class Chosen(Protocol):
    """The settings that this room reads."""

    @property
    def webhooks(self) -> WebhookSettings:
        """See WebhookSettings."""
        ...

    @property
    def events(self) -> EventSettings:
        """See EventSettings."""
        ...


class Outgoing:
    """The loops of one replica."""

    def __init__(
        self, *, database: Database, pepper: Pepper, clock: Clock, metrics: Metrics, settings: Chosen
    ) -> None:  # fmt: skip
        self._webhooks = Webhooks(
            database=database, pepper=pepper, clock=clock, metrics=metrics, settings=settings.webhooks
        )

        self._events = Events(
            database=database, clock=clock, metrics=metrics, sinks=sinks_of(settings.events),
            source=settings.events.source, batch=settings.events.batch,
        )  # fmt: skip

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """Each runs for ever; the task group of main.py owns them."""
        return (self._webhooks.run, *self._events.loops)

    async def close(self) -> None:
        """Close connections and files."""
        await self._webhooks.close()
        await self._events.close()

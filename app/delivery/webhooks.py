"""Delivers what waits in the outbox: one replica at a time per message, again after a while, dead in the end."""

import asyncio
import logging
import random
import uuid

from app.clock import Clock
from app.delivery.sender import AT_ONCE, Sender
from app.delivery.settings import WebhookSettings
from app.delivery.signature import signed_headers
from app.errors import NotFound
from app.metering.database import Database, microseconds
from app.metering.outbox import Delivery, State, claim, counts, end, forget_delivered, try_later
from app.metering.pepper import Pepper
from app.observability.metrics import Metrics

log = logging.getLogger(__name__)
POLL_S = 1.0
COUNT_S = 10.0
LEASE_MARGIN_S = 30.0
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US


class Webhooks:
    """The loop of one replica."""

    def __init__(
        self, *, database: Database, pepper: Pepper, clock: Clock, metrics: Metrics, settings: WebhookSettings
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock
        self._settings = settings
        self._sender = Sender(networks=settings.allowed_networks, timeout_s=settings.timeout_s)
        self._delivered = metrics.counter("tollgate_webhook_attempts")
        self._counts: dict[str, int] = {}
        self._counted_s = -COUNT_S
        metrics.gauge("tollgate_webhooks_waiting", lambda: float(self._counts.get(State.WAITING.value, 0)))
        metrics.gauge("tollgate_webhooks_dead", lambda: float(self._counts.get(State.DEAD.value, 0)))

    async def run(self) -> None:
        """Deliver for ever; the task group of main.py owns this."""
        while True:
            if not await self.deliver_due():
                await asyncio.sleep(POLL_S)
            if self._clock.monotonic_s() - self._counted_s >= COUNT_S:
                await self._count()

    async def deliver_due(self) -> int:
        """One attempt for each of a few messages that are due; returns how many there were."""
        lease_id, now_us = uuid.uuid4().hex, microseconds(self._clock.now())
        lease_us = int((self._settings.timeout_s + LEASE_MARGIN_S) * SECOND_US)
        due = await self._database.run(
            lambda c: claim(c, lease_id=lease_id, now_us=now_us, lease_us=lease_us, limit=AT_ONCE)
        )
        await asyncio.gather(*(self._attempt(delivery, lease_id) for delivery in due))
        return len(due)

    async def close(self) -> None:
        """Close connections."""
        await self._sender.close()

    async def _attempt(self, delivery: Delivery, lease_id: str) -> None:
        now, body = self._clock.now(), delivery.body.encode()
        try:
            secret = self._pepper.webhook_secret(delivery.pepper_id, delivery.webhook_id, delivery.secret_number)
        except NotFound as error:
            log.error("webhook %s cannot be signed for: %s", delivery.webhook_id, error.message)
            return  # another replica may have the pepper; the lease ends by itself
        headers = signed_headers(secret, message_id=delivery.id, timestamp_s=int(now.timestamp()), body=body)
        answer = await self._sender.post(delivery.url, headers=headers, body=body)
        at_us = microseconds(self._clock.now())
        name, status, error = delivery.id, answer.status, answer.error
        if error is None:
            self._delivered.labels("delivered").inc()
            await self._database.run(
                lambda c: end(c, name, lease_id=lease_id, state=State.DELIVERED, status=status, at_us=at_us)
            )
        elif answer.is_final or delivery.attempts > len(self._settings.retry_s):
            self._delivered.labels("dead").inc()
            log.error("message %s for webhook %s is dead: %s", name, delivery.webhook_id, error)
            await self._database.run(
                lambda c: end(c, name, lease_id=lease_id, state=State.DEAD, status=status, at_us=at_us, error=error)
            )
        else:
            self._delivered.labels("failed").inc()
            wait_s = self._settings.retry_s[delivery.attempts - 1] * random.uniform(1.0, 1.1)
            next_us = at_us + int(wait_s * SECOND_US)
            await self._database.run(
                lambda c: try_later(c, name, lease_id=lease_id, status=status, error=error, next_us=next_us)
            )

    async def _count(self) -> None:
        self._counted_s = self._clock.monotonic_s()
        before_us = microseconds(self._clock.now()) - self._settings.kept_days * DAY_US
        await self._database.run(lambda c: forget_delivered(c, before_us=before_us))
        self._counts = await self._database.run(counts)

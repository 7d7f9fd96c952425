"""Hands the ledger's entries to a file or a webhook as CloudEvents: at least once each, under the entry's id."""

import asyncio
import base64
import binascii
import ipaddress
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

from app.clock import Clock
from app.delivery.cloudevents import BATCH_TYPE, event_of
from app.delivery.events_file import EventsFile
from app.delivery.sender import Sender
from app.delivery.settings import EventSettings
from app.delivery.signature import signed_headers
from app.errors import SettingsError
from app.metering.database import Database, microseconds
from app.metering.feed import claim, hand_over, put_back, register, waiting
from app.observability.metrics import Metrics

log = logging.getLogger(__name__)
POLL_S = 1.0
SEEN_EVERY_S = 60.0
LEASE_US = 120_000_000
WAITS_S = (1.0, 2.0, 5.0, 15.0, 60.0)
TIMEOUT_S = 30.0
EVERYWHERE = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
"""The operator's own setting names the address, so it may be anywhere."""


class Sink(Protocol):
    """Where events go."""

    name: str

    async def put(self, events: Sequence[dict[str, Any]], clock: Clock) -> str | None:
        """Why they did not arrive, or None: they are safe there."""
        ...

    async def close(self) -> None:
        """Let go."""
        ...


class FileSink:
    """A file on this machine."""

    name = "file"

    def __init__(self, file: EventsFile) -> None:
        self._file = file

    async def put(self, events: Sequence[dict[str, Any]], clock: Clock) -> str | None:
        """See Sink."""
        lines = [json.dumps(event, separators=(",", ":")).encode() for event in events]
        try:
            await asyncio.to_thread(self._file.append, lines, clock.now())
        except OSError as cause:
            return f"the file cannot be written: {cause.strerror}"
        return None

    async def close(self) -> None:
        """See Sink."""


class UrlSink:
    """Somebody's server, which answers 2xx when it has stored the batch."""

    name = "webhook"

    def __init__(self, *, url: str, token: str | None, secret: bytes | None) -> None:
        self._url = url
        self._token = token
        self._secret = secret
        self._sender = Sender(networks=EVERYWHERE, timeout_s=TIMEOUT_S)

    async def put(self, events: Sequence[dict[str, Any]], clock: Clock) -> str | None:
        """See Sink."""
        body = json.dumps(list(events), separators=(",", ":")).encode()
        headers: dict[str, str] = {}
        if self._secret is not None:
            now_s = int(clock.now().timestamp())
            headers = signed_headers(self._secret, message_id=uuid.uuid4().hex, timestamp_s=now_s, body=body)
        headers["content-type"] = BATCH_TYPE
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token}"
        return (await self._sender.post(self._url, headers=headers, body=body)).error

    async def close(self) -> None:
        """See Sink."""
        await self._sender.close()


class Events:
    """The loops of one replica, one a sink. Replicas share a sink's queue: each entry is taken by one of them."""

    def __init__(
        self, *, database: Database, clock: Clock, metrics: Metrics, sinks: Sequence[Sink], source: str, batch: int
    ) -> None:
        self._database = database
        self._clock = clock
        self._sinks = sinks
        self._source = source
        self._batch = batch
        self._sent = metrics.counter("tollgate_usage_events_sent")
        self._waiting: dict[str, int] = {}
        metrics.gauge("tollgate_usage_events_waiting", lambda: float(max(self._waiting.values(), default=0)))

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """One for each sink."""
        return tuple(partial(self._run, sink) for sink in self._sinks)

    async def hand_out(self, sink: Sink) -> tuple[int, str | None]:
        """One batch; how many entries were in it, and why they did not arrive."""
        lease_id, now_us = uuid.uuid4().hex, microseconds(self._clock.now())
        entries = await self._database.run(
            lambda c: claim(c, sink.name, lease_id=lease_id, now_us=now_us, lease_us=LEASE_US, limit=self._batch)
        )
        if not entries:
            return 0, None
        fault = await sink.put([event_of(entry, self._source) for entry in entries], self._clock)
        settled = hand_over if fault is None else put_back
        await self._database.run(lambda c: settled(c, sink.name, lease_id=lease_id))
        if fault is None:
            self._sent.inc(len(entries))
        return len(entries), fault

    async def announce(self, sink: Sink) -> None:
        """Say that somebody takes from this feed: from now on entries are queued for it."""
        now_us = microseconds(self._clock.now())
        await self._database.run(lambda c: register(c, sink.name, now_us=now_us))
        self._waiting[sink.name] = await self._database.run(lambda c: waiting(c, sink.name))

    async def close(self) -> None:
        """Close the sinks."""
        for sink in self._sinks:
            await sink.close()

    async def _run(self, sink: Sink) -> None:
        announced_s, faults = -SEEN_EVERY_S, 0
        while True:
            if self._clock.monotonic_s() - announced_s >= SEEN_EVERY_S:
                await self.announce(sink)
                announced_s = self._clock.monotonic_s()
            count, fault = await self.hand_out(sink)
            if fault is not None:
                log.warning("usage events did not reach the %s: %s", sink.name, fault)
                await asyncio.sleep(WAITS_S[min(faults, len(WAITS_S) - 1)])
                faults += 1
                continue
            faults = 0
            if count < self._batch:
                await asyncio.sleep(POLL_S)


def sinks_of(settings: EventSettings) -> tuple[Sink, ...]:
    """What the settings name. Raises SettingsError for a secret that is none."""
    sinks: list[Sink] = []
    if settings.file is not None:
        sinks.append(FileSink(EventsFile(path=settings.file.expanduser(), bytes_max=settings.file_bytes_max)))
    if settings.url is not None:
        if not settings.url.get_secret_value().startswith(("https://", "http://")):
            raise SettingsError("events.url must begin with https:// or http://")
        token, secret = settings.token, settings.secret
        sinks.append(
            UrlSink(
                url=settings.url.get_secret_value(), token=None if token is None else token.get_secret_value(),
                secret=None if secret is None else secret_of(secret.get_secret_value()),
            )
        )  # fmt: skip
    return tuple(sinks)


def secret_of(text: str) -> bytes:
    """A secret as Standard Webhooks writes it. Raises SettingsError."""
    try:
        return base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError) as cause:
        raise SettingsError("events.secret is whsec_ and base64") from cause

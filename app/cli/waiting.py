"""A start while PostgreSQL is away: the port answers probes; the database is asked until it is there or time is up."""

import asyncio
import logging
import socket
import time
from contextlib import suppress
from typing import Any

import uvicorn

from app.api.guard import guarded
from app.api.waiting import waiting_room
from app.errors import StorageUnavailable
from app.main import open_database
from app.settings import Settings

log = logging.getLogger(__name__)
PAUSE_S = 0.5
PAUSE_S_MAX = 5.0
GOODBYE_S = 1


class Room(uvicorn.Server):
    """Holds the port, until `leave`. A signal sets `is_asked_to_end`."""

    def __init__(self, settings: Settings, listeners: list[socket.socket] | None) -> None:
        api = settings.api
        super().__init__(
            uvicorn.Config(
                waiting_room(), host=api.host, port=api.port, http=guarded(api), lifespan="off", log_config=None,
                access_log=False, timeout_graceful_shutdown=GOODBYE_S,
            )
        )  # fmt: skip
        self.is_asked_to_end = asyncio.Event()
        self._serving = asyncio.create_task(self.serve(listeners and [listener.dup() for listener in listeners]))

    def handle_exit(self, sig: int, frame: Any) -> None:
        """See uvicorn, which would end by the signal."""
        self.is_asked_to_end.set()

    async def leave(self) -> None:
        """Let go of the port."""
        self.should_exit = True
        await self._serving


async def wait_for_database(settings: Settings, *, listeners: list[socket.socket] | None = None) -> bool:
    """Whether the database is open, its schema the newest; False when a signal asked for the end before.

    Raises StorageUnavailable when PostgreSQL is away for metering.start_wait_s, or a file cannot be opened;
    SettingsError for what waiting does not mend. `listeners` are the sockets to answer on where there are some already.
    """
    give_up_s = time.monotonic() + settings.metering.start_wait_s
    pause_s = PAUSE_S
    room: Room | None = None
    try:
        while True:
            database = open_database(settings)
            try:
                await database.open()
                return True
            except StorageUnavailable as error:
                if not database.is_shared or time.monotonic() + pause_s > give_up_s:
                    raise
                log.warning("%s; it is asked again in %.1f s", error.message, pause_s)
            finally:
                await database.close()
            room = room or Room(settings, listeners)
            with suppress(TimeoutError):
                await asyncio.wait_for(room.is_asked_to_end.wait(), pause_s)
                return False
            pause_s = min(2 * pause_s, PAUSE_S_MAX)
    finally:
        if room is not None:
            await room.leave()

"""Takes over what replicas held that died and do not come back: any living one does, after a while, once."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from app.clock import Clock
from app.errors import SettingsError, StorageUnavailable
from app.metering.books import Books
from app.metering.database import Database, microseconds
from app.metering.replica import is_folder_of
from app.metering.replicas import Beat, beats, forget, move_on, settle_of_dead

log = logging.getLogger(__name__)
BEAT_S = 2.0
RETURN_S = 3600.0
"""How long the leases of a dead replica stay held whose disk cannot be read from here: entries may wait on it."""


@dataclass(slots=True)
class Watched:
    """A replica whose beat stands still, since when, and whether it has been swept."""

    beat: int
    since_s: float
    is_settled: bool = False


class Sweeper:
    """One replica's part in looking after all of them."""

    def __init__(
        self, *, database: Database, clock: Clock, replica_id: str, folder: Path, dead_after_s: float,
        has_company: bool = True,
    ) -> None:  # fmt: skip
        self.has_company = has_company
        """Whether there can be others to look after."""
        self._database = database
        self._clock = clock
        self._replica_id = replica_id
        self._folder = str(folder.resolve())
        self._dead_after_s = dead_after_s
        self._watched: dict[str, Watched] = {}

    async def run(self) -> None:
        """Look for ever; the task group of main.py owns this."""
        while True:
            await self.look()
            await asyncio.sleep(min(BEAT_S, self._dead_after_s / 4))

    async def look(self) -> int:
        """Move the own beat on and look at the others'; returns how many requests of dead replicas were settled.

        Whoever could not look for a while begins to count anew: after an outage nobody is taken for dead who had none
        to beat into. Raises StorageUnavailable.
        """
        now_us = microseconds(self._clock.now())
        try:
            await self._database.run(
                lambda c: move_on(c, replica_id=self._replica_id, folder=self._folder, at_us=now_us)
            )
            seen = [one for one in await self._database.run(beats) if one.replica_id != self._replica_id]
        except StorageUnavailable:
            self._watched.clear()
            raise
        names = {one.replica_id for one in seen}
        self._watched = {name: watched for name, watched in self._watched.items() if name in names}
        settled, now_s = 0, self._clock.monotonic_s()
        for one in seen:
            watched = self._watched.setdefault(one.replica_id, Watched(one.beat, now_s))
            if watched.beat != one.beat:
                self._watched[one.replica_id] = Watched(one.beat, now_s)
            elif now_s - watched.since_s >= self._dead_after_s:
                settled += await self._sweep(one, watched, now_s - watched.since_s)
        return settled

    async def leave(self) -> None:
        """An orderly end: nothing of this replica is held any more. Raises StorageUnavailable."""
        await self._database.run(lambda connection: forget(connection, replica_id=self._replica_id))

    async def _sweep(self, last: Beat, watched: Watched, silent_s: float) -> int:
        folder = Path(last.folder)
        is_here = await asyncio.to_thread(
            is_folder_of, folder, last.replica_id, is_shared=self._database.is_shared
        )  # fmt: skip
        if is_here:
            return await self._take_over(last, folder)
        count = 0
        if not watched.is_settled:
            count = await self._database.run(lambda c: settle_of_dead(c, last=last, clock=self._clock))
            watched.is_settled = True
            log.warning(
                "%s has been silent for %.0f s and its disk is not here: %d requests are settled by its last reports",
                last.replica_id, silent_s, count,
            )  # fmt: skip
        if silent_s >= max(RETURN_S, self._dead_after_s):
            returned_nano = await self._database.run(lambda c: forget(c, replica_id=last.replica_id))
            log.warning("%s is given up: %d nano-units of its leases are returned", last.replica_id, returned_nano)
        return count

    async def _take_over(self, last: Beat, folder: Path) -> int:
        """Its journal tells exactly what it delivered, and its lock whether it is dead."""
        books = Books(database=self._database, home=folder, clock=self._clock, replica_id=last.replica_id)
        try:
            count = await books.start()
        except SettingsError:
            log.warning("%s does not report, but lives: its journal is locked", last.replica_id)
            return 0
        try:
            await self._database.run(lambda connection: forget(connection, replica_id=last.replica_id))
        finally:
            books.close()
        log.warning("%s is dead: %d requests are settled by its journal", last.replica_id, count)
        return count

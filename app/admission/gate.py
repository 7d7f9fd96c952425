"""The toll around a request: a hold when it is admitted, one entry when it leaves, whatever happens in between."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from app.clock import Clock
from app.errors import DeadlineExceeded
from app.metering.database import Database
from app.metering.ledger import Admission, Outcome, Receipt, Usage, note_progress, open_priced_hold, recover, settle

CHECKPOINT_S = 1.0
"""How much of a running request's output a crash may leave uncharged."""


class Reservation:
    """An admitted request's account: open, then settled, once."""

    def __init__(self, *, database: Database, clock: Clock, admission: Admission) -> None:
        self.admission = admission
        self.receipt: Receipt | None = None
        self.delivered = Usage()
        self._database = database
        self._clock = clock

    def note(self, delivered: Usage) -> None:
        """What the customer has been given so far; cheap, called for every event."""
        self.delivered = delivered

    async def settle(self, outcome: Outcome, usage: Usage) -> Receipt:
        """Commit the entry. Await this before the last chunk: what is shown is then durable. Repeating is harmless."""
        request_id = self.admission.request_id
        self.receipt = await self._database.run(
            lambda connection: settle(connection, request_id, outcome, usage, clock=self._clock)
        )
        return self.receipt


class Gate:
    """Admits requests against the ledger of one replica."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._open: dict[str, Reservation] = {}

    @asynccontextmanager
    async def admit(self, admission: Admission) -> AsyncGenerator[Reservation]:
        """Hold the worst case, and settle on leaving if the road has not: cancelled, timed out or failed.

        A failure before anything was delivered costs nothing; otherwise what was delivered is charged.
        """
        admission = await self._database.run(
            lambda connection: open_priced_hold(connection, admission, clock=self._clock)
        )
        reservation = Reservation(database=self._database, clock=self._clock, admission=admission)
        self._open[admission.request_id] = reservation
        outcome = Outcome.CANCELLED
        try:
            yield reservation
        except DeadlineExceeded:
            outcome = Outcome.TIMEOUT
            raise
        except Exception:
            outcome = Outcome.FAILED
            raise
        finally:
            del self._open[admission.request_id]
            if reservation.receipt is None:
                await asyncio.shield(asyncio.create_task(reservation.settle(outcome, reservation.delivered)))

    async def checkpoint(self) -> None:
        """Write down what running requests have delivered."""
        progress = {name: reservation.delivered for name, reservation in self._open.items()}
        if progress:
            await self._database.run(lambda connection: note_progress(connection, progress))

    async def run(self) -> None:
        """Checkpoint for ever; the task group of main.py owns this."""
        while True:
            await asyncio.sleep(CHECKPOINT_S)
            await self.checkpoint()

    async def recover(self, *, replica_id: str) -> int:
        """Settle what this replica left open when it died; call before the first admission."""
        return await self._database.run(lambda c: recover(c, replica_id=replica_id, clock=self._clock))

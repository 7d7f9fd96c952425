"""The books of one replica: database, journal and spool together. Whatever happens, an entry gets down to some disk."""

import asyncio
import dataclasses
import logging
from collections import OrderedDict
from pathlib import Path

from app.clock import Clock
from app.errors import StorageUnavailable
from app.metering.database import Database, microseconds
from app.metering.journal import Journal
from app.metering.ledger import (
    Admission,
    Outcome,
    Receipt,
    Usage,
    charge_nano,
    extend_hold,
    note_progress,
    open_priced_hold,
    recover,
    release,
    settle,
)
from app.metering.spool import Settlement, Spool

log = logging.getLogger(__name__)
SETTLE_WAIT_S = 5.0
"""How long an answer waits for the database before its entry goes to the spool."""
DRAIN_S = 1.0
PROGRESS_S = 5.0
SHIP_MAX = 200
REMEMBERED_MAX = 10_000
REMEMBERED_S = 3600.0
"""For how long a customer without budgets is served at known prices while the database is away."""

Terms = tuple[str, str, str, str]


class Books:
    """Opens, extends and settles holds."""

    def __init__(self, *, database: Database, home: Path, clock: Clock, replica_id: str = "local") -> None:
        self.database = database
        self.replica_id = replica_id
        self._clock = clock
        self._journal = Journal(home=home)
        self._spool = Spool(home=home)
        self._terms: OrderedDict[Terms, tuple[float, dict[str, int]]] = OrderedDict()
        self._progress: dict[str, Usage] = {}
        self._doubtful: set[str] = set()
        self._draining = asyncio.Lock()

    @property
    def spooled(self) -> bool:
        """Whether entries wait for the database."""
        return not self._spool.is_empty

    async def start(self) -> int:
        """Take the journal and settle what the last process left; returns how many requests had been running."""
        left = self._journal.open()
        await self.drain()
        for admission, usage in left:
            await self.settle(admission, Outcome.CRASHED, usage)
        return len(left) + await self.database.run(
            lambda connection: recover(connection, replica_id=self.replica_id, clock=self._clock)
        )

    async def open(self, admission: Admission) -> Admission:
        """Hold money at the prices of now. Raises PriceMissing, InsufficientQuota, StorageUnavailable.

        With the database away, a customer that no budget binds is served at the prices last known; whoever has a budget
        is not, because nobody could say what is left in it.
        """
        terms = (admission.tenant_id, admission.key_id, admission.model, admission.task)
        try:
            opened = await self.database.run(
                lambda connection: open_priced_hold(connection, admission, clock=self._clock)
            )
        except StorageUnavailable:
            self._doubtful.add(admission.request_id)
            opened = self._from_memory(admission, terms)
        else:
            self._remember(terms, opened)
        try:
            self._journal.open_slot(opened)
        except BaseException:
            self._doubtful.add(admission.request_id)
            raise
        self._progress[opened.request_id] = Usage()
        return opened

    def abandon(self, admission: Admission) -> None:
        """Whoever asked is gone before it was admitted: let go of the hold, with no entry."""
        self._journal.close_slot(admission.request_id)
        self._progress.pop(admission.request_id, None)
        self._doubtful.add(admission.request_id)

    async def extend(self, admission: Admission, *, held_tokens: int, wanted_tokens: int) -> int:
        """For how many output tokens money is held now; see `extend_hold`."""
        return await self.database.run(
            lambda connection: extend_hold(connection, admission, held_tokens=held_tokens, wanted_tokens=wanted_tokens)
        )

    def note(self, admission: Admission, delivered: Usage) -> None:
        """Before a piece leaves: what the customer will have with it."""
        self._journal.note(admission.request_id, delivered)
        if admission.request_id in self._progress:
            self._progress[admission.request_id] = delivered

    async def settle(self, admission: Admission, outcome: Outcome, usage: Usage) -> Receipt:
        """Commit the entry, or sync it into the spool: what is shown after this is durable. Repeating it is harmless.

        Raises StorageUnavailable when neither can be written; the journal then keeps the request until the next start.
        """
        at_us = microseconds(self._clock.now())
        try:
            async with asyncio.timeout(SETTLE_WAIT_S):
                receipt = await self.database.run(
                    lambda connection: settle(connection, admission, outcome, usage, at_us=at_us)
                )
        except (StorageUnavailable, TimeoutError):
            settlement = Settlement(admission=admission, outcome=outcome, usage=usage, at_us=at_us)
            await asyncio.to_thread(self._spool.append, settlement)
            receipt = receipt_from(settlement)
        self._journal.close_slot(admission.request_id)
        self._progress.pop(admission.request_id, None)
        return receipt

    async def drain(self) -> int:
        """Ship what waits in the spool, and let go of holds whose opening was never confirmed. Returns how many."""
        async with self._draining:
            return await self._drain()

    async def _drain(self) -> int:
        waiting = await asyncio.to_thread(self._spool.waiting)
        for first in range(0, len(waiting), SHIP_MAX):
            some = waiting[first : first + SHIP_MAX]
            await self.database.run(
                lambda connection, some=some: [
                    settle(connection, one.admission, one.outcome, one.usage, at_us=one.at_us) for one in some
                ]
            )
        if waiting or self.spooled:
            await asyncio.to_thread(self._spool.shipped)
            log.info("%d entries were shipped from the spool", len(waiting))
        doubtful = self._doubtful - self._progress.keys()
        if doubtful:
            await self.database.run(lambda connection: [release(connection, name) for name in sorted(doubtful)])
            self._doubtful -= doubtful
        return len(waiting)

    async def run(self) -> None:
        """Drain for ever; the task group of main.py owns this."""
        while True:
            await asyncio.sleep(DRAIN_S)
            await self.drain()

    async def sync(self) -> None:
        """Sync the journal for ever."""
        await self._journal.run()

    async def report(self) -> None:
        """On a database that replicas share, note progress there too, for ever: it outlives this machine's disk."""
        while True:
            await asyncio.sleep(PROGRESS_S)
            progress = {name: usage for name, usage in self._progress.items() if usage != Usage()}
            if progress and self.database.is_shared:
                await self.database.run(lambda connection, known=progress: note_progress(connection, known))

    def close(self) -> None:
        """Let go of the journal."""
        self._journal.close()

    def _remember(self, terms: Terms, opened: Admission) -> None:
        self._terms.pop(terms, None)
        if not opened.windows:
            self._terms[terms] = (self._clock.monotonic_s(), dict(opened.prices))
            if len(self._terms) > REMEMBERED_MAX:
                self._terms.popitem(last=False)

    def _from_memory(self, admission: Admission, terms: Terms) -> Admission:
        known = self._terms.get(terms)
        if known is None or self._clock.monotonic_s() - known[0] > REMEMBERED_S:
            raise StorageUnavailable
        return dataclasses.replace(admission, prices=known[1], admitted_us=microseconds(self._clock.now()))


def receipt_from(settlement: Settlement) -> Receipt:
    """The receipt of an entry that waits in the spool."""
    usage, admission = settlement.usage, settlement.admission
    return Receipt(
        request_id=admission.request_id, outcome=settlement.outcome, input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens, cost_nano=charge_nano(admission, usage), currency="USD",
    )  # fmt: skip

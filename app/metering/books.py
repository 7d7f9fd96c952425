"""The books of one replica: database, journal and spool together. Whatever happens, an entry gets down to some disk."""

import asyncio
import dataclasses
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, select

from app.clock import Clock
from app.errors import InsufficientQuota, StorageUnavailable
from app.metering.budgets import BudgetKind, window_start_us
from app.metering.database import Database, microseconds
from app.metering.escrow import EVERY_S, Escrow
from app.metering.journal import Journal
from app.metering.leases import Window, return_leases
from app.metering.ledger import (
    Admission,
    Outcome,
    Receipt,
    Usage,
    charge_nano,
    covered_tokens,
    extend_hold,
    note_progress,
    open_priced_hold,
    recover,
    release,
    settle,
)
from app.metering.refusals import Refusals
from app.metering.spool import Settlement, Spool

log = logging.getLogger(__name__)
T = TypeVar("T")
OPEN_WAIT_S = 2.0
"""How long a request waits for the database before it is served from what is known here."""
OWN_FILE_WAIT_S = 30.0
"""The same for a file of this machine, which is slow at worst, and is never away while others are here."""
SETTLE_WAIT_S = 5.0
"""How long an answer waits for the database before its entry goes to the spool."""
DRAIN_S = 1.0
PROGRESS_S = 5.0
SHIP_MAX = 200
UNWRITTEN_S = 5.0
"""How long an entry that nothing would take is left to the request, which may yet settle it otherwise."""
REMEMBERED_MAX = 10_000
REMEMBERED_S = 3600.0
"""For how long a customer is served at known prices while the database is away."""

Terms = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Known:
    """What a customer's last request was told: prices, and the budgets that bind."""

    at_s: float
    prices: Mapping[str, int]
    windows: tuple[Window, ...]


class Books:
    """Opens, extends and settles holds."""

    def __init__(
        self, *, database: Database, home: Path, clock: Clock, replica_id: str = "local", escrow_share: float = 0.0
    ) -> None:
        self.database = database
        self.replica_id = replica_id
        self._clock = clock
        self._journal = Journal(home=home)
        self._spool = Spool(home=home)
        self._escrow = Escrow(database=database, replica_id=replica_id, clock=clock, share=escrow_share)
        self._terms: OrderedDict[Terms, Known] = OrderedDict()
        self._progress: dict[str, Usage] = {}
        self._escrowed: set[str] = set()
        """Requests that were opened while the database was away."""
        self._doubtful: set[str] = set()
        self._unwritten: dict[str, Settlement] = {}
        """Entries that neither the database nor this disk would take; the journal has their requests."""
        self._refusals = Refusals(database=database, clock=clock)
        self._is_away = False
        self._draining = asyncio.Lock()

    @property
    def spooled(self) -> bool:
        """Whether entries wait for the database."""
        return bool(self._unwritten) or not self._spool.is_empty

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """What runs for ever beside the requests; the task group of main.py owns these."""
        return self.run, self.rewrite, self.sync, self.report, self.lease

    async def start(self) -> int:
        """Take the journal and settle what the last process left; returns how many requests had been running."""
        left = self._journal.open()
        await self.drain()
        for admission, usage in left:
            await self.settle(admission, Outcome.CRASHED, usage)
        return len(left) + await self.database.run(self._recover)

    async def open(self, admission: Admission) -> Admission:
        """Hold money at the prices of now. Raises PriceMissing, InsufficientQuota, StorageUnavailable.

        With the database away, a customer that was served before is served at the prices last known, and what its
        budgets must cover is drawn from this replica's leases of them.
        """
        opened = self._from_memory(admission) if self._is_away else None
        if opened is None:
            try:
                opened = await self._open_in_database(admission)
            except InsufficientQuota as refusal:
                await self._refusals.tell(refusal.place)
                raise
            except StorageUnavailable:
                self._is_away = True
                opened = self._from_memory(admission)
                if opened is None:
                    raise
            else:
                self._is_away = False
                self._remember(opened)
        try:
            self._journal.open_slot(opened)
        except BaseException:
            self._doubtful.add(admission.request_id)
            self._close(admission.request_id, 0)
            self._escrow.give_back(admission.request_id)
            raise
        self._progress[opened.request_id] = Usage()
        held_nano = opened.cost_nano(opened.output_tokens_at_first)
        self._escrow.reserve(opened.request_id, opened.windows, held_nano)
        return opened

    def abandon(self, admission: Admission) -> None:
        """Whoever asked is gone before it was admitted: let go of the hold, with no entry."""
        self._journal.close_slot(admission.request_id)
        self._close(admission.request_id, 0)
        self._escrow.give_back(admission.request_id)
        self._doubtful.add(admission.request_id)

    async def extend(self, admission: Admission, *, held_tokens: int, wanted_tokens: int) -> int:
        """For how many output tokens money is held now; see `extend_hold`. With the database away, out of a lease."""
        name, windows = admission.request_id, admission.windows
        if name in self._escrowed or self._is_away:
            covered = await self._extend_from_lease(admission, held_tokens, wanted_tokens)
        else:
            try:
                covered = await self._extend_in_database(admission, held_tokens, wanted_tokens)
                if covered < wanted_tokens and self._escrow.has_room(windows):
                    await self._escrow.give_up(windows)
                    covered = await self._extend_in_database(admission, covered, wanted_tokens)
            except StorageUnavailable:
                self._is_away = True
                covered = await self._extend_from_lease(admission, held_tokens, wanted_tokens)
            else:
                if covered > held_tokens:
                    self._escrow.give_back(name)
        self._escrow.reserve(name, windows, admission.cost_nano(covered))
        return covered

    def note(self, admission: Admission, delivered: Usage) -> None:
        """Before a piece leaves: what the customer will have with it."""
        self._journal.note(admission.request_id, delivered)
        if admission.request_id in self._progress:
            self._progress[admission.request_id] = delivered

    async def settle(self, admission: Admission, outcome: Outcome, usage: Usage) -> Receipt:
        """Commit the entry, or sync it into the spool: what is shown after this is durable. Repeating it is harmless.

        Raises StorageUnavailable when neither can be written. It is then tried again until one can; the journal keeps
        the request meanwhile, and nobody is served without the database.
        """
        at_us = microseconds(self._clock.now())
        settlement = Settlement(admission=admission, outcome=outcome, usage=usage, at_us=at_us)
        self._unwritten.pop(admission.request_id, None)
        try:
            if self._is_away:
                raise StorageUnavailable
            async with asyncio.timeout(SETTLE_WAIT_S):
                receipt = await self.database.run(
                    lambda connection: settle(connection, admission, outcome, usage, at_us=at_us)
                )
        except (StorageUnavailable, TimeoutError):
            self._is_away = True
            try:
                await asyncio.to_thread(self._spool.append, settlement)
            except StorageUnavailable:
                self._unwritten[admission.request_id] = settlement
                raise
            receipt = receipt_from(settlement)
            self._escrow.keep(admission.request_id, receipt.cost_nano)
        else:
            self._escrow.spent(admission.request_id)
        self._journal.close_slot(admission.request_id)
        self._close(admission.request_id, receipt.cost_nano)
        return receipt

    async def reach(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in the database. Raises StorageUnavailable, at once while it is known to be away."""
        if self._is_away:
            raise StorageUnavailable
        try:
            return await self.database.run_within(work, OPEN_WAIT_S if self.database.is_shared else OWN_FILE_WAIT_S)
        except StorageUnavailable:
            self._is_away = True
            raise

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
            for one in some:
                self._escrow.spent(one.admission.request_id)
        if waiting or not self._spool.is_empty:
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
            await self.look_for_database()
            await self.drain()

    async def rewrite(self) -> None:
        """Write late for ever."""
        while True:
            await asyncio.sleep(DRAIN_S)
            await self.write_late()

    async def write_late(self) -> None:
        """Settle again what nothing would take. Raises StorageUnavailable when nothing will."""
        before_us = microseconds(self._clock.now()) - int(UNWRITTEN_S * 1e6)
        for one in [one for one in self._unwritten.values() if one.at_us <= before_us]:
            await self.settle(one.admission, one.outcome, one.usage)

    async def look_for_database(self) -> None:
        """Whether it is back. Raises StorageUnavailable while it is not."""
        if self._is_away:
            await self.database.run(lambda connection: connection.scalar(select(1)))
            self._is_away = False

    async def refresh_leases(self) -> None:
        """Set money aside for the time when the database is away, as much as the last minute's use asks for."""
        await self._escrow.refresh()

    async def lease(self) -> None:
        """Refresh leases for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.refresh_leases()

    async def sync(self) -> None:
        """Sync the journal for ever."""
        await self._journal.run()

    async def report(self) -> None:
        """On a database that replicas share, note progress there too, for ever: it outlives this machine's disk."""
        while True:
            await asyncio.sleep(PROGRESS_S)
            if self.database.is_shared:
                await self.report_progress()

    async def report_progress(self) -> None:
        """See `report`."""
        progress = {name: usage for name, usage in self._progress.items() if usage != Usage()}
        if progress:
            await self.database.run(lambda connection: note_progress(connection, progress))

    def close(self) -> None:
        """Let go of the journal."""
        self._journal.close()

    def _recover(self, connection: Connection) -> int:
        count = recover(connection, replica_id=self.replica_id, clock=self._clock)
        return_leases(connection, replica_id=self.replica_id)
        return count

    async def _open_in_database(self, admission: Admission) -> Admission:
        """Open the hold; when the budgets do not cover it, once more after the own leases of them were given up."""

        def work(connection: Connection) -> Admission:
            return open_priced_hold(connection, admission, clock=self._clock)

        try:
            return await self._asked(admission.request_id, work)
        except InsufficientQuota:
            known = self._terms.get(terms_of(admission))
            if known is None or not self._escrow.has_room(known.windows):
                raise
            await self._escrow.give_up(known.windows)
            return await self._asked(admission.request_id, work)

    async def _asked(self, request_id: str, work: Callable[[Connection], T]) -> T:
        """Run `work`; whatever becomes of it later, when it takes too long, is let go of.

        A hold on this machine's file is not waited for on the disk: the power failure that takes it takes its request
        too, and the journal has both a moment later.
        """
        asking = asyncio.ensure_future(self.database.run(work, is_synced=False))
        await asyncio.wait((asking,), timeout=OPEN_WAIT_S if self.database.is_shared else OWN_FILE_WAIT_S)
        if not asking.done():
            asking.add_done_callback(lambda done: self._doubt(request_id, done))
            raise StorageUnavailable
        if isinstance(asking.exception(), StorageUnavailable):
            self._doubtful.add(request_id)
        return await asking

    def _doubt(self, request_id: str, done: "asyncio.Future[T]") -> None:
        if not done.cancelled() and done.exception() is None:
            self._doubtful.add(request_id)

    async def _extend_in_database(self, admission: Admission, held_tokens: int, wanted_tokens: int) -> int:
        return await self._asked(
            admission.request_id,
            lambda connection: extend_hold(connection, admission, held_tokens=held_tokens, wanted_tokens=wanted_tokens),
        )

    async def _extend_from_lease(self, admission: Admission, held_tokens: int, wanted_tokens: int) -> int:
        held_nano = admission.cost_nano(held_tokens)
        more_nano = admission.cost_nano(wanted_tokens) - held_nano
        if not self._is_away and self._escrow.room_nano(admission.windows) < more_nano:
            with suppress(StorageUnavailable):
                await self._escrow.reach(admission.windows, more_nano)
        covered, amount_nano = covered_tokens(
            admission, held_tokens=held_tokens, wanted_tokens=wanted_tokens, held_nano=held_nano,
            room_nano=self._escrow.room_nano(admission.windows),
        )  # fmt: skip
        is_drawn = self._escrow.draw(admission.request_id, admission.windows, amount_nano - held_nano)
        return covered if is_drawn else held_tokens

    def _close(self, request_id: str, cost_nano: int) -> None:
        self._progress.pop(request_id, None)
        self._escrowed.discard(request_id)
        self._escrow.end(request_id, cost_nano)

    def _remember(self, opened: Admission) -> None:
        terms = terms_of(opened)
        self._terms.pop(terms, None)
        self._terms[terms] = Known(self._clock.monotonic_s(), dict(opened.prices), opened.windows)
        if len(self._terms) > REMEMBERED_MAX:
            self._terms.popitem(last=False)

    def _from_memory(self, admission: Admission) -> Admission | None:
        """The admission as the last one like it was opened; None when there was none, no lease covers it, or its entry
        could not be written."""
        known = self._terms.get(terms_of(admission))
        now_us = microseconds(self._clock.now())
        if self._unwritten or known is None or self._clock.monotonic_s() - known.at_s > REMEMBERED_S:
            return None
        month_us = window_start_us(BudgetKind.MONTHLY, now_us)
        if any(window_us not in (0, month_us) for _, window_us in known.windows):
            return None
        opened = dataclasses.replace(
            admission, prices=known.prices, admitted_us=now_us, windows=known.windows
        )  # fmt: skip
        amount_nano = opened.cost_nano(opened.output_tokens_at_first)
        if known.windows and not self._escrow.draw(opened.request_id, known.windows, amount_nano):
            return None
        self._escrowed.add(opened.request_id)
        return opened


def terms_of(admission: Admission) -> Terms:
    """What decides prices and budgets."""
    return admission.tenant_id, admission.key_id, admission.model, admission.task


def receipt_from(settlement: Settlement) -> Receipt:
    """The receipt of an entry that waits in the spool."""
    usage, admission = settlement.usage, settlement.admission
    return Receipt(
        request_id=admission.request_id, outcome=settlement.outcome, input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens, cost_nano=charge_nano(admission, usage), currency="USD",
    )  # fmt: skip

"""What this replica may spend of budgets while the database is away: leases taken before, as large as they are used.

Everything here errs to the careful side: what is believed to be left is never more than the database has set aside.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.clock import Clock
from app.metering.database import Database
from app.metering.leases import Window, change_leases

PACE_S = 60.0
"""How long spending is remembered to judge how large a lease must be."""
HEADROOM = 10
"""A lease is to be so many times what the last minute spent and what runs now,"""
REQUESTS_MIN = 100
"""and at least so many times what the newest request held."""
EVERY_S = 2.0
RECHECK_S = 10.0
AT_ONCE = 200
"""Windows that one transaction changes."""


@dataclass(slots=True)
class Purse:
    """One window's lease, as this replica knows it."""

    total_nano: int = 0
    """Set aside in the database, at least."""
    drawn_nano: int = 0
    """Of that, held or spent by requests whose entries are not in the database yet."""
    running_nano: int = 0
    """Held by requests that run, wherever."""
    newest_nano: int = 0
    pace_nano: float = 0.0
    """Spent in the last minute or so."""
    paced_s: float = 0.0
    begun_s: float = 0.0
    cap_nano: int | None = None
    """The share of what the window had left when it was last asked."""
    asked_s: float = -math.inf
    wanted_nano: int = 0

    def add(self, cost_nano: int, now_s: float) -> None:
        """Let time pass, and count what was spent."""
        self.pace_nano = self.pace_nano * math.exp(-(now_s - self.paced_s) / PACE_S) + cost_nano
        self.paced_s = now_s

    def minute_nano(self, now_s: float) -> int:
        """What a minute spends at this pace, also when only some seconds of it have been seen."""
        self.add(0, now_s)
        seen = 1 - math.exp(-max(1.0, now_s - self.begun_s) / PACE_S)
        return int(self.pace_nano / seen)


class Escrow:
    """The leases of one replica. A `share` of 0 takes none."""

    def __init__(self, *, database: Database, replica_id: str, clock: Clock, share: float) -> None:
        self._database = database
        self._replica_id = replica_id
        self._clock = clock
        self._share = share
        self._purses: dict[Window, Purse] = {}
        self._running: dict[str, tuple[Sequence[Window], int]] = {}
        self._drawn: dict[str, tuple[Sequence[Window], int]] = {}

    def reserve(self, request_id: str, windows: Sequence[Window], amount_nano: int) -> None:
        """A request holds so much, wherever: leases are to be large enough for such."""
        if windows and self._share:
            self._unreserve(request_id)
            self._running[request_id] = (windows, amount_nano)
            for place in windows:
                purse = self._purse(place)
                purse.running_nano += amount_nano
                purse.newest_nano = amount_nano

    def end(self, request_id: str, cost_nano: int) -> None:
        """A request has cost so much."""
        for place in self._unreserve(request_id):
            self._purse(place).add(cost_nano, self._clock.monotonic_s())

    def room_nano(self, windows: Sequence[Window]) -> int:
        """What may still be drawn in all of these."""
        purses = [self._purses.get(place) for place in windows]
        return min((0 if one is None else one.total_nano - one.drawn_nano for one in purses), default=0)

    def draw(self, request_id: str, windows: Sequence[Window], amount_nano: int) -> bool:
        """Hold so much more for a request, or nothing."""
        if not windows or self.room_nano(windows) < amount_nano:
            return False
        _, before_nano = self._drawn.get(request_id, (windows, 0))
        self._redraw(request_id, windows, before_nano + amount_nano)
        return True

    def keep(self, request_id: str, cost_nano: int) -> None:
        """A request ended, and its entry waits in the spool: no more than it cost stays drawn."""
        if request_id in self._drawn:
            windows, drawn_nano = self._drawn[request_id]
            self._redraw(request_id, windows, min(drawn_nano, cost_nano))

    def spent(self, request_id: str) -> None:
        """A request's entry is in the database: the lease there is smaller by it, at most by what was drawn."""
        windows, drawn_nano = self._drawn.get(request_id, ((), 0))
        for place in windows:
            self._purse(place).total_nano -= drawn_nano
        self.give_back(request_id)

    def give_back(self, request_id: str) -> None:
        """A hold in the database covers the request now."""
        windows, _ = self._drawn.get(request_id, ((), 0))
        self._redraw(request_id, windows, 0)
        self._drawn.pop(request_id, None)

    def has_room(self, windows: Sequence[Window]) -> bool:
        """Whether anything is set aside that nobody uses."""
        return any(self.room_nano([place]) > 0 for place in windows)

    async def refresh(self) -> None:
        """Make leases as large as the last minute's use wants them. Raises StorageUnavailable."""
        now_s = self._clock.monotonic_s()
        due = sorted((one for one in self._purses if self._is_due(one, now_s)), key=lambda p: self._purse(p).asked_s)
        await self._change({place: self._target_nano(place) for place in due[:AT_ONCE]})

    async def reach(self, windows: Sequence[Window], more_nano: int) -> None:
        """Try to have so much more to draw from, now. Raises StorageUnavailable."""
        await self._change({place: self._purse(place).drawn_nano + more_nano for place in windows if self._share})

    async def give_up(self, windows: Sequence[Window]) -> None:
        """Let go of what is not used, because somebody needs the money now. Raises StorageUnavailable."""
        await self._change({place: self._purse(place).drawn_nano for place in windows if place in self._purses})

    async def _change(self, targets: dict[Window, int]) -> None:
        if not targets:
            return
        now_s = self._clock.monotonic_s()
        for place, target_nano in targets.items():
            purse = self._purse(place)
            purse.total_nano = min(purse.total_nano, target_nano)  # before it is given back, not after
            purse.asked_s, purse.wanted_nano = now_s, self._wanted_nano(place)
        found = await self._database.run(
            lambda connection: change_leases(
                connection, replica_id=self._replica_id, targets=targets, share=self._share
            )
        )
        for place in targets:
            lease = found.get(place)
            purse = self._purse(place)
            purse.total_nano = 0 if lease is None else lease.amount_nano
            purse.cap_nano = None if lease is None else int((lease.amount_nano + lease.room_nano) * self._share)
            if not (purse.total_nano or purse.wanted_nano or purse.drawn_nano or purse.running_nano):
                del self._purses[place]

    def _purse(self, place: Window) -> Purse:
        now_s = self._clock.monotonic_s()
        return self._purses.setdefault(place, Purse(paced_s=now_s, begun_s=now_s))

    def _unreserve(self, request_id: str) -> Sequence[Window]:
        windows, amount_nano = self._running.pop(request_id, ((), 0))
        for place in windows:
            self._purse(place).running_nano -= amount_nano
        return windows

    def _redraw(self, request_id: str, windows: Sequence[Window], amount_nano: int) -> None:
        _, before_nano = self._drawn.get(request_id, (windows, 0))
        for place in windows:
            self._purse(place).drawn_nano += amount_nano - before_nano
        self._drawn[request_id] = (windows, amount_nano)

    def _wanted_nano(self, place: Window) -> int:
        purse = self._purse(place)
        used_nano = purse.minute_nano(self._clock.monotonic_s()) + purse.running_nano
        return max(HEADROOM * used_nano, REQUESTS_MIN * purse.newest_nano) if used_nano else 0

    def _target_nano(self, place: Window) -> int:
        purse, wanted_nano = self._purse(place), self._wanted_nano(place)
        return max(purse.drawn_nano, wanted_nano if purse.cap_nano is None else min(wanted_nano, purse.cap_nano))

    def _is_due(self, place: Window, now_s: float) -> bool:
        purse, wanted_nano = self._purse(place), self._wanted_nano(place)
        is_like = purse.wanted_nano / 2 <= wanted_nano <= purse.wanted_nano * 1.5
        return not is_like or now_s - purse.asked_s >= RECHECK_S

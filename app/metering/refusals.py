"""Tells of requests that were refused for want of money: once for a budget's limit, not one by one."""

from collections import OrderedDict
from contextlib import suppress

from app.clock import Clock
from app.errors import StorageUnavailable
from app.metering.alerts import tell_refused
from app.metering.database import Database, microseconds
from app.metering.leases import Window

QUIET_S = 30.0
"""How long a budget's refusals are not looked at again."""
PLACES_MAX = 10_000


class Refusals:
    """Remembers which budgets it has told of lately."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._told_s: OrderedDict[Window, float] = OrderedDict()

    async def tell(self, place: Window | None) -> None:
        """Let an alert go out, in a transaction of its own, because the refused one was undone."""
        now_s = self._clock.monotonic_s()
        if place is None or now_s - self._told_s.get(place, -QUIET_S) < QUIET_S:
            return
        self._told_s.pop(place, None)
        self._told_s[place] = now_s
        if len(self._told_s) > PLACES_MAX:
            self._told_s.popitem(last=False)
        at_us = microseconds(self._clock.now())
        with suppress(StorageUnavailable):
            await self._database.run(lambda connection: tell_refused(connection, *place, at_us=at_us))

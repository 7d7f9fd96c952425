"""Token buckets with debt, counted in this process: take the worst case before, give back what was not used after.

A bucket holds a minute's worth and fills evenly. Nothing awaits inside a decision, so each is atomic.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from app.clock import Clock

MINUTE_S = 60.0
BUCKETS_MAX = 100_000
BUSY_WAIT_S = 1.0
"""When to try again if too many requests run at once: nobody knows when one ends."""


class What(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENT = "concurrent"


@dataclass(frozen=True, slots=True)
class Limit:
    """One number that holds for one key or tenant: a minute's worth, or how many at once."""

    scope: str
    """The id of the key or tenant."""
    what: What
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request that wants to run, and every limit that it must pass."""

    request_id: str
    tenant_id: str
    limits: tuple[Limit, ...]
    tokens: int

    def cost(self, limit: Limit) -> int:
        """What it takes of a limit."""
        return min(self.tokens, limit.amount) if limit.what is What.TOKENS else 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """The limit that is reached longest, and when to try again."""

    limit: Limit
    wait_s: float


class Buckets(Protocol):
    """Where limits are counted."""

    async def take(self, ask: Ask) -> Refusal | None:
        """Take the cost from every limit, or from none."""
        ...

    async def give_back(self, ask: Ask, tokens_used: int) -> None:
        """Settle what was taken: once, by the request's id. More used than taken becomes a debt."""
        ...

    def level(self, limit: Limit) -> float:
        """What is left of a limit, as far as is known here; below 0 is debt."""
        ...


@dataclass(slots=True)
class Bucket:
    """What is left, and when that was true."""

    level: float
    at_s: float

    def refill(self, limit: Limit, now_s: float, capacity: float, amount: float) -> float:
        """Bring the level up to now; the bucket of a limit of concurrent requests fills only by giving back."""
        if limit.what is not What.CONCURRENT:
            self.level = min(capacity, self.level + (now_s - self.at_s) * amount / MINUTE_S)
        self.at_s = now_s
        return self.level


@dataclass
class LocalBuckets:
    """Buckets of this process, each holding the `share`-th part of its limit."""

    clock: Clock
    share: int = 1
    seed: Callable[[Limit], float] = lambda limit: 1.0
    """How full a bucket that is new here begins, 0 to 1."""
    buckets: OrderedDict[tuple[str, What], Bucket] = field(default_factory=OrderedDict[tuple[str, What], Bucket])
    running: dict[str, int] = field(default_factory=dict[str, int])
    taken: dict[str, dict[Limit, float]] = field(default_factory=dict[str, dict[Limit, float]])

    async def take(self, ask: Ask) -> Refusal | None:
        """See Buckets."""
        now_s = self.clock.monotonic_s()
        worst: Refusal | None = None
        costs: dict[Limit, float] = {}
        for limit in ask.limits:
            costs[limit] = min(ask.cost(limit), self._capacity(limit))
            wait_s = self._wait_s(limit, costs[limit], now_s)
            if wait_s > 0 and (worst is None or wait_s > worst.wait_s):
                worst = Refusal(limit, wait_s)
        if worst is not None:
            return worst
        for limit, cost in costs.items():
            if limit.what is What.CONCURRENT:
                self._run(limit.scope, 1)
            else:
                self._bucket(limit, now_s).level -= cost
        self.taken[ask.request_id] = costs
        return None

    async def give_back(self, ask: Ask, tokens_used: int) -> None:
        """See Buckets."""
        now_s = self.clock.monotonic_s()
        for limit, cost in self.taken.pop(ask.request_id, {}).items():
            if limit.what is What.CONCURRENT:
                self._run(limit.scope, -1)
            elif limit.what is What.TOKENS:
                bucket = self._bucket(limit, now_s)
                bucket.level = min(self._capacity(limit), bucket.level + cost - tokens_used)

    def level(self, limit: Limit) -> float:
        """See Buckets."""
        if limit.what is What.CONCURRENT:
            return self._capacity(limit) - self._running(limit.scope)
        return self._bucket(limit, self.clock.monotonic_s()).level

    def close(self) -> None:
        """Nothing is held open here."""

    def clear(self) -> None:
        """Begin anew; what is taken now is still given back."""
        self.buckets.clear()

    def _running(self, scope: str) -> int:
        return self.running.get(scope, 0)

    def _run(self, scope: str, change: int) -> None:
        self.running[scope] = self.running.get(scope, 0) + change
        if not self.running[scope]:
            del self.running[scope]

    def _capacity(self, limit: Limit) -> float:
        part = limit.amount / self.share
        return max(1, limit.amount // self.share) if limit.what is What.CONCURRENT else max(1.0, part)

    def _wait_s(self, limit: Limit, cost: float, now_s: float) -> float:
        if limit.what is What.CONCURRENT:
            return BUSY_WAIT_S if self.level(limit) < 1 else 0.0
        missing = cost - self._bucket(limit, now_s).level
        return max(0.0, missing * MINUTE_S * self.share / limit.amount)

    def _bucket(self, limit: Limit, now_s: float) -> Bucket:
        place, capacity = (limit.scope, limit.what), self._capacity(limit)
        bucket = self.buckets.get(place)
        if bucket is None:
            bucket = self.buckets[place] = Bucket(capacity * self.seed(limit), now_s)
            while len(self.buckets) > BUCKETS_MAX:
                self.buckets.popitem(last=False)
        else:
            self.buckets.move_to_end(place)
        bucket.refill(limit, now_s, capacity, limit.amount / self.share)
        return bucket

"""The same buckets in a Redis that replicas share: one script a decision (limits.lua), by Redis' own clock."""

from collections import OrderedDict
from pathlib import Path
from typing import Any, cast

from app.admission.buckets import BUCKETS_MAX, MINUTE_S, Ask, Limit, Refusal, What
from app.clock import Clock
from app.errors import SettingsError

SCRIPT = Path(__file__).with_name("limits.lua")
LEASE_MS = 60_000
"""How long a request counts as running after its replica was last heard of."""
PROBE = "tollgate:probe"
CONNECTIONS_MAX = 64
OWED_MAX = 10_000


class SharedAway(Exception):
    """Redis does not answer, or not in time."""


class SharedBuckets:
    """See the module. What the last answers said of each limit is remembered, for headers and for a fallback."""

    def __init__(self, *, url: str, timeout_s: float, clock: Clock) -> None:
        try:
            from redis.asyncio import BlockingConnectionPool, Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
            from redis.exceptions import RedisError
        except ImportError as cause:
            raise SettingsError("limits.redis_url needs the extra `redis`: pip install 'tollgate[redis]'") from cause
        try:
            pool = cast("Any", BlockingConnectionPool).from_url(
                url, max_connections=CONNECTIONS_MAX, timeout=timeout_s, socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0), decode_responses=True,
            )  # fmt: skip
        except ValueError as cause:
            raise SettingsError(f"limits.redis_url: {cause}") from cause
        self._redis: Any = Redis(connection_pool=pool)
        self._script: Any = self._redis.register_script(SCRIPT.read_text(encoding="utf-8"))
        self._faults: tuple[type[BaseException], ...] = (RedisError, OSError, TimeoutError)
        self._clock = clock
        self._seen: OrderedDict[tuple[str, What], tuple[float, float]] = OrderedDict()
        self._open: dict[str, Ask] = {}
        self._owed: OrderedDict[str, tuple[Ask, int]] = OrderedDict()

    async def take(self, ask: Ask) -> Refusal | None:
        """See Buckets. Raises SharedAway."""
        allowed, wait_ms, place = await self._ask("take", ask, None)
        if allowed:
            self._open[ask.request_id] = ask
            return None
        return Refusal(in_order(ask)[place - 1], wait_ms / 1000)

    async def give_back(self, ask: Ask, tokens_used: int) -> None:
        """See Buckets. Raises SharedAway."""
        self._open.pop(ask.request_id, None)
        await self._ask("give", ask, tokens_used)

    def owe(self, ask: Ask, tokens_used: int) -> None:
        """Remember to give back when Redis is there again; past a bound, the oldest leases just run out."""
        self._open.pop(ask.request_id, None)
        self._owed[ask.request_id] = (ask, tokens_used)
        while len(self._owed) > OWED_MAX:
            self._owed.popitem(last=False)

    async def pay(self) -> None:
        """Give back all that is owed. Raises SharedAway: the rest is still owed."""
        while self._owed:
            name, (ask, tokens_used) = next(iter(self._owed.items()))
            await self._ask("give", ask, tokens_used)
            self._owed.pop(name, None)

    def level(self, limit: Limit) -> float:
        """See Buckets: the last answer, refilled since."""
        seen = self._seen.get((limit.scope, limit.what))
        if seen is None:
            return limit.amount
        level, at_s = seen
        if limit.what is not What.CONCURRENT:
            level += (self._clock.monotonic_s() - at_s) * limit.amount / MINUTE_S
        return min(level, limit.amount)

    async def renew(self) -> None:
        """Say that this replica's requests still run. Raises SharedAway."""
        for ask in list(self._open.values()):
            await self._ask("renew", ask, None)

    async def probe(self) -> None:
        """Raises SharedAway unless Redis takes a write: one that is full, or is a read-only copy, answers pings."""
        try:
            await self._redis.set(PROBE, 1, px=LEASE_MS)
        except self._faults as cause:
            raise SharedAway(type(cause).__name__) from cause

    async def close(self) -> None:
        """Let the connections go."""
        await self._redis.aclose(close_connection_pool=True)

    async def _ask(self, act: str, ask: Ask, tokens_used: int | None) -> tuple[bool, int, int]:
        limits = in_order(ask)
        rates = [limit for limit in limits if limit.what is not What.CONCURRENT]
        prefix = "tollgate:{" + ask.tenant_id + "}:"
        names = [f"{prefix}{limit.scope}:{limit.what.value}" for limit in limits] + [f"{prefix}{ask.request_id}"]
        values: list[Any] = [act, ask.request_id, LEASE_MS, len(rates)]
        for limit in rates:
            is_used = tokens_used is not None and limit.what is What.TOKENS
            values += [limit.amount, limit.amount / MINUTE_S / 1000, tokens_used if is_used else ask.cost(limit)]
        values += [limit.amount for limit in limits[len(rates) :]]
        try:
            found: list[Any] = await self._script(keys=names, args=values)
        except self._faults as cause:
            raise SharedAway(type(cause).__name__) from cause
        now_s = self._clock.monotonic_s()
        for limit, level in zip(limits, found[3:], strict=False):
            self._seen[limit.scope, limit.what] = (float(level), now_s)
            self._seen.move_to_end((limit.scope, limit.what))
        while len(self._seen) > BUCKETS_MAX:
            self._seen.popitem(last=False)
        return bool(found[0]), int(found[1]), int(found[2])


def in_order(ask: Ask) -> list[Limit]:
    """The limits as the script wants them: buckets first, then sets."""
    return sorted(ask.limits, key=lambda limit: limit.what is What.CONCURRENT)

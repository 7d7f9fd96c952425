"""Rate limits around a request: take the worst case, run, give back what was not used.

Counted in memory on one machine and in Redis on many. While Redis is away each replica enforces its share of every
limit, so that customers see neither an error nor no limit at all; a probe brings Redis back.
"""

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from app.admission.authenticate import Principal
from app.admission.buckets import MINUTE_S, Ask, Buckets, Limit, LocalBuckets, Refusal, What
from app.admission.mapped_buckets import MappedBuckets
from app.admission.settings import LimitSettings
from app.admission.shared_buckets import LEASE_MS, SharedAway, SharedBuckets
from app.clock import Clock
from app.errors import ExceedsLimit, RateLimited, RequestsLimited, TokensLimited
from app.metering.limits import NO_LIMITS, LimitRule
from app.observability.metrics import Metrics

log = logging.getLogger(__name__)
PROBE_S = 1.0
RENEW_S = LEASE_MS / 3000


@dataclass(frozen=True, slots=True)
class Standing:
    """How a limit stands for its holder."""

    limit: Limit
    remaining: int
    reset_s: float
    """Until it is full again."""


@dataclass(slots=True)
class Permit:
    """A request that may run. `tokens_used` is set before it ends; 0 gives all tokens back."""

    ask: Ask
    buckets: Buckets
    tokens_used: int = 0


@dataclass(frozen=True, slots=True)
class Shared:
    """The file that a machine's workers count in, and which of them this is."""

    path: Path
    worker: int


def local_buckets(
    clock: Clock, workers: Shared | None, *, share: int = 1, seed: Callable[[Limit], float] = lambda limit: 1.0
) -> LocalBuckets:
    """Where this machine counts: in its one process, or in memory that its workers share."""
    if workers is None:
        return LocalBuckets(clock=clock, share=share, seed=seed)
    return MappedBuckets(path=workers.path, worker=workers.worker, clock=clock, share=share, seed=seed)


class Limits:
    """The rate limits of one replica."""

    def __init__(
        self, *, settings: LimitSettings, clock: Clock, metrics: Metrics, workers: Shared | None = None
    ) -> None:
        self._tiers = {name: LimitRule(**tier.model_dump()) for name, tier in settings.tiers.items()}
        self._clock = clock
        self._shared: SharedBuckets | None = None
        self._local = local_buckets(clock, workers)
        self._is_away = False
        self._renewed_s = clock.monotonic_s()
        self._refused = metrics.counter("tollgate_requests_limited")
        if settings.redis_url is not None:
            url = settings.redis_url.get_secret_value()
            self._shared = SharedBuckets(url=url, timeout_s=settings.redis_timeout_s, clock=clock)
            self._local = local_buckets(clock, workers, share=settings.replicas, seed=self._last_known)
            metrics.gauge("tollgate_limits_shared", lambda: 0.0 if self._is_away else 1.0)

    @property
    def is_shared(self) -> bool:
        """Whether Redis counts at this moment."""
        return self._shared is not None and not self._is_away

    def of(self, principal: Principal) -> tuple[Limit, ...]:
        """Every limit that holds for a key: its own, and its tenant's (or the tier's)."""
        tier = self._tiers.get(principal.tier, NO_LIMITS)
        rules = ((principal.key_id, principal.limits), (principal.tenant_id, principal.tenant_limits.over(tier)))
        return tuple(
            Limit(scope, what, amount)
            for scope, rule in rules
            for what, amount in (
                (What.REQUESTS, rule.requests_per_minute), (What.TOKENS, rule.tokens_per_minute),
                (What.CONCURRENT, rule.concurrent_requests),
            )
            if amount is not None
        )  # fmt: skip

    @asynccontextmanager
    async def permit(
        self, principal: Principal, *, request_id: str, input_tokens: int, output_tokens_max: int,
        is_output_asked: bool,
    ) -> AsyncGenerator[Permit]:  # fmt: skip
        """Hold what the request may use at most; give back the rest on leaving.

        Raises ExceedsLimit when no bucket could ever hold it, RequestsLimited or TokensLimited when it must wait. An
        output that the caller cannot choose (`is_output_asked` is false) is held as far as the bucket is large.
        """
        limits = self.of(principal)
        for limit in limits:
            refuse_impossible(limit, principal, input_tokens, output_tokens_max if is_output_asked else 0)
        ask = Ask(
            request_id=request_id, tenant_id=principal.tenant_id, limits=limits,
            tokens=input_tokens + output_tokens_max,
        )  # fmt: skip
        permit = await self._taken(ask)
        try:
            yield permit
        finally:
            await asyncio.shield(asyncio.ensure_future(self._give_back(permit)))

    def standing(self, principal: Principal) -> list[Standing]:
        """How the key's limits stand, as far as this replica knows."""
        buckets = self._buckets
        found: list[Standing] = []
        for limit in self.of(principal):
            level = buckets.level(limit)
            missing = max(0.0, limit.amount - level)
            reset_s = 0.0 if limit.what is What.CONCURRENT else missing * MINUTE_S / limit.amount
            found.append(Standing(limit, max(0, math.floor(level)), reset_s))
        return found

    async def run(self) -> None:
        """Look for a Redis that is away, and renew what runs; the task group of main.py owns this."""
        while self._shared is not None:
            await asyncio.sleep(PROBE_S)
            await self.look_after(self._shared)

    async def look_after(self, shared: SharedBuckets) -> None:
        """One round of `run`."""
        try:
            if self._is_away:
                await shared.probe()
                await shared.pay()
                self._is_away = False
                log.warning("Redis is back: limits are shared again")
            if self._clock.monotonic_s() - self._renewed_s >= RENEW_S:
                self._renewed_s = self._clock.monotonic_s()
                await shared.renew()
        except SharedAway as away:
            self._lose(away)

    async def close(self) -> None:
        """Let Redis go, and the workers' file."""
        self._local.close()
        if self._shared is not None:
            await self._shared.close()

    @property
    def _buckets(self) -> Buckets:
        return self._local if self._shared is None or self._is_away else self._shared

    def _last_known(self, limit: Limit) -> float:
        """How full a bucket was when Redis was last heard: a share begins no fuller."""
        return 1.0 if self._shared is None else self._shared.level(limit) / limit.amount

    def _lose(self, away: SharedAway) -> None:
        if not self._is_away:
            self._is_away = True
            self._local.clear()
            log.warning("Redis is away (%s): this replica enforces its share of the limits", away)

    async def _taken(self, ask: Ask) -> Permit:
        """Taking is never cut short: a caller that is cancelled meanwhile gives back what it got."""
        taking = asyncio.ensure_future(self._take(ask))
        try:
            refusal, permit = await asyncio.shield(taking)
        except asyncio.CancelledError:
            _, permit = await taking
            await self._give_back(permit)
            raise
        if refusal is not None:
            self._refused.labels(refusal.limit.what.value).inc()
            raise error_of(refusal)
        return permit

    async def _take(self, ask: Ask) -> tuple[Refusal | None, Permit]:
        buckets = self._buckets
        try:
            return await buckets.take(ask), Permit(ask, buckets)
        except SharedAway as away:
            self._lose(away)
            return await self._local.take(ask), Permit(ask, self._local)

    async def _give_back(self, permit: Permit) -> None:
        shared = self._shared if permit.buckets is self._shared else None
        if shared is not None and self._is_away:
            shared.owe(permit.ask, permit.tokens_used)
            return
        try:
            await permit.buckets.give_back(permit.ask, permit.tokens_used)
        except SharedAway as away:
            self._lose(away)
            if shared is not None:
                shared.owe(permit.ask, permit.tokens_used)


def refuse_impossible(limit: Limit, principal: Principal, input_tokens: int, output_tokens: int) -> None:
    """Raises ExceedsLimit when waiting would be in vain."""
    if limit.what is not What.TOKENS or input_tokens + output_tokens <= limit.amount:
        return
    whose = "key" if limit.scope == principal.key_id else "account"
    if input_tokens > limit.amount:
        raise ExceedsLimit(
            f"The input has {input_tokens:,} tokens, and this {whose}'s limit is {limit.amount:,} tokens a minute: it "
            "can never run. Send less text a request, or ask the operator for a higher limit."
        )
    raise ExceedsLimit(
        f"The request may use {input_tokens + output_tokens:,} tokens ({input_tokens:,} of input, {output_tokens:,} of "
        f"output), and this {whose}'s limit is {limit.amount:,} tokens a minute: it can never run. Ask for at most "
        f"{limit.amount - input_tokens:,} tokens of output, or ask the operator for a higher limit.",
        field="max_tokens",
    )


def error_of(refusal: Refusal) -> RateLimited:
    """A refusal in words."""
    limit, wait_s = refusal.limit, refusal.wait_s
    whose = "key" if limit.scope.startswith("key") else "account"
    if limit.what is What.CONCURRENT:
        return RequestsLimited(
            f"This {whose} has {limit.amount:,} requests running, which is its limit; wait for one to end.",
            retry_after_s=wait_s,
        )
    kind = RequestsLimited if limit.what is What.REQUESTS else TokensLimited
    said = f"This {whose}'s limit of {limit.amount:,} {limit.what.value} a minute is reached"
    return kind(f"{said}; try again in {wait_s:.3f} s.", retry_after_s=wait_s)

"""Limits around requests: what is held and given back, what can never run, and Redis away and back."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from redis.asyncio import Redis

from app.admission.authenticate import Principal
from app.admission.buckets import What
from app.admission.limits import Limits, Permit
from app.admission.settings import LimitSettings
from app.admission.shared_buckets import LEASE_MS
from app.clock import SystemClock
from app.errors import ExceedsLimit, RequestsLimited, SettingsError, TokensLimited
from app.metering.limits import LimitRule
from app.observability.metrics import Metrics
from tests.fixtures.clock import TurnedClock
from tests.fixtures.redis import RedisServer

PATIENT_S, HASTY_S = 5.0, 1.0
"""How long Redis is waited for: where it answers, and where it is to be seen that it does not."""
WAIT_S = 60.0


def principal(**limits: int) -> Principal:
    return Principal(
        tenant_id="tenant_1", tenant="acme", key_id="key_1", key_name="web", is_admin=False, tasks=None, models=None,
        weight=1.0, limits=LimitRule(**limits),
    )  # fmt: skip


def limits_of(**settings: Any) -> Limits:
    """In Redis they are counted by its clock; here no time passes."""
    clock = SystemClock() if "redis_url" in settings else TurnedClock()
    return Limits(settings=LimitSettings(**settings), clock=clock, metrics=Metrics())


def permit(
    limits: Limits, who: Principal, number: object = 1, tokens: int = 1, output: int = 0, *, is_asked: bool = True
) -> AbstractAsyncContextManager[Permit]:
    return limits.permit(
        who, request_id=f"r{number}", input_tokens=tokens, output_tokens_max=output, is_output_asked=is_asked
    )


async def ran(limits: Limits, who: Principal, number: object) -> bool:
    try:
        async with permit(limits, who, number):
            return True
    except RequestsLimited:
        return False


def remaining(limits: Limits, who: Principal, what: What) -> int:
    return min(one.remaining for one in limits.standing(who) if one.limit.what is what)


async def test_the_worst_case_is_held_and_the_rest_comes_back() -> None:
    limits, who = limits_of(), principal(tokens_per_minute=100)
    async with permit(limits, who, tokens=10, output=80) as permitted:
        assert remaining(limits, who, What.TOKENS) == 10
        with pytest.raises(TokensLimited) as refused:
            async with permit(limits, who, 2, tokens=10, output=10):
                pass
        assert refused.value.retry_after_s == pytest.approx(6.0)
        permitted.tokens_used = 15
    assert remaining(limits, who, What.TOKENS) == 85


async def test_a_request_that_breaks_gives_its_tokens_back() -> None:
    limits, who = limits_of(), principal(tokens_per_minute=100, concurrent_requests=1)
    for number in range(3):
        with pytest.raises(ZeroDivisionError):
            async with permit(limits, who, number, tokens=90):
                raise ZeroDivisionError
    assert remaining(limits, who, What.TOKENS) == 100


async def test_what_can_never_run_is_told_so_at_once() -> None:
    limits, who = limits_of(), principal(tokens_per_minute=100)
    with pytest.raises(ExceedsLimit, match="input has 101 tokens, and this key's limit is 100"):
        async with permit(limits, who, tokens=101):
            pass
    with pytest.raises(ExceedsLimit, match="at most 40 tokens of output") as refused:
        async with permit(limits, who, tokens=60, output=41):
            pass
    assert refused.value.field == "max_tokens"
    async with permit(limits, who, tokens=60, output=512, is_asked=False):
        assert remaining(limits, who, What.TOKENS) == 0


async def test_the_tier_holds_where_a_tenant_has_no_limit_of_its_own() -> None:
    limits = limits_of(tiers={"standard": {"concurrent_requests": 2}})
    async with permit(limits, principal(), 1), permit(limits, principal(), 2):
        with pytest.raises(RequestsLimited, match="account has 2 requests running"):
            async with permit(limits, principal(), 3):
                pass


async def test_a_cancelled_caller_leaves_no_trace() -> None:
    limits, who = limits_of(), principal(tokens_per_minute=100, concurrent_requests=1)

    async def hold() -> None:
        async with permit(limits, who, tokens=90):
            await asyncio.sleep(60)

    for _ in range(3):
        task = asyncio.create_task(hold())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert remaining(limits, who, What.TOKENS) == 100


@pytest.fixture
async def replicas(
    request: pytest.FixtureRequest, redis_server: RedisServer
) -> AsyncIterator[Callable[[], list[Limits]]]:
    timeout_s: float = getattr(request, "param", PATIENT_S)
    made = [limits_of(redis_url=redis_server.url, replicas=2, redis_timeout_s=timeout_s) for _ in range(2)]
    yield lambda: made
    for limits in made:
        await limits.close()


async def test_replicas_share_a_limit_and_keep_a_share_each_while_redis_is_away(
    replicas: Callable[[], list[Limits]], redis_server: RedisServer
) -> None:
    both, who = replicas(), principal(requests_per_minute=20)
    together = [await ran(both[n % 2], who, f"a{n}") for n in range(40)]
    assert 20 <= sum(together) <= 21
    fresh = Principal(**{name: getattr(who, name) for name in Principal.__dataclass_fields__} | {"key_id": "key_2"})
    redis_server.stop()
    apart = [await ran(limits, fresh, f"b{n}{limits}") for limits in both for n in range(20)]
    assert 20 <= sum(apart) <= 21, "each replica enforces its half"
    assert not any(limits.is_shared for limits in both)
    redis_server.start()
    for limits in both:
        await limits.look_after(limits._shared)  # pyright: ignore[reportPrivateUsage, reportArgumentType]
    assert all(limits.is_shared for limits in both)
    again = [await ran(both[n % 2], fresh, f"c{n}") for n in range(40)]
    assert 20 <= sum(again) <= 21


@pytest.mark.parametrize("replicas", [HASTY_S], indirect=True)
async def test_a_redis_that_never_answers_costs_one_request_its_timeout_and_nobody_an_error(
    replicas: Callable[[], list[Limits]], redis_server: RedisServer
) -> None:
    [limits, _], who = replicas(), principal(requests_per_minute=600)
    assert await ran(limits, who, "first")
    redis_server.freeze()
    began_s = time.monotonic()
    assert all([await ran(limits, who, n) for n in range(50)])
    assert time.monotonic() - began_s < 2 * HASTY_S
    assert not limits.is_shared
    redis_server.thaw()
    give_up_s = time.monotonic() + WAIT_S
    while not limits.is_shared:
        assert time.monotonic() < give_up_s
        await limits.look_after(limits._shared)  # pyright: ignore[reportPrivateUsage, reportArgumentType]
    assert await ran(limits, who, "last")


async def test_a_full_redis_is_away_until_it_takes_writes_and_each_look_at_it_gives_nobody_more(
    replicas: Callable[[], list[Limits]], redis_server: RedisServer
) -> None:
    [limits, _], who = replicas(), principal(requests_per_minute=20)
    async with Redis.from_url(redis_server.url) as operator:  # pyright: ignore[reportUnknownMemberType]
        await operator.config_set("maxmemory", "1")
        passed = 0
        for look in range(3):
            passed += sum([await ran(limits, who, f"{look}-{n}") for n in range(20)])
            await limits.look_after(limits._shared)  # pyright: ignore[reportPrivateUsage, reportArgumentType]
            assert not limits.is_shared
        assert 10 <= passed <= 11, "one share, not one for each look"
        await operator.config_set("maxmemory", "0")
    await limits.look_after(limits._shared)  # pyright: ignore[reportPrivateUsage, reportArgumentType]
    assert limits.is_shared and await ran(limits, who, "last")


@pytest.mark.parametrize("replicas", [HASTY_S], indirect=True)
async def test_what_ended_while_redis_was_away_is_given_back_when_it_returns(
    replicas: Callable[[], list[Limits]], redis_server: RedisServer
) -> None:
    [limits, other], who = replicas(), principal(concurrent_requests=1, tokens_per_minute=1000)
    async with permit(limits, who, "long", tokens=900) as permitted:
        assert not await ran(other, who, "early")
        redis_server.freeze()
        permitted.tokens_used = 100
    assert not limits.is_shared
    redis_server.thaw()
    give_up_s = time.monotonic() + WAIT_S
    while not limits.is_shared:
        assert time.monotonic() < give_up_s
        await limits.look_after(limits._shared)  # pyright: ignore[reportPrivateUsage, reportArgumentType]
    assert await ran(other, who, "late")
    assert remaining(other, who, What.TOKENS) > 880


async def test_a_share_begins_no_fuller_than_the_limit_was(
    replicas: Callable[[], list[Limits]], redis_server: RedisServer
) -> None:
    [limits, _], who = replicas(), principal(requests_per_minute=20)
    assert sum([await ran(limits, who, n) for n in range(20)]) == 20
    redis_server.stop()
    assert sum([await ran(limits, who, f"x{n}") for n in range(20)]) <= 1


async def test_a_dead_replicas_requests_stop_counting_when_their_lease_ends(
    replicas: Callable[[], list[Limits]], redis_server: RedisServer
) -> None:
    async def age(share: float) -> None:
        """As if that part of a lease had passed since each was written."""
        async with Redis.from_url(redis_server.url) as redis:  # pyright: ignore[reportUnknownMemberType]
            async for name in redis.scan_iter("*:concurrent"):
                for request in await redis.zrange(name, 0, -1):
                    await redis.zincrby(name, -share * LEASE_MS, request)

    [dead, alive], who = replicas(), principal(concurrent_requests=1)
    left = permit(dead, who, "left")
    await left.__aenter__()
    assert not await ran(alive, who, "early")
    await age(0.7)
    await dead._shared.renew()  # pyright: ignore[reportPrivateUsage, reportOptionalMemberAccess]
    await age(0.7)
    assert not await ran(alive, who, "renewed")
    await age(0.3)
    assert await ran(alive, who, "late")


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_clock_of_redis_that_jumps_an_hour_gives_one_bucket_at_most_and_stops_nobody(
    replicas: Callable[[], list[Limits]], redis_server: RedisServer, hours: int
) -> None:
    [limits, _], who = replicas(), principal(requests_per_minute=240)
    assert 240 <= sum([await ran(limits, who, f"a{n}") for n in range(300)]) < 300
    async with Redis.from_url(redis_server.url) as redis:  # pyright: ignore[reportUnknownMemberType]
        async for name in redis.scan_iter("*:requests"):
            await redis.hincrby(name, "t", -hours * 3_600_000)  # as if they had been written an hour ago, or to come
    passed = sum([await ran(limits, who, f"b{n}") for n in range(300)])
    assert (240 <= passed < 300) if hours > 0 else passed < 60
    await asyncio.sleep(0.5)
    assert await ran(limits, who, "later"), "four a second are filled in again"


def test_a_url_that_is_none_stops_the_start() -> None:
    with pytest.raises(SettingsError, match=r"limits\.redis_url"):
        limits_of(redis_url="http://127.0.0.1")

"""One suite for every place where limits are counted: in one process, in memory of several, in a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.admission.buckets import Ask, Buckets, Limit, LocalBuckets, Refusal, What
from app.admission.mapped_buckets import MappedBuckets, make_file
from app.admission.shared_buckets import SharedBuckets
from app.clock import SystemClock
from tests.fixtures.redis import RedisServer

REQUESTS = Limit("key_1", What.REQUESTS, 60)
TOKENS = Limit("key_1", What.TOKENS, 1000)
CONCURRENT = Limit("tenant_1", What.CONCURRENT, 3)
SLACK = 1000 / 60
"""What a bucket of 1,000 a minute gains in a second: a test must not take longer between two looks."""


@dataclass
class Place:
    """Somewhere to count, and another replica's view of it."""

    buckets: Buckets
    other: Buckets


@pytest.fixture(params=["local", "mapped", "redis"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "mapped":
        make_file(tmp_path / "limits", workers=2)
        two = [MappedBuckets(path=tmp_path / "limits", worker=number, clock=SystemClock()) for number in (1, 2)]
        yield Place(*two)
        for one in two:
            one.close()
        return
    if request.param == "local":
        local = LocalBuckets(clock=SystemClock())
        yield Place(local, local)
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    both = [SharedBuckets(url=server.url, timeout_s=30.0, clock=SystemClock()) for _ in range(2)]
    yield Place(*both)
    for buckets in both:
        await buckets.close()


@pytest.fixture
def ask() -> Callable[..., Ask]:
    numbers = iter(range(10**6))

    def make(*limits: Limit, tokens: int = 1) -> Ask:
        return Ask(request_id=f"req_{next(numbers)}", tenant_id="tenant_1", limits=limits, tokens=tokens)

    return make


async def test_what_was_not_used_comes_back_once(place: Place, ask: Any) -> None:
    first = ask(REQUESTS, TOKENS, tokens=600)
    assert await place.buckets.take(first) is None
    assert place.buckets.level(TOKENS) == pytest.approx(400, abs=SLACK)
    refused = await place.buckets.take(ask(REQUESTS, TOKENS, tokens=600))
    assert refused is not None
    assert refused.limit == TOKENS
    assert refused.wait_s == pytest.approx(200 / 1000 * 60, abs=1.0)
    for _ in range(3):
        await place.buckets.give_back(first, 100)
    assert place.buckets.level(TOKENS) == pytest.approx(900, abs=SLACK)
    assert await place.buckets.take(ask(REQUESTS, TOKENS, tokens=600)) is None


async def test_a_refusal_takes_nothing(place: Place, ask: Any) -> None:
    assert await place.buckets.take(ask(REQUESTS, TOKENS, tokens=1000)) is None
    for _ in range(5):
        assert await place.buckets.take(ask(REQUESTS, TOKENS, tokens=500)) is not None
    assert place.buckets.level(REQUESTS) == pytest.approx(59, abs=1)


async def test_more_used_than_taken_is_a_debt(place: Place, ask: Any) -> None:
    large = ask(TOKENS, tokens=5000)
    assert await place.buckets.take(large) is None
    await place.buckets.give_back(large, 1500)
    assert place.buckets.level(TOKENS) == pytest.approx(-500, abs=SLACK)
    refused = await place.buckets.take(ask(TOKENS, tokens=1))
    assert refused is not None
    assert refused.wait_s == pytest.approx(501 / 1000 * 60, abs=1.0)


async def test_so_many_run_at_once_and_no_more(place: Place, ask: Any) -> None:
    running = [ask(CONCURRENT) for _ in range(3)]
    for one in running:
        assert await place.buckets.take(one) is None
    assert await place.other.take(ask(CONCURRENT)) == Refusal(CONCURRENT, 1.0)
    await place.buckets.give_back(running[0], 0)
    assert await place.other.take(ask(CONCURRENT)) is None
    assert await place.buckets.take(ask(CONCURRENT)) == Refusal(CONCURRENT, 1.0)


async def test_a_hundred_at_once_on_two_replicas_share_one_limit(place: Place, ask: Any) -> None:
    asks = [ask(REQUESTS, TOKENS, tokens=30) for _ in range(100)]
    answers = await asyncio.gather(*((place.buckets, place.other)[n % 2].take(one) for n, one in enumerate(asks)))
    admitted = sum(answer is None for answer in answers)
    assert 33 <= admitted <= 35, "1,000 tokens hold 33 requests of 30, and a second fills half of one"


async def test_the_limit_that_waits_longest_is_named(place: Place, ask: Any) -> None:
    slow = Limit("tenant_1", What.REQUESTS, 1)
    assert await place.buckets.take(ask(REQUESTS, slow)) is None
    refused = await place.buckets.take(ask(REQUESTS, slow))
    assert refused is not None
    assert refused.limit == slow
    assert refused.wait_s == pytest.approx(60, abs=1.0)


async def test_settling_what_was_never_taken_changes_nothing(place: Place, ask: Any) -> None:
    assert await place.buckets.take(ask(TOKENS, CONCURRENT, tokens=100)) is None
    await place.buckets.give_back(ask(TOKENS, CONCURRENT, tokens=500), 0)
    assert place.buckets.level(TOKENS) == pytest.approx(900, abs=SLACK)
    assert place.buckets.level(CONCURRENT) == 2

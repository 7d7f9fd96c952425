"""The buckets of one process under a clock that the test turns."""

from hypothesis import given
from hypothesis import strategies as st

from app.admission.buckets import Ask, Limit, LocalBuckets, What
from tests.fixtures.clock import TurnedClock

TOKENS = Limit("key", What.TOKENS, 600)


def ask(number: int, tokens: int, *limits: Limit) -> Ask:
    return Ask(request_id=f"r{number}", tenant_id="t", limits=limits or (TOKENS,), tokens=tokens)


async def test_waiting_as_long_as_was_said_is_enough_and_less_is_not() -> None:
    clock = TurnedClock()
    buckets = LocalBuckets(clock=clock)
    assert await buckets.take(ask(1, 600)) is None
    refused = await buckets.take(ask(2, 60))
    assert refused is not None
    assert refused.wait_s == 6.0
    clock.turn(5.9)
    assert await buckets.take(ask(2, 60)) is not None
    clock.turn(0.1001)
    assert await buckets.take(ask(2, 60)) is None


async def test_a_share_is_the_limit_divided_and_still_lets_a_large_request_in() -> None:
    clock = TurnedClock()
    shared = LocalBuckets(clock=clock, share=3)
    assert await shared.take(ask(1, 600)) is None
    await shared.give_back(ask(1, 600), 600)
    assert shared.level(TOKENS) == 200 - 600
    clock.turn(60)
    assert round(shared.level(TOKENS)) == -200


async def test_a_limit_below_the_share_still_admits_now_and_then() -> None:
    clock = TurnedClock()
    rare = Limit("key", What.REQUESTS, 1)
    buckets = LocalBuckets(clock=clock, share=4)
    assert await buckets.take(ask(1, 1, rare)) is None
    refused = await buckets.take(ask(2, 1, rare))
    assert refused is not None
    assert refused.wait_s == 240


@given(
    st.lists(
        st.tuples(st.integers(1, 900), st.integers(0, 900), st.floats(0, 90, allow_nan=False)), min_size=1, max_size=60
    )
)
async def test_never_more_passes_than_a_full_bucket_and_its_refill(steps: list[tuple[int, int, float]]) -> None:
    clock = TurnedClock()
    buckets = LocalBuckets(clock=clock)
    used_total = passed_s = last_used = 0.0
    for number, (tokens, used, pause_s) in enumerate(steps):
        if await buckets.take(ask(number, tokens)) is None:
            await buckets.give_back(ask(number, tokens), used)
            used_total += used
            last_used = used
        assert used_total - last_used <= 600 + passed_s * 10 + 1e-6
        clock.turn(pause_s)
        passed_s += pause_s
    assert not buckets.taken

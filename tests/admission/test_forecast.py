"""What is sure to come too late is refused at once; who waits for nobody is not."""

from dataclasses import replace

import pytest

from app.admission.forecast import Forecast
from app.engine.client import EngineStats, LaneStats
from app.engine.jobs import DecodeJob, EncodeJob, cost_of
from app.engine.tally import Tally
from app.errors import DeadlineUnreachable, EngineOverloaded
from app.observability.distribution import Distribution
from tests.fixtures.clock import TurnedClock

NONE = Distribution((), (0,), 0.0)
LANE = LaneStats(
    model="m", running=0, waiting=0, kv_usage=0.0, step_seconds=NONE, step_rows=NONE, step_tokens=NONE, speed=100.0
)
JOB = DecodeJob(id="j", model="m", ids=(1,) * 8, max_new_tokens=99, tenant="acme")


def forecast(lane: LaneStats = LANE, *, wait_s_max: float = 10.0) -> Forecast:
    stats = EngineStats(running=0, waiting=0, loaded=("m",), is_alive=True, lanes=(lane,))
    return Forecast(stats=lambda: stats, clock=TurnedClock(), wait_s_max=wait_s_max)


async def test_a_tenant_waits_for_its_own_work_and_is_refused_beyond_the_bound() -> None:
    made = forecast()
    for count in range(11):
        assert made.wait_s("m", "acme", 1.0) == pytest.approx(count)
        await made.standing([replace(JOB, id=f"j{count}")]).__aenter__()
    with pytest.raises(EngineOverloaded) as refused:
        made.refuse_late("m", "acme", 1.0)
    assert refused.value.retry_after_s == pytest.approx(1.0)
    made.begin("m", "j3")
    made.refuse_late("m", "acme", 1.0)


async def test_a_light_tenant_is_not_refused_because_of_a_heavy_one() -> None:
    made = forecast()
    for count in range(11):
        await made.standing([replace(JOB, id=f"j{count}")]).__aenter__()
    assert made.wait_s("m", "light", 1.0) == 0
    await made.standing([replace(JOB, id="l", tenant="light")]).__aenter__()
    assert made.wait_s("m", "light", 1.0) == pytest.approx(2.0), "its own second, and one of the other's"
    assert made.wait_s("m", "light", 0.5) == pytest.approx(3.0), "at half the weight the other gets two"
    assert made.wait_s("m", "acme", 1.0) == pytest.approx(12.0)


async def test_what_other_processes_have_in_line_counts_too() -> None:
    made = forecast(replace(LANE, waiting_cost=300.0))
    async with made.standing([JOB]):
        assert made.wait_s("m", "acme", 1.0) == pytest.approx(3.0)
    assert made.wait_s("m", "acme", 1.0) == 0


async def test_nothing_is_refused_while_nothing_was_measured() -> None:
    made = forecast(replace(LANE, speed=0.0), wait_s_max=0.001)
    for count in range(50):
        await made.standing([replace(JOB, id=f"j{count}", deadline_s=0.0)]).__aenter__()


async def test_a_deadline_that_the_line_will_miss_is_told_at_once() -> None:
    made = forecast()
    now_s = TurnedClock().monotonic_s()
    async with made.standing([JOB, replace(JOB, id="k"), replace(JOB, id="l")]):
        async with made.standing([replace(JOB, id="n", deadline_s=now_s + 3.1)]):
            pass
        with pytest.raises(DeadlineUnreachable) as refused:
            async with made.standing([replace(JOB, id="n", deadline_s=now_s + 2.0)]):
                pass
        assert refused.value.retry_after_s == pytest.approx(1.0)
        with pytest.raises(DeadlineUnreachable):
            many = [replace(JOB, id=f"n{count}", deadline_s=now_s + 3.1) for count in range(3)]
            async with made.standing(many):
                pass


def test_a_lane_measures_its_pace_while_somebody_waits() -> None:
    tally, now_s = Tally(), 100.0
    encode = EncodeJob(id="e", model="m", ids=(1,) * 30)
    for count in range(100):
        tally.arrive(f"e{count}", now_s, cost_of(encode))
    assert tally.waiting_cost == 3000
    assert tally.pace.speed == 0
    for count in range(0, 100, 2):
        for place in (count, count + 1):
            tally.seat(f"e{place}", now_s)
        now_s += 0.1
        for place in (count, count + 1):
            tally.leave(f"e{place}", now_s)
        tally.pace.step(now_s, is_backlogged=count < 98)
    assert tally.pace.speed == pytest.approx(600, rel=0.05)
    assert tally.waiting_cost == 0
    before = tally.pace.speed
    for _ in range(100):  # alone: shows demand, not speed
        tally.arrive("x", now_s, 1.0)
        tally.seat("x", now_s)
        now_s += 1
        tally.leave("x", now_s)
        tally.pace.step(now_s, is_backlogged=False)
    assert tally.pace.speed == before


def test_a_row_that_stops_early_makes_the_pace_faster_than_its_tokens() -> None:
    tally, now_s = Tally(), 0.0
    for count in range(20):
        tally.arrive(f"r{count}", now_s, 101.0)
        tally.seat(f"r{count}", now_s)
        for _ in range(10):
            now_s += 0.01
            tally.produce(f"r{count}", now_s)
            tally.pace.step(now_s, is_backlogged=True)
        tally.leave(f"r{count}", now_s)
    assert tally.pace.speed == pytest.approx(1010, rel=0.1)

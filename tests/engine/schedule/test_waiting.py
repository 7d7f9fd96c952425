"""The line is fair by weight, bounded, and rest earns no credit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.jobs import DecodeJob, Job
from app.engine.schedule.waiting import Waiting


def job(name: str, tenant: str, *, weight: float = 1.0, deadline_s: float | None = None) -> DecodeJob:
    return DecodeJob(
        id=name, model="m", ids=(1,), max_new_tokens=1, tenant=tenant, weight=weight, deadline_s=deadline_s
    )


def anything(_: Job) -> bool:
    return True


def served(line: Waiting, count: int, *, tokens: int = 10) -> list[str]:
    order: list[str] = []
    for _ in range(count):
        taken = line.take(anything)
        assert taken is not None
        line.charge(taken.tenant, taken.weight, tokens)
        order.append(taken.tenant)
    return order


@given(weight=st.integers(1, 5), flood=st.integers(10, 200))
def test_a_flood_costs_others_nothing_but_their_share(weight: int, flood: int) -> None:
    line = Waiting(jobs_max=1000)
    for index in range(flood):
        line.add(job(f"a{index}", "flood"))
    for index in range(10):
        line.add(job(f"b{index}", "quiet", weight=float(weight)))
    order = served(line, 10)
    assert order.count("quiet") >= (10 * weight) // (weight + 1) - 1


def test_an_idle_tenant_gains_no_credit() -> None:
    line = Waiting(jobs_max=1000)
    for index in range(50):
        line.add(job(f"a{index}", "busy"))
    served(line, 30)
    for index in range(50):
        line.add(job(f"b{index}", "late"))
    assert abs(served(line, 20).count("late") - 10) <= 1


def test_expired_and_cancelled_jobs_leave_the_line() -> None:
    line = Waiting(jobs_max=3)
    for name, deadline in (("old", 5.0), ("young", 50.0), ("free", None)):
        line.add(job(name, "t", deadline_s=deadline))
    assert line.is_full
    assert [expired.id for expired in line.take_expired(6.0)] == ["old"]
    assert line.remove("free") is not None
    assert line.remove("free") is None
    assert [left.id for left in line] == ["young"]


@given(
    deadlines=st.lists(st.none() | st.integers(0, 9), max_size=12),
    moves=st.lists(st.tuples(st.sampled_from(["add", "take", "look"]), st.integers(0, 10)), max_size=40),
)
def test_whatever_comes_and_goes_a_job_expires_at_its_deadline(
    deadlines: list[int | None], moves: list[tuple[str, int]]
) -> None:
    line, left = Waiting(jobs_max=1000), dict(enumerate(deadlines))
    for number, (move, now_s) in enumerate(moves):
        if move == "add" and number in left:
            line.add(job(str(number), "t", deadline_s=left[number]))
        elif move == "take":
            line.take(anything)
        waits = list(line)
        due = {one.id for one in waits if one.deadline_s is not None and one.deadline_s <= now_s}
        assert {one.id for one in line.take_expired(now_s)} == due
        assert [one.id for one in line] == [one.id for one in waits if one.id not in due]


def test_what_does_not_fit_is_passed_over_for_another_tenant() -> None:
    line = Waiting(jobs_max=3)
    line.add(job("big", "a"))
    line.add(job("small", "b"))
    taken = line.take(lambda offered: offered.id == "small")
    assert taken is not None and taken.id == "small"
    assert len(line) == 1


def test_a_full_line_is_the_callers_to_refuse() -> None:
    line = Waiting(jobs_max=1)
    line.add(job("one", "a"))
    with pytest.raises(AssertionError, match="This is a bug"):
        line.add(job("two", "a"))

"""The capacity model: the simulation agrees with theory where there is one, and the page shows what it prints."""

import math
from pathlib import Path

import pytest

from benchmarks.capacity import Machine, page, replicas_for, simulate

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_one_slot_is_the_queue_with_one_server(share: float) -> None:
    """M/M/1: the share of requests that wait longer than t is `share * exp(-(rate - load) * t)`."""
    machine = Machine(step_ms=0.0, row_ms=1.0, slots=1)
    rate = machine.requests_per_s(30.5)  # lengths are 1 + an exponential's floor
    seen = simulate(machine, replicas=1, load_per_s=rate * share, tokens=30, requests=40_000, seed=1)
    expected = math.log(share / 0.01) / (rate * (1 - share))
    assert seen.first_p99_s == pytest.approx(expected, rel=0.2)


def test_every_slot_in_use_serves_what_the_formula_says() -> None:
    machine = Machine()
    seen = simulate(machine, replicas=2, load_per_s=1000.0, tokens=100, requests=2000)
    assert seen.rate_per_s == pytest.approx(2 * machine.requests_per_s(100.5), rel=0.08)


def test_a_reserve_and_a_second_replica_are_planned_in() -> None:
    assert replicas_for(0.1, Machine(), tokens=100) == 2
    assert replicas_for(100, Machine(), tokens=100) * Machine().requests_per_s(100) * 0.7 >= 100


def test_the_page_shows_what_the_command_prints() -> None:
    assert page(Machine(), tokens=100, price_per_hour=0.10) in (ROOT / "docs/scaling.md").read_text(encoding="utf-8")

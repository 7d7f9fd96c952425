"""Replicas whose clocks differ: the books stay exact, no budget is overspent, and nobody is taken for dead."""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.admission.limits import Limits
from app.admission.settings import LimitSettings
from app.errors import InsufficientQuota
from app.metering.books import Books
from app.metering.budgets import add_money, list_budgets, set_monthly
from app.metering.database import Database, microseconds
from app.metering.idempotency import claim, finish, hash_of
from app.metering.invoices import invoice
from app.metering.keys import NewKey
from app.metering.ledger import Outcome, Usage, list_entries, settle
from app.metering.money import Meter
from app.metering.prices import set_price
from app.metering.replica import JOURNAL_NAME, REPLICA_NAME
from app.metering.sweeper import Sweeper
from app.metering.verify import drifts
from app.observability.metrics import Metrics
from tests.admission.test_limits import principal, ran
from tests.fixtures.clock import TurnedClock
from tests.fixtures.redis import RedisServer
from tests.postgres.test_books import admission, replicas, shared_key

__all__ = ["replicas", "shared_key"]
DIFFERENCES_S = [90.0, -600.0]
DEAD_AFTER_S = 120.0
COST = 30
"""Of a request: ten tokens in, twenty out, a nano each."""
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


class OffClock(TurnedClock):
    """Of a machine that was started at another time, and whose wall clock is off."""

    def __init__(self, true: TurnedClock, off_s: float) -> None:
        super().__init__()
        self.true, self.off_s = true, off_s

    def monotonic_s(self) -> float:
        return self.true.monotonic_s() + 7 * 86_400

    def now(self) -> datetime:
        return self.true.now() + timedelta(seconds=self.off_s)


@dataclass
class Replica:
    """One machine's part."""

    name: str
    database: Database
    clock: TurnedClock
    home: Path

    def __post_init__(self) -> None:
        self.home.mkdir(exist_ok=True)
        (self.home / REPLICA_NAME).write_text(self.name)
        self.books = Books(
            database=self.database, home=self.home, clock=self.clock, replica_id=self.name, escrow_share=0.1
        )
        self.sweeper = Sweeper(
            database=self.database, clock=self.clock, replica_id=self.name, folder=self.home, dead_after_s=DEAD_AFTER_S
        )

    async def sell(self, key: NewKey, name: str) -> int:
        """One request; what it cost, 0 when it was refused for want of money."""
        try:
            opened = await self.books.open(replace(admission(key, name), replica_id=self.name))
        except InsufficientQuota:
            return 0
        return (await self.books.settle(opened, Outcome.FINISHED, Usage(input_tokens=10, output_tokens=20))).cost_nano


@dataclass
class Pair:
    """A machine whose clock is right, and one whose clock is off by so much."""

    true: TurnedClock
    right: Replica
    off: Replica

    @property
    def both(self) -> tuple[Replica, Replica]:
        return self.right, self.off

    async def sell_many(self, key: NewKey, prefix: str, count: int) -> int:
        """At once, on both in turn; what all of it cost."""
        asked = (self.both[number % 2].sell(key, f"{prefix}{number:02}") for number in range(count))
        return sum(await asyncio.gather(*asked))

    async def look(self) -> list[int]:
        """What each settles of the other, at the same moment."""
        return await asyncio.gather(*(one.sweeper.look() for one in self.both))


@pytest.fixture(params=DIFFERENCES_S)
async def pair(request: pytest.FixtureRequest, replicas: list[Database], tmp_path: Path) -> Pair:
    true = TurnedClock()
    clocks = (true, OffClock(true, request.param))
    for meter in (Meter.INPUT_TOKEN, Meter.OUTPUT_TOKEN):
        await replicas[0].run(
            lambda c, meter=meter: set_price(
                c, clock=true, model="m", task="t", meter=meter, pico_per_unit=1000, effective_us=0
            )
        )
    made = [
        Replica(f"replica_{name}", database, clock, tmp_path / name)
        for name, database, clock in zip("ab", replicas, clocks, strict=True)
    ]
    for one in made:
        await one.books.start()
    return Pair(true, *made)


async def test_one_budget_is_sold_exactly_and_no_living_replica_is_robbed_of_its_holds(
    pair: Pair, replicas: list[Database], shared_key: NewKey
) -> None:
    await replicas[0].run(lambda c: add_money(c, clock=pair.true, tenant_name="acme", amount_nano=40 * COST + 29))
    running = [
        await one.books.open(replace(admission(shared_key, f"running-{one.name}"), replica_id=one.name))
        for one in pair.both
    ]
    for one in pair.both:
        assert await one.sell(shared_key, f"first-{one.name}") == COST
    for _ in range(24):  # twenty minutes
        assert await pair.look() == [0, 0]
        await asyncio.gather(*(one.books.refresh_leases() for one in pair.both))
        pair.true.turn(DEAD_AFTER_S / 2.4)
    sold = 2 * COST + await pair.sell_many(shared_key, "r", 64)
    for one, opened in zip(pair.both, running, strict=True):
        receipt = await one.books.settle(opened, Outcome.FINISHED, Usage(input_tokens=10, output_tokens=20))
        sold += receipt.cost_nano
    pair.true.turn(1800)  # what one has set aside, the other cannot sell; by now nothing is
    await asyncio.gather(*(one.books.refresh_leases() for one in pair.both))
    sold += await pair.sell_many(shared_key, "s", 64)
    assert sold == 40 * COST, "all that there was money for, and no more"
    [state] = await replicas[0].run(lambda c: list_budgets(c, clock=pair.true))
    assert (state.spent_nano, state.held_nano) == (sold, 0)
    outcomes = {entry["outcome"] for entry in await replicas[1].run(lambda c: list_entries(c, limit=None))}
    assert outcomes == {"finished"}
    assert await replicas[1].run(lambda c: list(drifts(c))) == []
    for one in pair.both:
        one.books.close()


async def test_a_dead_one_is_known_by_the_others_own_clock_and_settled_once(
    pair: Pair, replicas: list[Database], shared_key: NewKey
) -> None:
    dead, alive = pair.both
    opened = [
        await dead.books.open(replace(admission(shared_key, f"r{number}"), replica_id=dead.name)) for number in range(5)
    ]
    for one in opened:
        dead.books.note(one, Usage(input_tokens=10, output_tokens=4))
    await dead.books.report_progress()
    await pair.look()
    dead.books.close()
    (dead.home / JOURNAL_NAME).rename(dead.home / "elsewhere")
    assert await alive.sweeper.look() == 0
    for seconds, settled in ((DEAD_AFTER_S - 1, 0), (2, 5), (DEAD_AFTER_S, 0)):
        pair.true.turn(seconds)
        assert await alive.sweeper.look() == settled
    used = Usage(input_tokens=10, output_tokens=20)
    for one in opened:  # it was only cut off, and ships what it has
        at_us = microseconds(dead.clock.now())
        receipt = await replicas[0].run(lambda c, o=one, at=at_us: settle(c, o, Outcome.FINISHED, used, at_us=at))
        assert receipt.output_tokens == 4
    entries = await replicas[0].run(list_entries)
    assert [(one["outcome"], one["cost_nano"]) for one in entries] == [("crashed", 14)] * 5
    assert all(one["duration_ms"] >= 0 for one in entries)
    assert await replicas[0].run(lambda c: list(drifts(c))) == []
    alive.books.close()


async def test_around_the_border_of_a_month_each_month_has_its_limit_and_the_last_one_that_was_set(
    pair: Pair, replicas: list[Database], shared_key: NewKey
) -> None:
    pair.true.turn(
        (DECEMBER - pair.true.now()).total_seconds() - (45 if pair.off.clock.now() > pair.true.now() else -45)
    )
    early, late = sorted(pair.both, key=lambda one: one.clock.now())
    assert (early.clock.now().month, late.clock.now().month) == (11, 12)
    await replicas[0].run(lambda c: set_monthly(c, clock=early.clock, tenant_name="acme", limit_nano=20 * COST))
    sold = await pair.sell_many(shared_key, "before", 8)
    await replicas[0].run(lambda c: set_monthly(c, clock=early.clock, tenant_name="acme", limit_nano=10 * COST))
    sold += await pair.sell_many(shared_key, "after", 40)
    assert sold == 2 * 10 * COST, "in december too it is the limit that was set last"
    pair.true.turn(900)
    assert await pair.sell_many(shared_key, "later", 4) == 0, "it is december for both, and they have sold it"
    [state] = await replicas[0].run(lambda c: list_budgets(c, clock=pair.true))
    assert (state.spent_nano, state.held_nano, state.limit_nano) == (10 * COST, 0, 10 * COST)
    now = pair.true.now()
    months = [
        (await replicas[0].run(lambda c, m=month: invoice(c, tenant_name="acme", month=m, now=now)))["total_nano"]
        for month in ("2026-11", "2026-12")
    ]
    assert months == [10 * COST] * 2
    assert await replicas[0].run(lambda c: list(drifts(c))) == []
    for one in pair.both:
        one.books.close()


async def test_a_key_is_charged_once_and_kept_for_a_day_less_the_difference(
    pair: Pair, replicas: list[Database], shared_key: NewKey
) -> None:
    tenant_id = shared_key.record.tenant_id

    async def ask(number: int) -> tuple[str, bool]:
        one = pair.both[number % 2]
        at_us = microseconds(one.clock.now())
        found = await one.database.run(
            lambda c: claim(
                c, tenant_id=tenant_id, key="k", fingerprint="f", request_id=f"r{number}", replica_id=one.name,
                at_us=at_us,
            )
        )  # fmt: skip
        return found.request_id, found.is_done

    [(first, is_done)] = set(await asyncio.gather(*(ask(number) for number in range(16))))
    assert not is_done, "it runs"
    winner = pair.both[int(first[1:]) % 2]
    opened = await winner.books.open(replace(admission(shared_key, first), replica_id=winner.name))
    assert await ask(16) == await ask(17) == (first, False)
    used = Usage(input_tokens=10, output_tokens=20)
    await winner.books.settle(opened, Outcome.FINISHED, used)
    assert {name for name, _ in (await ask(18), await ask(19))} == {first}
    await replicas[0].run(lambda c: finish(c, request_id=first, tenant_id=tenant_id, key="k"))
    for one in pair.both:  # what both served while they could not ask
        asked = replace(admission(shared_key, f"late-{one.name}"), once=(hash_of("k"), "f"), replica_id=one.name)
        assert (await one.books.settle(asked, Outcome.FINISHED, used)).cost_nano == 0
    pair.true.turn(86_400 - 601)
    assert await ask(20) == await ask(21) == (first, True)
    for one in pair.both:
        one.books.close()


async def test_a_rate_limit_is_counted_by_the_clock_of_redis(redis_server: RedisServer) -> None:
    true = TurnedClock()
    settings = LimitSettings.model_validate({"redis_url": redis_server.url, "replicas": 2, "redis_timeout_s": 5})
    both = [
        Limits(settings=settings, clock=clock, metrics=Metrics()) for clock in (true, OffClock(true, DIFFERENCES_S[-1]))
    ]
    who = principal(requests_per_minute=20)
    assert 20 <= sum([await ran(both[number % 2], who, number) for number in range(60)]) <= 21
    for one in both:
        assert one.is_shared
        await one.close()

"""Clocks that jump an hour, and the borders of months: windows, invoices and entries stay right."""

import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from app.metering.books import Books
from app.metering.budgets import list_budgets, set_monthly
from app.metering.database import Database
from app.metering.invoices import invoice
from app.metering.keys import NewKey
from app.metering.ledger import Admission, Outcome, Usage, list_entries
from app.metering.money import Meter
from app.metering.prices import set_price
from app.metering.tables import usage_entry
from app.metering.verify import drifts
from tests.fixtures.clock import TurnedClock

HOUR = timedelta(hours=1)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


class JumpingClock(TurnedClock):
    """Its wall clock is set to and fro; its monotonic clock never is."""

    def __init__(self, at: datetime) -> None:
        super().__init__()
        self.at = at

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock(DECEMBER - timedelta(minutes=30))


@pytest.fixture
async def books(database: Database, key: NewKey, clock: JumpingClock, tmp_path: Path) -> AsyncIterator[Books]:
    for meter in (Meter.INPUT_TOKEN, Meter.OUTPUT_TOKEN):
        await database.run(
            lambda c, meter=meter: set_price(
                c, clock=clock, model="m", task="t", meter=meter, pico_per_unit=1000, effective_us=0
            )
        )
    await database.run(lambda c: set_monthly(c, clock=clock, tenant_name="acme", limit_nano=100))
    made = Books(database=database, home=tmp_path, clock=clock)
    await made.start()
    yield made
    made.close()


@pytest.fixture
def local_zone(zone: str) -> Iterator[None]:
    """The machine's own zone."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TZ", zone)
        time.tzset()
        assert zone == "UTC" or time.localtime().tm_gmtoff != 0, "the zone is not known here"
        yield
    time.tzset()


def admission(key: NewKey, name: str) -> Admission:
    return Admission(
        request_id=name, tenant_id=key.record.tenant_id, key_id=key.record.id, model="m", task="t", route="x",
        input_tokens=10, output_tokens_max=10,
    )  # fmt: skip


async def total(database: Database, month: str, now: datetime) -> int:
    found = await database.run(lambda c: invoice(c, tenant_name="acme", month=month, now=now))
    return int(found["total_nano"])


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_a_clock_that_jumps_while_a_request_runs_loses_no_money(
    books: Books, database: Database, key: NewKey, clock: JumpingClock, jump: timedelta
) -> None:
    opened = await books.open(admission(key, "r"))
    clock.at += jump
    receipt = await books.settle(opened, Outcome.FINISHED, Usage(input_tokens=10, output_tokens=5))
    assert receipt.cost_nano == 15
    after = await books.settle(await books.open(admission(key, "s")), Outcome.FINISHED, Usage(input_tokens=10))
    assert after.cost_nano == 10
    assert await database.run(lambda c: list(drifts(c))) == []
    assert await database.run(lambda c: c.scalars(select(usage_entry.c.duration_ms)).all()) == [
        3_600_000 if jump > timedelta() else 0, 0
    ]  # fmt: skip
    sums = [await total(database, month, clock.at) for month in ("2026-11", "2026-12")]
    assert sums == ([0, 25] if jump > timedelta() else [25, 0])


async def test_a_hold_is_released_in_the_month_that_held_it_and_each_month_has_its_own_limit(
    books: Books, database: Database, key: NewKey, clock: JumpingClock
) -> None:
    opened = await books.open(admission(key, "november"))
    clock.at = DECEMBER
    await books.settle(await books.open(admission(key, "december")), Outcome.FINISHED, Usage(input_tokens=10))
    await books.settle(opened, Outcome.FINISHED, Usage(input_tokens=10, output_tokens=10))
    [now] = await database.run(lambda c: list_budgets(c, clock=clock))
    assert (now.spent_nano, now.held_nano) == (10, 0)
    clock.at = DECEMBER - timedelta(microseconds=1)
    [before] = await database.run(lambda c: list_budgets(c, clock=clock))
    assert (before.spent_nano, before.held_nano) == (20, 0), "it was held in november, and is spent there"
    assert await total(database, "2026-12", clock.at) == 30, "an invoice goes by the moment of the entry"
    assert await database.run(lambda c: list(drifts(c))) == []


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Europe/Berlin"])
async def test_the_border_of_a_month_is_utc_to_the_microsecond_wherever_the_server_stands(
    books: Books, database: Database, key: NewKey, clock: JumpingClock, local_zone: None
) -> None:
    for name, at in (("last", DECEMBER - timedelta(microseconds=1)), ("first", DECEMBER)):
        clock.at = at
        await books.settle(await books.open(admission(key, name)), Outcome.FINISHED, Usage(input_tokens=10))
    assert [await total(database, month, clock.at) for month in ("2026-11", "2026-12")] == [10, 10]
    assert [one["occurred_at"] for one in await database.run(list_entries)] == [
        "2026-12-01T00:00:00+00:00", "2026-11-30T23:59:59.999999+00:00"
    ]  # fmt: skip

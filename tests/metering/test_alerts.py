"""Budget alerts: each share of a limit is told once, with the settlement that reached it, and no sooner."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import InsufficientQuota
from app.metering import webhooks
from app.metering.acts import Operator
from app.metering.books import Books
from app.metering.budgets import add_money, set_monthly
from app.metering.database import Database
from app.metering.keys import NewKey, Pepper
from app.metering.ledger import Admission, Outcome, Usage, settle
from app.metering.money import Meter
from app.metering.outbox import list_deliveries
from app.metering.prices import set_price
from tests.fixtures.clock import TurnedClock

CLOCK = TurnedClock()


def asked(key: NewKey, number: int, tokens: int) -> Admission:
    """A request that costs a nano a token."""
    return Admission(
        request_id=f"req_{number:04}", tenant_id=key.record.tenant_id, key_id=key.record.id, model="m", task="t",
        route="/r", input_tokens=0, output_tokens_max=tokens, is_free=True,
    )  # fmt: skip


class Shop:
    """One replica's books, a webhook, and a price of a nano a token."""

    def __init__(self, database: Database, key: NewKey, home: Path) -> None:
        self.database, self.key, self.home = database, key, home
        self.books = Books(database=database, home=home, clock=CLOCK)
        self.by = Operator(actor="cli:x", clock=CLOCK, pepper=Pepper(home))
        self.number = 0

    async def open(self) -> "Shop":
        await self.books.start()
        pepper = Pepper(self.home)
        await self.database.run(
            lambda c: webhooks.create_webhook(c, self.by, pepper, url="https://example.com/", tenant_name=None)
        )
        return self

    async def spend(self, nano: int) -> None:
        self.number += 1
        opened = await self.books.open(asked(self.key, self.number, nano))
        await self.books.settle(opened, Outcome.FINISHED, Usage(output_tokens=nano))

    async def told(self) -> list[Any]:
        """Percentages, rising, and `refused`."""
        found = await self.database.run(list_deliveries)
        told = [one["event"]["data"].get("percent", one["type"].rpartition("_")[2]) for one in found]
        return sorted(told, key=lambda one: (isinstance(one, str), one))

    async def percents(self, *percents: int) -> None:
        await self.database.run(
            lambda c: webhooks.put_percents(c, self.by, tenant_name="acme", percents=list(percents))
        )


@pytest.fixture
async def shop(database: Database, key: NewKey, tmp_path: Path) -> AsyncIterator[Shop]:
    await database.run(
        lambda c: set_price(c, clock=CLOCK, model="m", task="t", meter=Meter.OUTPUT_TOKEN, pico_per_unit=1000)
    )
    made = await Shop(database, key, tmp_path).open()
    yield made
    made.books.close()


async def test_each_share_of_a_month_is_told_once_with_what_was_spent(shop: Shop) -> None:
    await shop.database.run(lambda c: set_monthly(c, clock=CLOCK, tenant_name="acme", limit_nano=100))
    steps = ((49, []), (1, [50]), (29, [50]), (1, [50, 80]), (19, [50, 80]), (1, [50, 80, 100]))
    for nano, told in steps:
        await shop.spend(nano)
        assert await shop.told() == told
    found = await shop.database.run(list_deliveries)
    [first] = [one for one in found if one["event"]["data"]["percent"] == 50]
    data = first["event"]["data"]
    assert (first["type"], data["tenant"], data["kind"], data["from"]) == (
        "budget.threshold_reached", "acme", "monthly", "2026-11-01",
    )  # fmt: skip
    assert (data["limit_nano"], data["spent_nano"], data["spent"]) == (100, 50, "0.00000005")


async def test_a_step_over_several_shares_tells_them_all_and_a_new_limit_counts_anew(shop: Shop) -> None:
    await shop.database.run(lambda c: set_monthly(c, clock=CLOCK, tenant_name="acme", limit_nano=100))
    await shop.spend(85)
    assert await shop.told() == [50, 80]
    await shop.database.run(lambda c: set_monthly(c, clock=CLOCK, tenant_name="acme", limit_nano=200))
    assert await shop.told() == [50, 80]
    await shop.spend(15)
    assert await shop.told() == [50, 50, 80]
    await shop.database.run(lambda c: set_monthly(c, clock=CLOCK, tenant_name="acme", limit_nano=100))
    assert await shop.told() == [50, 50, 80, 100], "a limit that is lowered to what was spent tells so at once"


async def test_a_balance_is_measured_from_its_last_top_up(shop: Shop) -> None:
    await shop.database.run(lambda c: add_money(c, clock=CLOCK, tenant_name="acme", amount_nano=100))
    await shop.spend(90)
    assert await shop.told() == [50, 80]
    await shop.database.run(lambda c: add_money(c, clock=CLOCK, tenant_name="acme", amount_nano=90))
    await shop.spend(49)
    assert await shop.told() == [50, 80]
    await shop.spend(1)
    assert await shop.told() == [50, 50, 80]


async def test_percentages_are_a_tenants_own(shop: Shop) -> None:
    await shop.percents(90, 10, 90)
    await shop.database.run(lambda c: set_monthly(c, clock=CLOCK, tenant_name="acme", limit_nano=100))
    await shop.spend(80)
    assert await shop.told() == [10]
    await shop.percents()
    await shop.spend(15)
    assert await shop.told() == [10]
    await shop.percents(95)
    await shop.spend(1)
    assert await shop.told() == [10, 95]


async def test_a_refusal_for_want_of_money_is_told_once_a_limit(shop: Shop) -> None:
    await shop.database.run(lambda c: set_monthly(c, clock=CLOCK, tenant_name="acme", limit_nano=100))
    await shop.spend(45)
    for _ in range(3):
        with pytest.raises(InsufficientQuota):
            await shop.spend(60)
    assert await shop.told() == ["refused"]
    CLOCK.turn(60)
    with pytest.raises(InsufficientQuota):
        await shop.spend(60)
    assert await shop.told() == ["refused"]


async def test_64_settlements_at_once_and_repeated_ones_tell_each_share_once(shop: Shop) -> None:
    await shop.database.run(lambda c: set_monthly(c, clock=CLOCK, tenant_name="acme", limit_nano=640))
    await asyncio.gather(*(shop.spend(10) for _ in range(64)))
    assert await shop.told() == [50, 80, 100]
    await shop.database.run(
        lambda c: settle(c, asked(shop.key, 1, 10), Outcome.FINISHED, Usage(output_tokens=10), at_us=0)
    )
    assert await shop.told() == [50, 80, 100]

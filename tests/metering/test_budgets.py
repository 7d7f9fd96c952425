"""Budgets: nobody spends or holds more than there is, and what is held always returns."""

import asyncio

import pytest

from app.clock import SystemClock
from app.errors import Conflict, InsufficientQuota, NotFound, PriceMissing
from app.metering.budgets import BudgetKind, BudgetState, add_money, list_budgets, remove, set_monthly
from app.metering.database import Database
from app.metering.keys import NewKey
from app.metering.ledger import Admission, Outcome, Usage, extend_hold, open_hold, open_priced_hold, release, settle
from tests.fixtures.clock import TurnedClock

CLOCK = SystemClock()
PRICES = {"input_token": 1000, "output_token": 2000}


def admission(key: NewKey, name: str, *, held: int | None = None, at_us: int = 1) -> Admission:
    return Admission(
        request_id=name, tenant_id=key.record.tenant_id, key_id=key.record.id, model="m", task="t", route="/v1/x",
        prices=PRICES, input_tokens=10, output_tokens_max=20, output_tokens_held=held, admitted_us=at_us,
    )  # fmt: skip


async def state(database: Database) -> BudgetState:
    [found] = await database.run(lambda c: list_budgets(c, clock=CLOCK))
    return found


async def top_up(database: Database, amount_nano: int) -> None:
    await database.run(lambda c: add_money(c, clock=CLOCK, tenant_name="acme", amount_nano=amount_nano))


async def test_64_at_once_against_money_for_10_never_overspend(database: Database, key: NewKey) -> None:
    await top_up(database, 505)

    async def serve(number: int) -> int:
        asked = admission(key, f"r{number:02}")
        try:
            await database.run(lambda c: open_hold(c, asked))
        except InsufficientQuota:
            return 0
        assert (await state(database)).available_nano >= 0
        usage = Usage(input_tokens=10, output_tokens=20)
        receipts = [await database.run(lambda c: settle(c, asked, Outcome.FINISHED, usage, at_us=2)) for _ in range(3)]
        return receipts[0].cost_nano

    costs = await asyncio.gather(*(serve(number) for number in range(64)))
    found = await state(database)
    assert costs.count(50) == 10
    assert (found.spent_nano, found.held_nano, found.available_nano) == (500, 0, 5)


async def test_a_top_up_counts_at_once_and_a_correction_takes_no_more_than_is_left(
    database: Database, key: NewKey
) -> None:
    await top_up(database, 49)
    with pytest.raises(InsufficientQuota, match=r"0\.00000005 USD"):
        await database.run(lambda c: open_hold(c, admission(key, "a")))
    assert (await state(database)).held_nano == 0
    await top_up(database, 1)
    await database.run(lambda c: open_hold(c, admission(key, "a")))
    with pytest.raises(Conflict):
        await top_up(database, -1)
    await database.run(lambda c: release(c, "a"))
    await top_up(database, -50)
    assert (await state(database)).limit_nano == 0


async def test_a_hold_grows_to_the_last_token_that_is_covered(database: Database, key: NewKey) -> None:
    await top_up(database, 10 + 2 * 7 + 1)
    asked = await database.run(lambda c: open_hold(c, admission(key, "a", held=4)))
    assert (await state(database)).held_nano == 18
    for _ in range(2):
        covered = await database.run(lambda c: extend_hold(c, asked, held_tokens=4, wanted_tokens=20))
        assert covered == 7
        assert (await state(database)).held_nano == 24
    usage = Usage(input_tokens=10, output_tokens=7)
    receipt = await database.run(lambda c: settle(c, asked, Outcome.FINISHED, usage, at_us=2))
    assert (receipt.cost_nano, receipt.balance_nano) == (24, 1)
    assert (await state(database)).held_nano == 0


async def test_the_budget_of_a_key_binds_beside_its_tenants(database: Database, key: NewKey) -> None:
    await top_up(database, 1000)
    limit = await database.run(lambda c: set_monthly(c, clock=CLOCK, tenant_name="acme", limit_nano=60, key="first"))
    now = admission(key, "a", at_us=int(CLOCK.now().timestamp() * 1e6))
    await database.run(lambda c: open_hold(c, now))
    with pytest.raises(InsufficientQuota, match="this month"):
        await database.run(lambda c: open_hold(c, admission(key, "b", at_us=now.admitted_us)))
    held = {found.kind: found.held_nano for found in await database.run(lambda c: list_budgets(c, clock=CLOCK))}
    assert held == {BudgetKind.PREPAID: 50, BudgetKind.MONTHLY: 50}
    await database.run(lambda c: remove(c, budget_id=limit))
    await database.run(lambda c: open_hold(c, admission(key, "b", at_us=now.admitted_us)))


async def test_a_month_begins_at_its_first_moment_in_utc(database: Database, key: NewKey) -> None:
    clock = TurnedClock()
    clock.turn(-1)
    await database.run(lambda c: set_monthly(c, clock=clock, tenant_name="acme", limit_nano=50))

    async def hold(name: str) -> None:
        at_us = int(clock.now().timestamp() * 1e6)
        await database.run(lambda c: open_hold(c, admission(key, name, at_us=at_us)))

    await hold("october")
    with pytest.raises(InsufficientQuota):
        await hold("more")
    clock.turn(1)
    await hold("november")
    usage = Usage(input_tokens=10)
    await database.run(lambda c: settle(c, admission(key, "october"), Outcome.FINISHED, usage, at_us=3))
    [november] = await database.run(lambda c: list_budgets(c, clock=clock))
    assert (november.held_nano, november.spent_nano) == (50, 0)


async def test_a_model_without_a_price_is_refused_unless_it_is_free(database: Database, key: NewKey) -> None:
    with pytest.raises(PriceMissing, match="no price"):
        await database.run(lambda c: open_priced_hold(c, admission(key, "a"), clock=CLOCK))
    free = Admission(
        request_id="b", tenant_id=key.record.tenant_id, key_id=key.record.id, model="m", task="t", route="x",
        input_tokens=1, output_tokens_max=1, is_free=True,
    )  # fmt: skip
    assert (await database.run(lambda c: open_priced_hold(c, free, clock=CLOCK))).prices == {}


async def test_a_budget_needs_a_tenant_that_there_is(database: Database) -> None:
    with pytest.raises(NotFound, match="nobody"):
        await database.run(lambda c: set_monthly(c, clock=CLOCK, tenant_name="nobody", limit_nano=1))

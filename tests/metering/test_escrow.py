"""Budgets while the database is away: a replica spends what it set aside before, and never more."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from app.errors import InsufficientQuota, StorageUnavailable
from app.metering.books import Books
from app.metering.budgets import BudgetState, add_money, balance_nano, list_budgets, set_monthly
from app.metering.keys import NewKey
from app.metering.ledger import Admission, Outcome, Usage, list_entries
from app.metering.money import Meter
from app.metering.prices import set_price
from app.metering.tables import budget_lease, hold
from app.metering.verify import drifts
from tests.fixtures.clock import TurnedClock
from tests.metering.test_books import Away, away

__all__ = ["away"]
LIMIT = 100_000
PRICE = 10
DAY_S = 86_400.0


def admission(key: NewKey, name: str, *, held: int | None = None) -> Admission:
    """Costs 10 nano-units a token: 100 for its input, 20 tokens of output at most."""
    return Admission(
        request_id=name, tenant_id=key.record.tenant_id, key_id=key.record.id, model="m", task="t", route="/v1/x",
        input_tokens=10, output_tokens_max=20, output_tokens_held=held,
    )  # fmt: skip


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
async def books(away: Away, key: NewKey, clock: TurnedClock, tmp_path: Path) -> AsyncIterator[Books]:
    for meter in (Meter.INPUT_TOKEN, Meter.OUTPUT_TOKEN):
        await away.run(
            lambda c, meter=meter: set_price(
                c, clock=clock, model="m", task="t", meter=meter, pico_per_unit=PRICE * 1000, effective_us=0
            )
        )
    await away.run(lambda c: add_money(c, clock=clock, tenant_name="acme", amount_nano=LIMIT))
    made = Books(database=away, home=tmp_path, clock=clock, escrow_share=0.1)
    await made.start()
    yield made
    made.close()


async def budget(away: Away, clock: TurnedClock) -> BudgetState:
    [found] = await away.run(lambda c: list_budgets(c, clock=clock))
    assert await away.run(lambda c: list(drifts(c))) == []
    assert found.available_nano >= 0
    return found


async def serve(books: Books, key: NewKey, name: str, output: int = 5) -> int:
    opened = await books.open(admission(key, name))
    receipt = await books.settle(opened, Outcome.FINISHED, Usage(input_tokens=10, output_tokens=output))
    return receipt.cost_nano


async def until_refused(books: Books, key: NewKey, prefix: str) -> int:
    """Serve while the lease lasts; returns what was sold."""
    sold = 0
    for number in range(1000):
        try:
            sold += await serve(books, key, f"{prefix}{number:03}")
        except StorageUnavailable:
            return sold
    raise AssertionError("it never ends")


async def test_what_was_set_aside_is_spent_while_the_database_is_away_and_no_more(
    books: Books, away: Away, key: NewKey, clock: TurnedClock
) -> None:
    for number in range(20):
        await serve(books, key, f"before{number}")
    await books.refresh_leases()
    state = await budget(away, clock)
    assert 0 < state.held_nano <= LIMIT // 10
    away.is_away = True
    sold = await until_refused(books, key, "r")
    assert state.held_nano - 300 < sold <= state.held_nano, "all of the lease, but for less than one request's hold"
    away.is_away = False
    await books.drain()
    await books.refresh_leases()
    after = await budget(away, clock)
    assert after.spent_nano == 20 * 150 + sold
    assert len(await away.run(list_entries)) == 20 + sold // 150
    assert await away.run(lambda c: c.execute(select(hold)).all()) == []


async def test_a_lease_is_a_part_of_what_is_left_and_returns_when_nobody_asks(
    books: Books, away: Away, key: NewKey, clock: TurnedClock
) -> None:
    await serve(books, key, "one")
    await books.refresh_leases()
    assert (await budget(away, clock)).held_nano == (LIMIT - 150) // 10
    left = await away.run(
        lambda c: balance_nano(c, tenant_id=key.record.tenant_id, key_id=key.record.id, at_us=int(1e15))
    )
    assert left == LIMIT - 150, "what is only set aside is still the customer's"
    clock.turn(1800)
    await books.refresh_leases()
    assert (await budget(away, clock)).held_nano == 0


async def test_money_that_is_set_aside_is_given_up_to_the_last_requests(
    books: Books, away: Away, key: NewKey, clock: TurnedClock
) -> None:
    sold = 0
    for number in range(1000):
        try:
            sold += await serve(books, key, f"r{number:03}")
        except InsufficientQuota:
            break
        await books.refresh_leases()
    assert LIMIT - 300 < sold <= LIMIT
    assert (await budget(away, clock)).spent_nano == sold


async def test_a_running_text_goes_on_through_an_outage_and_after_it(
    books: Books, away: Away, key: NewKey, clock: TurnedClock
) -> None:
    for number in range(5):
        await serve(books, key, f"before{number}")
    await books.refresh_leases()
    opened = await books.open(admission(key, "text", held=5))
    away.is_away = True
    assert await books.extend(opened, held_tokens=5, wanted_tokens=10) == 10
    later = await books.open(admission(key, "late", held=5))
    away.is_away = False
    await books.look_for_database()
    assert await books.extend(opened, held_tokens=10, wanted_tokens=15) == 15
    assert await books.extend(later, held_tokens=5, wanted_tokens=20) == 20
    for one, tokens in ((opened, 15), (later, 20)):
        receipt = await books.settle(one, Outcome.FINISHED, Usage(input_tokens=10, output_tokens=tokens))
        assert receipt.cost_nano == 100 + 10 * tokens
    assert (await budget(away, clock)).spent_nano == 5 * 150 + 250 + 300
    clock.turn(1800)
    await books.refresh_leases()
    assert (await budget(away, clock)).held_nano == 0


async def test_a_crash_while_the_database_is_away_charges_the_lease_once(
    books: Books, away: Away, key: NewKey, clock: TurnedClock, tmp_path: Path
) -> None:
    await serve(books, key, "before")
    await books.refresh_leases()
    away.is_away = True
    opened = await books.open(admission(key, "r"))
    books.note(opened, Usage(input_tokens=10, output_tokens=3))
    await serve(books, key, "spooled")
    books.close()
    away.is_away = False
    again = Books(database=away, home=tmp_path, clock=clock)
    assert await again.start() == 1
    again.close()
    state = await budget(away, clock)
    assert (state.spent_nano, state.held_nano) == (150 + 130 + 150, 0)
    assert await away.run(lambda c: c.execute(select(budget_lease)).all()) == []


async def test_a_lease_of_one_month_is_not_spent_in_the_next(
    books: Books, away: Away, key: NewKey, clock: TurnedClock
) -> None:
    await away.run(lambda c: set_monthly(c, clock=clock, tenant_name="acme", limit_nano=LIMIT))
    clock.turn(30 * DAY_S - 10)
    await serve(books, key, "before")
    await books.refresh_leases()
    away.is_away = True
    assert await serve(books, key, "november") == 150
    clock.turn(20)
    with pytest.raises(StorageUnavailable):
        await books.open(admission(key, "december"))

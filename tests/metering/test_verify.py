"""The check of the books finds every kind of damage."""

import pytest
from sqlalchemy import delete, update

from app.clock import SystemClock
from app.metering.budgets import add_money
from app.metering.database import Database
from app.metering.keys import NewKey
from app.metering.ledger import Outcome, Usage, open_hold, settle
from app.metering.tables import budget_charge, budget_window, hold, top_up, usage_day, usage_entry, usage_hour
from app.metering.verify import drifts
from tests.metering.test_budgets import admission

DAMAGES = [
    (update(usage_hour).values(cost_nano=usage_hour.c.cost_nano + 1), "usage_hour"),
    (update(usage_day).values(output_tokens=0), "usage_day"),
    (delete(usage_day), "usage_day"),
    (update(usage_entry).values(cost_nano=1), "costs 1"),
    (update(budget_window).values(spent_nano=budget_window.c.spent_nano + 1), "spent is"),
    (update(budget_window).values(held_nano=0), "held is"),
    (update(top_up).values(amount_nano=7), "top-ups make 7"),
    (delete(budget_charge), "spent is"),
    (update(hold).values(request_id="a"), "still a hold"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=[said for _, said in DAMAGES])
async def test_each_kind_of_damage_is_named(database: Database, key: NewKey, damage: object, said: str) -> None:
    await database.run(lambda c: add_money(c, clock=SystemClock(), tenant_name="acme", amount_nano=1000))
    for name in ("a", "b"):
        await database.run(lambda c, name=name: open_hold(c, admission(key, name)))
    usage = Usage(input_tokens=10, output_tokens=2)
    await database.run(lambda c: settle(c, admission(key, "a"), Outcome.FINISHED, usage, at_us=2))
    assert await database.run(lambda c: list(drifts(c))) == []
    await database.run(lambda c: c.execute(damage))  # pyright: ignore[reportArgumentType, reportCallIssue]
    found = await database.run(lambda c: list(drifts(c)))
    assert any(said in one for one in found), found

"""Random histories of holds, leases, extensions, settlements, crashes, replays and new prices: the books balance."""

from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import create_engine, event, func, select

from app.errors import Conflict, InsufficientQuota
from app.metering.budgets import add_money, list_budgets, set_monthly
from app.metering.leases import Window, change_leases, return_leases
from app.metering.ledger import Admission, Outcome, Usage, extend_hold, open_hold, recover, release, settle
from app.metering.money import cost_nano
from app.metering.tables import api_key, budget_lease, hold, metadata, tenant, usage_entry
from app.metering.transactions import begin_immediately, configure
from app.metering.verify import drifts
from tests.fixtures.clock import TurnedClock

PICO = st.integers(0, 5_000_000)
TOKENS = st.integers(0, 40)


@dataclass
class Open:
    """A running request: what is covered, and what was noted of it."""

    admission: Admission
    held_tokens: int


class Money(RuleBasedStateMachine):
    """The real statements on a real SQLite, beside a model of a few lines."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = create_engine("sqlite://")
        event.listen(self.engine, "connect", configure)
        event.listen(self.engine, "begin", begin_immediately)
        self.clock = TurnedClock()
        self.open: dict[str, Open] = {}
        self.done: list[tuple[Admission, Outcome, Usage, int]] = []
        self.costs: dict[str, int] = {}
        self.leased: dict[Window, int] = {}
        self.paid = 0
        self.count = 0
        self.prices = {"input_token": 1500, "output_token": 2500}

    def run_one(self, work: Any) -> Any:
        with self.engine.begin() as connection:
            return work(connection)

    @property
    def now_us(self) -> int:
        return int(self.clock.now().timestamp() * 1e6)

    @initialize(monthly=st.integers(0, 400_000))
    def begin(self, monthly: int) -> None:
        self.run_one(metadata.create_all)
        self.run_one(lambda c: c.execute(tenant.insert().values(id="t", name="acme", created_us=0)))
        key = {"id": "k", "tenant_id": "t", "digest": b"d", "pepper_id": "p", "display": "d", "name": "n"}
        self.run_one(lambda c: c.execute(api_key.insert().values(**key, is_admin=False, created_us=0)))
        self.run_one(lambda c: set_monthly(c, clock=self.clock, tenant_name="acme", limit_nano=monthly, key="n"))
        self.top_up(1000)

    @rule(amount=st.integers(-50_000, 200_000))
    def top_up(self, amount: int) -> None:
        try:
            self.run_one(lambda c: add_money(c, clock=self.clock, tenant_name="acme", amount_nano=amount))
            self.paid += amount
        except Conflict:
            assert amount < 0

    @rule(input_token=PICO, output_token=PICO)
    def change_prices(self, input_token: int, output_token: int) -> None:
        self.prices = {"input_token": input_token, "output_token": output_token}

    @rule(seconds=st.sampled_from([0.5, 3600.0, 31 * 86400.0]))
    def wait(self, seconds: float) -> None:
        self.clock.turn(seconds)

    @rule(input_tokens=TOKENS, at_first=TOKENS)
    def admit(self, input_tokens: int, at_first: int) -> None:
        self.count += 1
        asked = Admission(
            request_id=f"r{self.count}", tenant_id="t", key_id="k", model="m", task="t", route="x",
            prices=dict(self.prices), input_tokens=input_tokens, output_tokens_max=100, output_tokens_held=at_first,
            admitted_us=self.now_us,
        )  # fmt: skip
        try:
            opened = self.run_one(lambda c: open_hold(c, asked))
        except InsufficientQuota:
            return
        self.open[asked.request_id] = Open(opened, at_first)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), more=TOKENS)
    def extend(self, data: st.DataObject, more: int) -> None:
        one = self.open[data.draw(st.sampled_from(sorted(self.open)))]
        wanted = one.held_tokens + more
        covered = self.run_one(
            lambda c: extend_hold(c, one.admission, held_tokens=one.held_tokens, wanted_tokens=wanted)
        )
        assert one.held_tokens <= covered <= wanted
        one.held_tokens = covered

    @precondition(lambda self: self.open)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome), is_spooled=st.booleans())
    def end(self, data: st.DataObject, outcome: Outcome, is_spooled: bool) -> None:
        one = self.open.pop(data.draw(st.sampled_from(sorted(self.open))))
        usage = Usage(
            input_tokens=data.draw(st.integers(0, one.admission.input_tokens)),
            output_tokens=data.draw(st.integers(0, one.held_tokens)),
        )
        at_us = self.now_us - (7_200_000_000 if is_spooled else 0)
        self.done.append((one.admission, outcome, usage, at_us))
        receipt = self.run_one(lambda c: settle(c, one.admission, outcome, usage, at_us=at_us))
        units = {"input_token": usage.input_tokens, "output_token": usage.output_tokens}
        assert receipt.cost_nano == cost_nano(one.admission.prices, units)
        self.costs[one.admission.request_id] = receipt.cost_nano

    @precondition(lambda self: self.done)
    @rule(data=st.data(), output_tokens=TOKENS)
    def replay(self, data: st.DataObject, output_tokens: int) -> None:
        admission, _, _, at_us = data.draw(st.sampled_from(self.done))
        other = Usage(output_tokens=output_tokens)
        receipt = self.run_one(lambda c: settle(c, admission, Outcome.CRASHED, other, at_us=at_us + 1))
        assert receipt.cost_nano == self.costs[admission.request_id]

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        del self.open[name]
        self.run_one(lambda c: release(c, name))
        self.run_one(lambda c: release(c, name))

    @rule()
    def crash(self) -> None:
        assert self.run_one(lambda c: recover(c, replica_id="local", clock=self.clock)) == len(self.open)
        self.costs |= dict.fromkeys(self.open, 0)
        self.open.clear()
        assert self.run_one(lambda c: return_leases(c, replica_id="local")) == sum(self.leased.values())
        self.leased.clear()

    def windows(self) -> tuple[Window, ...]:
        """The windows that bind a request of now."""
        found = self.run_one(lambda c: list_budgets(c, clock=self.clock))
        return tuple(sorted((one.id, one.window_us) for one in found))

    @rule(wanted=st.integers(0, 100_000), share=st.sampled_from([0.1, 0.5, 1.0]))
    def lease(self, wanted: int, share: float) -> None:
        targets = dict.fromkeys(self.windows(), wanted)
        found = self.run_one(lambda c: change_leases(c, replica_id="local", targets=targets, share=share))
        for place, lease in found.items():
            assert 0 <= lease.amount_nano <= max(wanted, self.leased.get(place, 0))
            self.leased[place] = lease.amount_nano

    @precondition(lambda self: any(self.leased.values()))
    @rule(input_tokens=TOKENS, output_tokens=TOKENS, at_once=st.booleans())
    def sell_while_the_database_is_away(self, input_tokens: int, output_tokens: int, at_once: bool) -> None:
        """As the books of a replica do: no hold, within the leases; the entry is shipped later, perhaps twice."""
        self.count += 1
        windows = self.windows()
        admission = Admission(
            request_id=f"r{self.count}", tenant_id="t", key_id="k", model="m", task="t", route="x",
            prices=dict(self.prices), input_tokens=input_tokens, output_tokens_max=100, admitted_us=self.now_us,
            windows=windows,
        )  # fmt: skip
        cost, usage = admission.cost_nano(output_tokens), Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        if cost > min(self.leased.get(place, 0) for place in windows):
            return
        self.costs[admission.request_id] = cost
        for place in windows:
            self.leased[place] = self.leased.get(place, 0) - cost
        self.done.append((admission, Outcome.FINISHED, usage, self.now_us))
        for _ in range(1 if at_once else 2):
            self.run_one(lambda c: settle(c, admission, Outcome.FINISHED, usage, at_us=self.now_us))

    @invariant()
    def the_books_balance(self) -> None:
        if not self.paid and not self.count:
            return
        assert self.run_one(lambda c: list(drifts(c))) == []
        rows = self.run_one(lambda c: c.execute(select(budget_lease)).all())
        assert {(row.budget_id, row.window_us): row.amount_nano for row in rows} == {
            place: amount for place, amount in self.leased.items() if amount
        }
        spent = sum(self.costs.values())
        assert self.run_one(lambda c: c.scalar(select(func.coalesce(func.sum(usage_entry.c.cost_nano), 0)))) == spent
        assert self.run_one(lambda c: c.scalar(select(func.count()).select_from(hold))) == len(self.open)
        for found in self.run_one(lambda c: list_budgets(c, clock=self.clock)):
            assert found.held_nano >= 0
            assert found.available_nano >= 0
            if found.key is None:
                assert (found.spent_nano, found.limit_nano) == (spent, self.paid)
                assert found.held_nano > 0 or not any(
                    one.admission.cost_nano(one.held_tokens) for one in self.open.values()
                )


Money.TestCase.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
test_random_histories_conserve_money_to_the_nano = Money.TestCase

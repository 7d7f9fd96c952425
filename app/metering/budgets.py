"""Budgets: a prepaid balance and a limit a month, for a tenant or for one of its keys; money is held, then spent.

A budget counts in windows: one for all time (prepaid, whose limit is the sum of its top-ups), or one a month in UTC,
made when it is first needed. Every change of a window is one conditional UPDATE: spent + held never passes the limit.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, case, or_, select, update

from app.clock import Clock
from app.errors import Conflict, IdempotencyMismatch, InsufficientQuota, NotFound
from app.metering.alerts import tell_reached
from app.metering.database import microseconds, moment_of, new_id, upsert
from app.metering.leases import Window, leased_nano, spend_lease
from app.metering.money import shown
from app.metering.prices import tenant_id_of
from app.metering.statements import Statement
from app.metering.tables import api_key, budget, budget_charge, budget_window, tenant, top_up


class BudgetKind(StrEnum):
    """How a budget fills."""

    PREPAID = "prepaid"
    MONTHLY = "monthly"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """A budget as it stands now."""

    id: str
    tenant_id: str
    tenant: str
    key_id: str | None
    key: str | None
    kind: BudgetKind
    window_us: int
    limit_nano: int
    spent_nano: int
    held_nano: int
    is_active: bool

    @property
    def available_nano(self) -> int:
        """What a new request may hold."""
        return self.limit_nano - self.spent_nano - self.held_nano


@dataclass(frozen=True, slots=True, kw_only=True)
class TopUp:
    """Money that came in, and whether it did so just now or under the same reference before."""

    id: str
    budget_id: str
    is_new: bool


def window_start_us(kind: str, at_us: int) -> int:
    """Where the window of `at_us` begins: the month's first moment in UTC, or 0 for a balance."""
    if kind == BudgetKind.PREPAID:
        return 0
    first = moment_of(at_us).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return microseconds(first)


def set_monthly(
    connection: Connection, *, clock: Clock, tenant_name: str, limit_nano: int, key: str | None = None
) -> str:
    """Set the limit of this and the next months, also of one that a replica's fast clock has begun. Returns the id."""
    budget_id = _made(connection, clock=clock, tenant_name=tenant_name, key=key, kind=BudgetKind.MONTHLY)
    now_us = microseconds(clock.now())
    window_us = window_start_us(BudgetKind.MONTHLY, now_us)
    connection.execute(update(budget).where(budget.c.id == budget_id).values(limit_nano=limit_nano, is_active=True))
    _ensure(connection, (budget_id, window_us), limit_nano)
    these = (budget_window.c.budget_id == budget_id, budget_window.c.window_us >= window_us)
    connection.execute(update(budget_window).where(*these).values(limit_nano=limit_nano))
    tell_reached(connection, budget_id, window_us, at_us=now_us)
    return budget_id


def add_money(
    connection: Connection, *, clock: Clock, tenant_name: str, amount_nano: int, note: str = "", key: str | None = None,
    reference: str | None = None,
) -> TopUp:  # fmt: skip
    """Top a prepaid balance up, or take from it (a correction is a top-up below zero).

    The same `reference` again moves nothing and finds the first top-up, for ever. Raises IdempotencyMismatch when that
    was another one, and Conflict when more would be taken than is left.
    """
    budget_id = _made(connection, clock=clock, tenant_name=tenant_name, key=key, kind=BudgetKind.PREPAID)
    reference_hash = None if reference is None else hashlib.sha256(reference.encode()).hexdigest()
    made = connection.scalar(
        upsert(connection, top_up)
        .values(
            id=new_id("topup", clock), budget_id=budget_id, amount_nano=amount_nano, note=note,
            at_us=microseconds(clock.now()), reference_hash=reference_hash,
        )
        .on_conflict_do_nothing(index_elements=["reference_hash"])
        .returning(top_up.c.id)
    )  # fmt: skip
    if made is None:
        first = connection.execute(select(top_up).where(top_up.c.reference_hash == reference_hash)).one()
        if (first.budget_id, first.amount_nano) != (budget_id, amount_nano):
            raise IdempotencyMismatch
        return TopUp(id=first.id, budget_id=budget_id, is_new=False)
    connection.execute(update(budget).where(budget.c.id == budget_id).values(is_active=True))
    _ensure(connection, (budget_id, 0), 0)
    window = budget_window.c
    is_covered = () if amount_nano >= 0 else (window.limit_nano + amount_nano >= window.spent_nano + window.held_nano,)
    values: dict[str, Any] = {"limit_nano": window.limit_nano + amount_nano}
    if amount_nano > 0:
        values["alert_from_nano"] = window.spent_nano
    done = connection.execute(update(budget_window).where(*_is(budget_id, 0), *is_covered).values(values))
    if not done.rowcount:
        raise Conflict("the balance does not hold so much: it is spent, or held by running requests")
    tell_reached(connection, budget_id, 0, at_us=microseconds(clock.now()))
    return TopUp(id=made, budget_id=budget_id, is_new=True)


def remove(connection: Connection, *, budget_id: str) -> str:
    """Let a budget bind no new request. Its history stays. Raises NotFound."""
    if not connection.execute(update(budget).where(budget.c.id == budget_id).values(is_active=False)).rowcount:
        raise NotFound(f"there is no budget {budget_id!r}; `tollgate budgets show` lists them")
    return budget_id


def list_budgets(
    connection: Connection, *, clock: Clock, tenant_id: str | None = None, budget_id: str | None = None,
    after: str = "", limit: int | None = None,
) -> list[BudgetState]:  # fmt: skip
    """Budgets with their present windows, oldest first, after the id `after`."""
    now_us = microseconds(clock.now())
    month_us = window_start_us(BudgetKind.MONTHLY, now_us)
    window = budget_window.c
    is_present = (window.budget_id == budget.c.id) & (
        window.window_us == case((budget.c.kind == BudgetKind.PREPAID.value, 0), else_=month_us)
    )
    chosen = (
        select(
            budget, tenant.c.name.label("tenant"), api_key.c.name.label("key_name"), window.spent_nano,
            window.held_nano, window.limit_nano.label("window_limit_nano"),
        )
        .join(tenant, tenant.c.id == budget.c.tenant_id)
        .outerjoin(api_key, api_key.c.id == budget.c.key_id)
        .outerjoin(budget_window, is_present)
        .where(budget.c.id > after)
        .order_by(budget.c.id)
        .limit(limit)
    )  # fmt: skip
    if tenant_id is not None:
        chosen = chosen.where(budget.c.tenant_id == tenant_id)
    if budget_id is not None:
        chosen = chosen.where(budget.c.id == budget_id)
    return [
        BudgetState(
            id=row.id, tenant_id=row.tenant_id, tenant=row.tenant, key_id=row.key_id, key=row.key_name,
            kind=BudgetKind(row.kind), window_us=window_start_us(row.kind, now_us),
            limit_nano=row.limit_nano if row.window_limit_nano is None else row.window_limit_nano,
            spent_nano=row.spent_nano or 0, held_nano=row.held_nano or 0, is_active=row.is_active,
        )
        for row in connection.execute(chosen)
    ]  # fmt: skip


# What every request executes, made once.
THAT_WINDOW = (
    budget_window.c.budget_id == bindparam("of_budget"), budget_window.c.window_us == bindparam("of_window")
)  # fmt: skip
MORE_NANO = bindparam("more_nano", type_=BigInteger)
SUCCESSOR = select(api_key.c.replaced_by).where(api_key.c.id == bindparam("of_key")).scalar_subquery()
BINDING = Statement(
    select(budget.c.id, budget.c.kind, budget.c.limit_nano)
    .where(
        or_(
            budget.c.scope_id == bindparam("of_tenant"), budget.c.scope_id == bindparam("of_key"),
            budget.c.scope_id == SUCCESSOR,
        ),
        budget.c.is_active.is_(True),
    )
    .order_by(budget.c.id)
)  # fmt: skip
HOLD = Statement(
    update(budget_window)
    .where(
        *THAT_WINDOW, budget_window.c.spent_nano + budget_window.c.held_nano + MORE_NANO <= budget_window.c.limit_nano
    )
    .values(held_nano=budget_window.c.held_nano + MORE_NANO)
)
SPEND = Statement(
    update(budget_window)
    .where(*THAT_WINDOW)
    .values(
        spent_nano=budget_window.c.spent_nano + MORE_NANO,
        held_nano=budget_window.c.held_nano - bindparam("less_nano", type_=BigInteger),
    )
    .returning(
        budget_window.c.limit_nano, budget_window.c.spent_nano, budget_window.c.held_nano, budget_window.c.alert_nano,
        leased_nano().label("leased_nano"),
    )
)  # fmt: skip
CHARGE = Statement(budget_charge.insert())


def hold_money(
    connection: Connection, *, tenant_id: str, key_id: str, amount_nano: int, at_us: int
) -> tuple[Window, ...]:
    """Set `amount_nano` aside in every budget that binds this key, in one order. Raises InsufficientQuota."""
    held: list[Window] = []
    for budget_id, kind, limit_nano in BINDING.rows(connection, {"of_tenant": tenant_id, "of_key": key_id}):
        place = (budget_id, window_start_us(kind, at_us))
        if not _hold(connection, place, amount_nano):
            if kind == BudgetKind.MONTHLY:
                _ensure(connection, place, limit_nano)
            if not _hold(connection, place, amount_nano):
                raise _refusal(connection, kind, place, amount_nano)
        held.append(place)
    return tuple(held)


def room_nano(connection: Connection, windows: Sequence[Window]) -> int:
    """What may still be held in all of `windows`, which stay locked until the transaction ends."""
    rooms: list[int] = []
    for budget_id, window_us in windows:
        window = connection.execute(select(budget_window).where(*_is(budget_id, window_us)).with_for_update()).one()
        rooms.append(window.limit_nano - window.spent_nano - window.held_nano)
    return min(rooms)


def hold_more(connection: Connection, windows: Sequence[Window], amount_nano: int) -> None:
    """Hold `amount_nano` more in each, which `room_nano` has found to fit in this transaction."""
    for place in windows:
        is_held = _hold(connection, place, amount_nano)
        assert is_held, "the rows are locked and the room was read. This is a bug."


def spend(
    connection: Connection, windows: Sequence[Window], *, request_id: str, replica_id: str, held_nano: int,
    cost_nano: int, at_us: int = 0,
) -> int | None:  # fmt: skip
    """Turn what was held into what it cost; returns the smallest amount that is left. Alerts that are due go out.

    What it cost beyond its hold was held by a lease of its replica, as money is while the database is away.
    """
    left: list[int] = []
    for budget_id, window_us in sorted(windows):
        beyond_nano, place = max(0, cost_nano - held_nano), (budget_id, window_us)
        if beyond_nano:
            connection.execute(select(budget_window.c.budget_id).where(*_is(*place)).with_for_update())
            beyond_nano = spend_lease(connection, replica_id=replica_id, place=place, cost_nano=beyond_nano)
        moved = {"more_nano": cost_nano, "less_nano": held_nano + beyond_nano}
        [row] = SPEND.rows(connection, {"of_budget": budget_id, "of_window": window_us} | moved)
        limit_nano, spent_nano, still_held_nano, alert_nano, leased = row
        if cost_nano and alert_nano is not None and spent_nano >= alert_nano:
            tell_reached(connection, budget_id, window_us, at_us=at_us)
        left.append(limit_nano - spent_nano - still_held_nano + leased)
        if cost_nano:
            charge = {"request_id": request_id, "budget_id": budget_id, "window_us": window_us, "cost_nano": cost_nano}
            CHARGE.count(connection, charge)
    return min(left) if left else None


def balance_nano(connection: Connection, *, tenant_id: str, key_id: str, at_us: int) -> int | None:
    """The smallest amount that is left in a budget which binds the key; None without budgets."""
    left: list[int] = []
    for budget_id, kind, limit_nano in BINDING.rows(connection, {"of_tenant": tenant_id, "of_key": key_id}):
        window = budget_window.c
        free = window.limit_nano - window.spent_nano - window.held_nano + leased_nano()
        found = connection.scalar(select(free).where(*_is(budget_id, window_start_us(kind, at_us))))
        left.append(limit_nano if found is None else found)
    return min(left) if left else None


def _is(budget_id: str, window_us: int) -> tuple[Any, Any]:
    return budget_window.c.budget_id == budget_id, budget_window.c.window_us == window_us


def _ensure(connection: Connection, place: Window, limit_nano: int) -> None:
    values = {"budget_id": place[0], "window_us": place[1], "limit_nano": limit_nano}
    connection.execute(
        upsert(connection, budget_window).values(**values, spent_nano=0, held_nano=0).on_conflict_do_nothing()
    )


def _hold(connection: Connection, place: Window, amount_nano: int) -> bool:
    given = {"of_budget": place[0], "of_window": place[1], "more_nano": amount_nano}
    return HOLD.count(connection, given) == 1


def _made(connection: Connection, *, clock: Clock, tenant_name: str, key: str | None, kind: BudgetKind) -> str:
    tenant_id = tenant_id_of(connection, tenant_name)
    key_id = None
    if key is not None:
        mine = select(api_key.c.id).where(api_key.c.tenant_id == tenant_id, api_key.c.revoked_us.is_(None))
        found = connection.scalars(mine.where((api_key.c.id == key) | (api_key.c.name == key))).all()
        if len(found) != 1:
            raise NotFound(f"{len(found)} active keys of {tenant_name} are called {key!r}; see `tollgate keys list`")
        key_id = found[0]
    scope_id = key_id or tenant_id
    values = {"tenant_id": tenant_id, "key_id": key_id, "scope_id": scope_id, "kind": kind.value, "limit_nano": 0}
    connection.execute(
        upsert(connection, budget)
        .values(id=new_id("budget", clock), **values, is_active=True, created_us=microseconds(clock.now()))
        .on_conflict_do_nothing(index_elements=["scope_id", "kind"])
    )
    made = connection.scalar(select(budget.c.id).where(budget.c.scope_id == scope_id, budget.c.kind == kind.value))
    assert made is not None, "it was inserted above, or was there. This is a bug."
    return made


def _refusal(connection: Connection, kind: str, place: Window, amount_nano: int) -> InsufficientQuota:
    window = connection.execute(select(budget_window).where(*_is(*place))).one()
    left = window.limit_nano - window.spent_nano - window.held_nano
    what = "prepaid balance" if kind == BudgetKind.PREPAID else "budget of this month"
    return InsufficientQuota(
        f"The {what} does not cover this request: it may cost {shown(amount_nano)}, and {shown(max(0, left))} is left. "
        "Ask the operator to top up, or send less.",
        place=place,
    )

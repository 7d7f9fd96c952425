"""What every request executes gives the same, and fails the same, as by SQLAlchemy's own road."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, Text, bindparam, cast, func, select
from sqlalchemy.exc import IntegrityError, OperationalError

from app.errors import StorageUnavailable
from app.metering.database import Database
from app.metering.keys import NewKey
from app.metering.statements import Statement
from app.metering.tables import hold, key_change, usage_hour

FOUND = Statement(
    select(hold.c.request_id, cast(hold.c.prices, Text), func.coalesce(hold.c.amount_nano, 7) + bindparam("more"))
    .where(hold.c.tenant_id == bindparam("of_tenant"))
    .order_by(hold.c.request_id)
)  # fmt: skip
OPEN = Statement(hold.insert())
ADD = Statement(
    lambda insert: insert.on_conflict_do_update(
        index_elements=list(usage_hour.primary_key.columns),
        set_={"requests": usage_hour.c.requests + insert.excluded.requests},
    ).returning(usage_hour.c.requests),
    table=usage_hour,
)
CHANGE = Statement(key_change.insert())


def hold_of(key: NewKey, name: str) -> dict[str, Any]:
    return {
        "request_id": name, "tenant_id": key.record.tenant_id, "key_id": key.record.id, "model": "m", "task": "t",
        "route": "/v1/x", "prices": {"input_token": 1}, "amount_nano": 2**62, "input_tokens": 0, "output_tokens": 0,
        "characters": 0, "replica_id": "local", "admitted_us": 1, "windows": [["b", 0]],
    }  # fmt: skip


async def test_rows_and_counts_are_those_of_the_long_road(database: Database, key: NewKey) -> None:
    def work(connection: Connection) -> tuple[Sequence[Sequence[Any]], list[int], dict[str, Any]]:
        assert [OPEN.count(connection, hold_of(key, name)) for name in ("r1", "r2")] == [1, 1]
        sums = {"hour_us": 1, "tenant_id": "t", "key_id": "k", "model": "m", "task": "t", "requests": 2,
                "input_tokens": 0, "output_tokens": 0, "cost_nano": 0}  # fmt: skip
        added = [ADD.rows(connection, sums)[0][0] for _ in range(3)]
        whole = dict(connection.execute(select(hold).where(hold.c.request_id == "r1")).mappings().one())
        return FOUND.rows(connection, {"of_tenant": key.record.tenant_id, "more": 1}), added, whole

    rows, added, whole = await database.run(work)
    assert [tuple(row) for row in rows] == [(name, '{"input_token": 1}', 2**62 + 1) for name in ("r1", "r2")]
    assert added == [2, 4, 6]
    assert whole == hold_of(key, "r1")


async def test_a_failure_has_sqlalchemys_name_and_undoes_its_transaction_alone(database: Database, key: NewKey) -> None:
    await database.run(lambda c: OPEN.count(c, hold_of(key, "r1")))

    def again(connection: Connection) -> None:
        CHANGE.count(connection, {"key_id": "k", "at_us": 1})
        OPEN.count(connection, hold_of(key, "r1"))

    with pytest.raises(IntegrityError):
        await database.run(again)
    assert await database.run(lambda c: c.scalars(select(key_change).where(key_change.c.key_id == "k")).all()) == []


async def test_a_database_that_fails_is_storage_that_is_unavailable(database: Database, key: NewKey) -> None:
    def work(connection: Connection) -> None:
        connection.exec_driver_sql("DROP TABLE budget_lease")
        connection.exec_driver_sql("ALTER TABLE hold RENAME TO held")
        try:
            OPEN.count(connection, hold_of(key, "r1"))
        except OperationalError as error:
            assert "no such table" in str(error)
            raise

    with pytest.raises(StorageUnavailable):
        await database.run(work)
    assert await database.run(lambda c: OPEN.count(c, hold_of(key, "r1"))) == 1


async def test_a_parameter_that_is_forgotten_is_no_null(database: Database, key: NewKey) -> None:
    found = Statement(select(hold.c.request_id).where(hold.c.tenant_id == bindparam("of_tenant")))
    await database.run(lambda c: found.rows(c, {"of_tenant": key.record.tenant_id}))
    for wrong in ({}, {"of_tenants": "t"}):
        with pytest.raises((AssertionError, KeyError)):
            await database.run(lambda c, wrong=wrong: found.rows(c, wrong))

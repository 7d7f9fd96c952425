"""Every way out of the gate leaves exactly one entry, with what was delivered."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from app.admission.gate import Gate
from app.clock import SystemClock
from app.errors import DeadlineExceeded, EngineLost
from app.metering.books import Books
from app.metering.database import Database
from app.metering.keys import NewKey
from app.metering.ledger import Admission, Outcome, Usage, list_entries
from app.metering.money import Meter
from app.metering.prices import set_price
from app.metering.tables import hold

CLOCK = SystemClock()


def admission(key: NewKey, name: str) -> Admission:
    return Admission(
        request_id=name, tenant_id=key.record.tenant_id, key_id=key.record.id, model="m", task="t", route="x",
        input_tokens=5, output_tokens_max=10, is_free=True,
    )  # fmt: skip


async def outcomes(database: Database) -> dict[str, tuple[str, int]]:
    entries = await database.run(list_entries)
    return {entry["request_id"]: (entry["outcome"], entry["cost_nano"]) for entry in entries}


@pytest.fixture
async def books(database: Database, tmp_path: Path) -> AsyncIterator[Books]:
    made = Books(database=database, home=tmp_path, clock=CLOCK)
    await made.start()
    yield made
    made.close()


async def test_each_way_out_is_settled_once(books: Books, database: Database, key: NewKey) -> None:
    gate = Gate(books=books)
    for meter in (Meter.INPUT_TOKEN, Meter.OUTPUT_TOKEN):
        await database.run(
            lambda connection, meter=meter: set_price(
                connection, clock=CLOCK, model="m", task="t", meter=meter, pico_per_unit=1000
            )
        )
    async with gate.admit(admission(key, "done")) as reservation:
        receipt = await reservation.settle(Outcome.FINISHED, Usage(input_tokens=5, output_tokens=2))
    assert receipt.cost_nano == 7
    for name, error in (("late", DeadlineExceeded()), ("lost", EngineLost())):
        with pytest.raises(type(error)):
            async with gate.admit(admission(key, name)):
                raise error
    started = asyncio.Event()

    async def hang_up() -> None:
        async with gate.admit(admission(key, "gone")) as reservation:
            reservation.note(Usage(input_tokens=5, output_tokens=1))
            started.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(hang_up())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await outcomes(database) == {
        "done": ("finished", 7),
        "late": ("timeout", 0),
        "lost": ("failed", 0),
        "gone": ("cancelled", 6),
    }
    assert await database.run(lambda c: c.execute(select(hold)).all()) == []


async def test_a_failure_of_ours_before_a_whole_answer_left_costs_nothing(
    books: Books, database: Database, key: NewKey
) -> None:
    with pytest.raises(EngineLost):
        async with Gate(books=books).admit(admission(key, "lost"), is_streaming=False) as reservation:
            reservation.note(Usage(input_tokens=5, output_tokens=1))
            raise EngineLost
    [entry] = await database.run(list_entries)
    assert (entry["outcome"], entry["input_tokens"], entry["output_tokens"]) == ("failed", 0, 0)


async def test_a_caller_that_leaves_while_it_is_admitted_holds_nothing(
    books: Books, database: Database, key: NewKey
) -> None:
    async def ask(name: str) -> None:
        async with Gate(books=books).admit(admission(key, name)):
            await asyncio.sleep(60)

    for turns in range(6):
        task = asyncio.create_task(ask(f"r{turns}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await books.drain()
    assert await database.run(lambda c: c.execute(select(hold)).all()) == []

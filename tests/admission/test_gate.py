"""Every way out of the gate leaves exactly one entry, with what was delivered."""

import asyncio

import pytest

from app.admission.gate import Gate
from app.clock import SystemClock
from app.errors import DeadlineExceeded, EngineLost
from app.metering.database import Database
from app.metering.keys import NewKey
from app.metering.ledger import Admission, Outcome, Usage, list_entries
from app.metering.money import Meter
from app.metering.prices import set_price

CLOCK = SystemClock()


def admission(key: NewKey, name: str) -> Admission:
    return Admission(
        request_id=name, tenant_id=key.record.tenant_id, key_id=key.record.id, model="m", task="t", route="x",
        input_tokens=5, output_tokens_max=10,
    )  # fmt: skip


async def outcomes(database: Database) -> dict[str, tuple[str, int]]:
    entries = await database.run(list_entries)
    return {entry["request_id"]: (entry["outcome"], entry["cost_nano"]) for entry in entries}


async def test_each_way_out_is_settled_once(database: Database, key: NewKey) -> None:
    gate = Gate(database=database, clock=CLOCK)
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
            await gate.checkpoint()
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
    assert await gate.recover(replica_id="local") == 0

"""Exactly one entry per admitted request, whatever is repeated, raced or killed."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from app.clock import SystemClock
from app.metering.database import Database
from app.metering.keys import NewKey
from app.metering.ledger import Admission, Outcome, Usage, list_entries, note_progress, open_hold, recover, settle
from app.metering.money import cost_nano
from app.metering.tables import hold, usage_hour

CLOCK = SystemClock()
PRICES = {"input_token": 1_500, "output_token": 3_000}


def admission(key: NewKey, name: str) -> Admission:
    return Admission(
        request_id=name, tenant_id=key.record.tenant_id, key_id=key.record.id, model="m", task="t", route="/v1/x",
        prices=PRICES, input_tokens=10, output_tokens_max=20,
    )  # fmt: skip


async def test_settling_many_times_at_once_leaves_one_entry_and_one_sum(database: Database, key: NewKey) -> None:
    async def serve(name: str) -> None:
        await database.run(lambda c: open_hold(c, admission(key, name)))
        usage = Usage(input_tokens=10, output_tokens=4)
        receipts = await asyncio.gather(
            *(
                database.run(lambda c: settle(c, admission(key, name), Outcome.FINISHED, usage, at_us=1))
                for _ in range(3)
            )
        )
        assert {receipt.cost_nano for receipt in receipts} == {27}

    await asyncio.gather(*(serve(f"r{n:03}") for n in range(64)))
    entries = await database.run(list_entries)
    assert [entry["request_id"] for entry in entries] == [f"r{n:03}" for n in range(64)]
    assert {entry["key_name"] for entry in entries} == {"first"}
    total = await database.run(lambda c: c.execute(select(func.sum(usage_hour.c.cost_nano))).scalar())
    assert total == 64 * 27
    assert await database.run(lambda c: c.execute(select(hold)).all()) == []


async def test_the_first_settlement_stands(database: Database, key: NewKey) -> None:
    await database.run(lambda c: open_hold(c, admission(key, "r")))
    first = await database.run(
        lambda c: settle(c, admission(key, "r"), Outcome.CANCELLED, Usage(input_tokens=10), at_us=1)
    )
    again = await database.run(
        lambda c: settle(c, admission(key, "r"), Outcome.FINISHED, Usage(input_tokens=10, output_tokens=20), at_us=1)
    )
    assert first == again


async def test_a_caller_that_is_cancelled_does_not_cut_its_transaction_short(database: Database, key: NewKey) -> None:
    await database.run(lambda c: open_hold(c, admission(key, "r")))
    task = asyncio.create_task(
        database.run(lambda c: settle(c, admission(key, "r"), Outcome.CANCELLED, Usage(input_tokens=10), at_us=1))
    )
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(await database.run(list_entries)) == 1


KILLED = """
import asyncio, sys
from pathlib import Path
from app.clock import SystemClock
from app.metering.database import Database
from app.metering.ledger import Admission, Usage, note_progress, open_hold

async def main():
    database = Database(home=Path(sys.argv[1]))
    await database.open()
    for n in range(5):
        a = Admission(request_id=f"r{n}", tenant_id=sys.argv[2], key_id=sys.argv[3], model="m", task="t", route="x",
                      prices={"output_token": 1000}, input_tokens=3, output_tokens_max=100)
        await database.run(lambda c: open_hold(c, a))
        await database.run(lambda c: note_progress(c, {a.request_id: Usage(input_tokens=3, output_tokens=n)}))
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_killed_process_leaves_one_entry_each_by_its_last_checkpoint(
    database: Database, key: NewKey, tmp_path: Path
) -> None:
    with subprocess.Popen(  # noqa: ASYNC220 (the test waits for it on purpose)
        [sys.executable, "-c", KILLED, str(tmp_path), key.record.tenant_id, key.record.id],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "ready\n"
        os.kill(killed.pid, signal.SIGKILL)
    assert await database.run(lambda c: recover(c, replica_id="local", clock=CLOCK)) == 5
    assert await database.run(lambda c: recover(c, replica_id="local", clock=CLOCK)) == 0
    entries = await database.run(list_entries)
    assert [(e["outcome"], e["output_tokens"], e["cost_nano"]) for e in entries] == [
        ("crashed", n, n) for n in range(5)
    ]


async def test_progress_of_a_settled_request_changes_nothing(database: Database, key: NewKey) -> None:
    await database.run(lambda c: open_hold(c, admission(key, "r")))
    await database.run(lambda c: settle(c, admission(key, "r"), Outcome.FINISHED, Usage(input_tokens=1), at_us=1))
    before = await database.run(list_entries)
    await database.run(lambda c: note_progress(c, {"r": Usage(input_tokens=9)}))
    assert await database.run(list_entries) == before


@given(price=st.integers(0, 10**9), count=st.integers(0, 10**9))
def test_money_is_rounded_once_and_never_by_more_than_half_a_nano(price: int, count: int) -> None:
    nano = cost_nano({"output_token": price}, {"output_token": count})
    assert abs(2 * (nano * 1000 - price * count)) <= 1000

"""A replica that dies and never comes back: another one settles what it held, once, whoever else tries."""

import asyncio
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import psycopg
import pytest

from app.metering.books import Books
from app.metering.budgets import add_money, list_budgets
from app.metering.database import Database
from app.metering.keys import NewKey
from app.metering.ledger import Admission, Outcome, Usage, list_entries, settle
from app.metering.money import Meter
from app.metering.prices import set_price
from app.metering.replica import JOURNAL_NAME, REPLICA_NAME
from app.metering.replicas import beats
from app.metering.sweeper import RETURN_S, Sweeper
from app.metering.tables import hold
from app.metering.verify import drifts
from tests.cli.test_serve import COMMAND, command, environment, free_port, served
from tests.faults.test_kill import Seen, stream_until_killed
from tests.fixtures.clock import TurnedClock
from tests.fixtures.postgres import Postgres
from tests.postgres.test_books import CLOCK, admission, replicas, shared_key

__all__ = ["replicas", "shared_key"]
DEAD_AFTER_S = 120.0
STEP_S = 50.0


class House:
    """Three replicas' bookkeeping over one database; the first will die."""

    def __init__(self, replicas: list[Database], folder: Path) -> None:
        self.clock = TurnedClock()
        self.homes = [folder / name for name in "abc"]
        self.names = [f"replica_{name}" for name in "abc"]
        for home, name in zip(self.homes, self.names, strict=True):
            home.mkdir(exist_ok=True)
            (home / REPLICA_NAME).write_text(name)
        self.databases = [replicas[0], replicas[1], replicas[1]]
        self.books = Books(
            database=replicas[0], home=self.homes[0], clock=self.clock, replica_id=self.names[0], escrow_share=0.5
        )
        self.sweepers = [
            Sweeper(database=database, clock=self.clock, replica_id=name, folder=home, dead_after_s=DEAD_AFTER_S)
            for database, name, home in zip(self.databases, self.names, self.homes, strict=True)
        ]

    async def others_look(self, seconds: float) -> list[int]:
        """Let time pass, in which both living replicas look again and again, at the same time; what each settled."""
        counts = [0, 0]
        for _ in range(steps := 1 + int(seconds / STEP_S)):
            self.clock.turn(seconds / steps)
            found = await asyncio.gather(*(one.look() for one in self.sweepers[1:]))
            counts = [before + now for before, now in zip(counts, found, strict=True)]
        return counts


@pytest.fixture
async def house(replicas: list[Database], shared_key: NewKey, tmp_path: Path) -> House:
    for meter in (Meter.INPUT_TOKEN, Meter.OUTPUT_TOKEN):
        await replicas[0].run(
            lambda c, meter=meter: set_price(
                c, clock=CLOCK, model="m", task="t", meter=meter, pico_per_unit=1000, effective_us=0
            )
        )
    await replicas[0].run(lambda c: add_money(c, clock=CLOCK, tenant_name="acme", amount_nano=10_000))
    made = House(replicas, tmp_path)
    await made.books.start()
    await asyncio.gather(*(one.look() for one in made.sweepers))
    return made


async def open_ten(house: House, key: NewKey, *, noted: int) -> list[Admission]:
    """Ten requests of the replica that will die, each of which has delivered `noted` tokens."""
    asked = [replace(admission(key, f"r{number}"), replica_id=house.names[0]) for number in range(10)]
    opened = [await house.books.open(one) for one in asked]
    for one in opened:
        house.books.note(one, Usage(input_tokens=10, output_tokens=noted))
    return opened


async def test_two_sweepers_settle_a_dead_replica_once_by_its_last_reports(
    house: House, replicas: list[Database], shared_key: NewKey
) -> None:
    opened = await open_ten(house, shared_key, noted=4)
    await house.books.report_progress()
    await house.books.refresh_leases()
    house.books.close()
    (house.homes[0] / JOURNAL_NAME).rename(house.homes[0] / "elsewhere")
    assert await house.others_look(0) == [0, 0]
    assert await house.others_look(DEAD_AFTER_S / 2) == [0, 0]
    assert sum(await house.others_look(DEAD_AFTER_S)) == 10
    assert await replicas[1].run(lambda c: c.execute(hold.select()).all()) == []
    entries = await replicas[1].run(list_entries)
    assert [(one["outcome"], one["output_tokens"]) for one in entries] == [("crashed", 4)] * 10
    [state] = await replicas[1].run(lambda c: list_budgets(c, clock=CLOCK))
    assert state.held_nano > 0, "its leases: it may have spent of them while it was cut off"
    used = Usage(input_tokens=10, output_tokens=20)
    for one in opened:  # it lived after all, and ships what it has
        receipt = await replicas[0].run(lambda c, one=one: settle(c, one, Outcome.FINISHED, used, at_us=2))
        assert receipt.output_tokens == 4
    assert await house.others_look(RETURN_S) == [0, 0]
    [state] = await replicas[1].run(lambda c: list_budgets(c, clock=CLOCK))
    assert (state.spent_nano, state.held_nano) == (10 * 14, 0)
    assert await replicas[1].run(lambda c: list(drifts(c))) == []
    assert [one.replica_id for one in await replicas[1].run(beats)] == house.names[1:]


async def test_a_journal_on_a_shared_disk_is_applied_to_the_token(
    house: House, replicas: list[Database], shared_key: NewKey
) -> None:
    await open_ten(house, shared_key, noted=7)
    await house.books.refresh_leases()
    await house.others_look(0)
    assert sum(await house.others_look(DEAD_AFTER_S)) == 0, "its journal is locked: it lives, though silent"
    assert await replicas[1].run(list_entries) == []
    house.books.close()
    assert sum(await house.others_look(1)) == 10
    entries = await replicas[1].run(list_entries)
    assert [(one["outcome"], one["output_tokens"]) for one in entries] == [("crashed", 7)] * 10
    [state] = await replicas[1].run(lambda c: list_budgets(c, clock=CLOCK))
    assert (state.spent_nano, state.held_nano) == (10 * 17, 0), "its leases too"
    again = Books(database=replicas[0], home=house.homes[0], clock=house.clock, replica_id=house.names[0])
    assert await again.start() == 0
    again.close()


async def test_after_an_outage_nobody_is_taken_for_dead(
    house: House, replicas: list[Database], shared_key: NewKey, postgres: Postgres
) -> None:
    await open_ten(house, shared_key, noted=1)
    (house.homes[0] / JOURNAL_NAME).rename(house.homes[0] / "elsewhere")
    await house.others_look(0)
    await asyncio.to_thread(postgres.stop)
    try:
        house.clock.turn(2 * DEAD_AFTER_S)
        found = await asyncio.gather(*(one.look() for one in house.sweepers[1:]), return_exceptions=True)
        assert all(isinstance(one, Exception) for one in found)
    finally:
        await asyncio.to_thread(postgres.start)
    assert await house.others_look(1) == [0, 0]
    await house.sweepers[0].look()
    assert await house.others_look(DEAD_AFTER_S - 1) == [0, 0]
    house.books.close()


@contextmanager
def beside(env: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A replica that starts while another does; see `served`."""
    port = free_port()
    process = subprocess.Popen([*COMMAND, "serve", "--port", str(port)], env=env, text=True, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


def test_a_replica_killed_for_good_leaves_its_requests_to_the_other(
    postgres: Postgres, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    url = postgres.fresh()
    envs: list[dict[str, str]] = []
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "pepper").write_bytes(b"p" * 32)
        envs.append(
            environment(tmp_path / name, checkpoints)
            | {"TOLLGATE_METERING__DATABASE_URL": url, "TOLLGATE_METERING__DEAD_AFTER_S": "2"}
        )
    key = json.loads(command(envs[0], "keys", "create", "--tenant", "acme", "--name", "web", "--json"))["key"]
    with beside(envs[1]) as (other_url, _), served(envs[0]) as (own_url, process):
        wait_ready(other_url)
        seen: list[Seen] = []

        async def kill_under_streams() -> None:
            clients = [asyncio.create_task(stream_until_killed(own_url, key, seen)) for _ in range(8)]
            while sum(one.tokens for one in seen) < 40:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            await asyncio.gather(*clients)

        asyncio.run(kill_under_streams())
        process.wait()
        shutil.move(tmp_path / "a", tmp_path / "its disk is gone")
        holds, entries = wait_swept(url)
    assert holds == 0
    assert {one.request_id for one in seen} <= entries


def wait_ready(url: str) -> None:
    give_up_s = time.monotonic() + 120
    while time.monotonic() < give_up_s:
        try:
            if httpx.get(url + "/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError("the other replica does not become ready")


def wait_swept(url: str) -> tuple[int, set[str]]:
    """How many holds there are once there are none, or a minute has passed; and every entry's id."""
    give_up_s = time.monotonic() + 60
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            [(holds,)] = connection.execute("SELECT count(*) FROM hold").fetchall()
            if not holds or time.monotonic() > give_up_s:
                return holds, {row[0] for row in connection.execute("SELECT id FROM usage_entry").fetchall()}
            time.sleep(0.1)

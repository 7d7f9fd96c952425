"""Entries reach a file or a real receiver as CloudEvents: at least once each, under their ids, whatever fails."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.delivery.events import Events, sinks_of
from app.delivery.events_file import EventsFile
from app.delivery.settings import EventSettings
from app.errors import SettingsError
from app.metering.database import Database, microseconds
from app.metering.feed import list_feeds, register, stop, waiting
from app.metering.keys import NewKey
from app.metering.ledger import Admission, Outcome, Usage, settle
from app.observability.metrics import Metrics
from tests.cli.test_keys import tollgate
from tests.fixtures.clock import TurnedClock
from tests.fixtures.receiver import Receiver, answer, running_receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as made:
        yield made


class Ledger:
    """Entries to be made, and the loops that hand them out."""

    def __init__(self, database: Database, key: NewKey, **settings: Any) -> None:
        self.database, self.key, self.clock = database, key, TurnedClock()
        self.sinks = sinks_of(EventSettings.model_validate(settings))
        self.events = Events(
            database=database, clock=self.clock, metrics=Metrics(), sinks=self.sinks, source="shop", batch=10
        )

    async def settle(self, number: int, *, times: int = 1) -> None:
        admission = Admission(
            request_id=f"req_{number:04}", tenant_id=self.key.record.tenant_id, key_id=self.key.record.id, model="m",
            task="t", route="/r", input_tokens=3, output_tokens_max=9, prices={"output_token": 2000},
        )  # fmt: skip
        usage = Usage(input_tokens=3, output_tokens=number)
        at_us = microseconds(self.clock.now())
        for _ in range(times):
            await self.database.run(lambda c: settle(c, admission, Outcome.FINISHED, usage, at_us=at_us))

    async def hand_out_all(self) -> None:
        while (await self.events.hand_out(self.sinks[0]))[0]:
            pass


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def test_a_file_gets_each_entry_once_and_a_feed_only_what_came_after_it(
    database: Database, key: NewKey, tmp_path: Path
) -> None:
    path = tmp_path / "out" / "events.jsonl"
    ledger = Ledger(database, key, file=path)
    await ledger.settle(0)
    await ledger.events.announce(ledger.sinks[0])
    for number in range(1, 26):
        await ledger.settle(number, times=2)
    await ledger.hand_out_all()
    found = lines_of(path)
    assert [one["id"] for one in found] == [f"req_{number:04}" for number in range(1, 26)]
    first = found[0]
    assert (first["specversion"], first["source"], first["type"], first["subject"], first["time"]) == (
        "1.0", "shop", "tollgate.usage", key.record.tenant_id, "2026-11-01T00:00:00.000Z",
    )  # fmt: skip
    assert (first["data"]["output_tokens"], first["data"]["cost_nano"], first["data"]["cost"]) == (1, 2, "0.000000002")
    assert "acme" not in path.read_text(encoding="utf-8"), "ids, no names"
    assert await database.run(lambda c: waiting(c, "file")) == 0


async def test_a_receiver_gets_batches_signed_and_gets_them_again_until_it_takes_them(
    database: Database, key: NewKey, receiver: Receiver
) -> None:
    ledger = Ledger(database, key, url=receiver.url, token="t0ken", secret=SECRET)
    await ledger.events.announce(ledger.sinks[0])
    for number in range(15):
        await ledger.settle(number)
    receiver.answers.append(answer(503))
    assert await ledger.events.hand_out(ledger.sinks[0]) == (10, "status 503")
    await ledger.hand_out_all()
    batches = [[one["id"] for one in found.event] for found in receiver.received]
    assert [len(batch) for batch in batches] == [10, 10, 5]
    assert batches[0] == batches[1] and len({one for batch in batches for one in batch}) == 15
    for found in receiver.received:
        assert found.headers["content-type"] == "application/cloudevents-batch+json"
        assert found.headers["authorization"] == "Bearer t0ken" and found.is_signed_with(SECRET)
    await ledger.events.close()


async def test_replicas_share_a_queue_and_what_a_dead_one_took_comes_again(
    database: Database, key: NewKey, receiver: Receiver
) -> None:
    ledgers = [Ledger(database, key, url=receiver.url) for _ in range(3)]
    await ledgers[0].events.announce(ledgers[0].sinks[0])
    for number in range(60):
        await ledgers[0].settle(number)
    receiver.delay_s = 0.02
    await asyncio.gather(*(ledger.hand_out_all() for ledger in ledgers))
    ids = [one["id"] for found in receiver.received for one in found.event]
    assert len(ids) == 60 == len(set(ids))
    await ledgers[0].settle(60)
    receiver.delay_s = 30
    dying = asyncio.create_task(ledgers[0].events.hand_out(ledgers[0].sinks[0]))
    await receiver.until(lambda r: [one["id"] for one in r.received[-1].event] == ["req_0060"])
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    receiver.delay_s = 0
    assert (await ledgers[1].events.hand_out(ledgers[1].sinks[0]))[0] == 0
    ledgers[1].clock.turn(121)
    assert (await ledgers[1].events.hand_out(ledgers[1].sinks[0]))[0] == 1
    for ledger in ledgers:
        await ledger.events.close()


async def test_a_feed_that_nobody_takes_from_is_not_filled_for_ever(database: Database, key: NewKey) -> None:
    ledger = Ledger(database, key)
    await database.run(lambda c: register(c, "file", now_us=microseconds(ledger.clock.now())))
    await ledger.settle(1)
    ledger.clock.turn(7 * 86_400 + 1)
    await ledger.settle(2)
    [feed] = await database.run(list_feeds)
    assert feed["waiting"] == 1
    assert await database.run(lambda c: stop(c, "file")) == 1
    assert await database.run(list_feeds) == []


def test_files_turn_and_half_a_line_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    file = EventsFile(path=path, bytes_max=1024)
    for minute in range(3):
        file.append([b"x" * 600, b"y" * 600], datetime(2026, 11, 24, 12, minute, tzinfo=UTC))
    assert sorted(one.name for one in tmp_path.glob("*.jsonl")) == [
        "events-20261124T120100000000.jsonl", "events-20261124T120200000000.jsonl", "events.jsonl",
    ]  # fmt: skip
    path.write_bytes(b"whole\n" + b"half" * 3000)
    file = EventsFile(path=path, bytes_max=10**6)
    file.append([b"next"], datetime(2026, 11, 24, tzinfo=UTC))
    assert path.read_bytes() == b"whole\nnext\n"


async def test_a_file_that_cannot_be_written_loses_nothing(database: Database, key: NewKey, tmp_path: Path) -> None:
    (tmp_path / "wall").write_text("a file, no folder", encoding="utf-8")
    ledger = Ledger(database, key, file=tmp_path / "wall" / "events.jsonl")
    await ledger.events.announce(ledger.sinks[0])
    await ledger.settle(1)
    assert "cannot be written" in str((await ledger.events.hand_out(ledger.sinks[0]))[1])
    assert await database.run(lambda c: waiting(c, "file")) == 1


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong in ({"url": "ftp://x/"}, {"url": "https://x/", "secret": "whsec_%%"}):
        with pytest.raises(SettingsError):
            sinks_of(EventSettings.model_validate(wrong))


async def test_the_command_prints_entries_again_under_the_same_ids(
    database: Database, key: NewKey, tmp_path: Path
) -> None:
    ledger = Ledger(database, key)
    for number in range(5):
        await ledger.settle(number)
        ledger.clock.turn(86_400)
    await database.close()
    done = await asyncio.to_thread(
        tollgate, tmp_path, "usage", "events", "--since", "2026-11-02", "--until", "2026-11-04", "--tenant", "acme"
    )
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["req_0001", "req_0002"], done.stderr

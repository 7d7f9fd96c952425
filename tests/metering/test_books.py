"""Journal and spool: what a dead process and a dead database leave, and that it arrives once."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.clock import SystemClock
from app.errors import EngineOverloaded, SettingsError, StorageUnavailable
from app.metering import journal as journal_module
from app.metering.books import UNWRITTEN_S, Books
from app.metering.budgets import add_money
from app.metering.database import Database
from app.metering.journal import Journal
from app.metering.keys import NewKey
from app.metering.ledger import Admission, Outcome, Usage, list_entries, open_hold
from app.metering.money import Meter
from app.metering.prices import set_price
from app.metering.spool import SHIPPING_NAME, SPOOL_NAME
from app.metering.tables import hold
from tests.fixtures.clock import TurnedClock

CLOCK = SystemClock()


def admission(key: NewKey, name: str) -> Admission:
    return Admission(
        request_id=name, tenant_id=key.record.tenant_id, key_id=key.record.id, model="m", task="t", route="/v1/x",
        input_tokens=3, output_tokens_max=20, is_free=True,
    )  # fmt: skip


class Away(Database):
    """A database that a test takes away and brings back; else it is the real one."""

    is_away = False

    async def run(self, work: Any, *, is_synced: bool = True) -> Any:
        if self.is_away:
            raise StorageUnavailable
        return await super().run(work, is_synced=is_synced)


@pytest.fixture
async def away(database: Database, tmp_path: Path) -> AsyncIterator[Away]:
    made = Away(home=tmp_path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def books(away: Away, tmp_path: Path) -> AsyncIterator[Books]:
    made = Books(database=away, home=tmp_path, clock=CLOCK)
    await made.start()
    yield made
    made.close()


async def test_the_journal_tells_the_last_note_of_each_open_request(tmp_path: Path, key: NewKey) -> None:
    journal = Journal(home=tmp_path)
    assert journal.open() == []
    for number in range(5):
        journal.open_slot(admission(key, f"r{number}"))
        for tokens in range(number):
            journal.note(f"r{number}", Usage(input_tokens=3, output_tokens=tokens + 1))
    journal.close_slot("r1")
    journal.note("r1", Usage(output_tokens=99))
    journal.close()
    again = Journal(home=tmp_path)
    found = {one.request_id: usage for one, usage in again.open()}
    assert {name: usage.output_tokens for name, usage in found.items()} == {"r0": 0, "r2": 2, "r3": 3, "r4": 4}
    for name in found:
        again.close_slot(name)
    again.close()
    last = Journal(home=tmp_path)
    assert last.open() == []
    last.close()


async def test_a_torn_slot_is_no_request(tmp_path: Path, key: NewKey) -> None:
    journal = Journal(home=tmp_path)
    journal.open()
    journal.open_slot(admission(key, "r"))
    journal.close()
    data = bytearray((tmp_path / "journal").read_bytes())
    data[journal_module.TEXT_AT + 5] ^= 1
    (tmp_path / "journal").write_bytes(data)
    again = Journal(home=tmp_path)
    assert again.open() == []
    again.close()


async def test_two_servers_do_not_share_a_journal(books: Books, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="its own TOLLGATE_HOME"):
        Journal(home=tmp_path).open()


async def test_a_full_journal_refuses_and_leaves_nothing_held(
    books: Books, away: Away, key: NewKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books._journal, "_free", [])  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(EngineOverloaded):
        await books.open(admission(key, "r"))
    await books.drain()
    assert await away.run(lambda c: c.execute(select(hold)).all()) == []


async def test_an_entry_that_a_full_disk_refused_is_written_once_there_is_room(
    away: Away, key: NewKey, tmp_path: Path
) -> None:
    clock = TurnedClock()
    books = Books(database=away, home=tmp_path, clock=clock)
    await books.start()
    first, second = [await books.open(admission(key, name)) for name in ("first", "second")]
    (tmp_path / SPOOL_NAME).symlink_to("/dev/full")
    away.is_away = True
    for one in (first, second):
        for outcome, tokens in ((Outcome.FINISHED, 9), (Outcome.FAILED, 4)):  # what the gate does in turn
            with pytest.raises(StorageUnavailable, match="No space left"):
                await books.settle(one, outcome, Usage(input_tokens=3, output_tokens=tokens))
    with pytest.raises(StorageUnavailable):
        await books.open(admission(key, "third"))
    assert books.spooled
    clock.turn(UNWRITTEN_S)
    (tmp_path / SPOOL_NAME).unlink()
    await books.write_late()
    await books.settle(await books.open(admission(key, "fourth")), Outcome.FINISHED, Usage(output_tokens=1))
    away.is_away = False
    await books.drain()
    assert not books.spooled
    entries = await away.run(lambda c: list_entries(c, tenant_id=key.record.tenant_id))
    assert sorted((one["request_id"], one["output_tokens"]) for one in entries) == [
        ("first", 4),
        ("fourth", 1),
        ("second", 4),
    ]
    assert await away.run(lambda c: c.execute(select(hold)).all()) == []
    books.close()


async def test_a_journal_without_room_ends_the_start_and_never_a_running_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    journal = Journal(home=tmp_path)
    journal.open()
    assert (tmp_path / "journal").stat().st_blocks * 512 >= journal_module.SLOTS * journal_module.SLOT_BYTES
    journal.close()
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageUnavailable, match="needs 16 MiB: No space left"):
        Journal(home=tmp_path).open()


async def test_entries_made_while_the_database_is_away_arrive_once(books: Books, away: Away, key: NewKey) -> None:
    opened = [await books.open(admission(key, f"r{number}")) for number in range(4)]
    away.is_away = True
    opened += [await books.open(admission(key, f"s{number}")) for number in range(4)]
    for number, one in enumerate(opened):
        for _ in range(2):
            receipt = await books.settle(one, Outcome.FINISHED, Usage(input_tokens=3, output_tokens=number))
            assert receipt.output_tokens == number
    assert books.spooled
    with pytest.raises(StorageUnavailable):
        await books.drain()
    away.is_away = False
    await asyncio.gather(*(books.drain() for _ in range(3)))
    await books.drain()
    entries = await away.run(list_entries)
    assert [(one["request_id"], one["output_tokens"]) for one in entries] == [
        *((f"r{number}", number) for number in range(4)),
        *((f"s{number}", number + 4) for number in range(4)),
    ]
    assert not books.spooled
    assert await away.run(lambda c: c.execute(select(hold)).all()) == []


async def test_a_spool_that_was_shipped_but_not_removed_is_harmless(
    books: Books, away: Away, key: NewKey, tmp_path: Path
) -> None:
    opened = await books.open(admission(key, "r"))
    away.is_away = True
    await books.settle(opened, Outcome.FINISHED, Usage(input_tokens=3))
    line = (tmp_path / SPOOL_NAME).read_bytes()
    away.is_away = False
    await books.drain()
    (tmp_path / SHIPPING_NAME).write_bytes(line + line[: len(line) // 2])
    (tmp_path / SPOOL_NAME).write_bytes(line)
    await books.drain()
    await books.drain()
    assert len(await away.run(list_entries)) == 1
    assert not books.spooled


async def test_whoever_has_a_budget_is_refused_while_nobody_can_tell_what_is_left(
    books: Books, away: Away, key: NewKey
) -> None:
    await away.run(lambda c: add_money(c, clock=CLOCK, tenant_name="acme", amount_nano=100))
    await away.run(lambda c: set_price(c, clock=CLOCK, model="m", task="t", meter=Meter.REQUEST, pico_per_unit=1000))
    await books.settle(await books.open(admission(key, "r")), Outcome.FINISHED, Usage(input_tokens=3))
    away.is_away = True
    with pytest.raises(StorageUnavailable):
        await books.open(admission(key, "s"))
    away.is_away = False
    await books.drain()
    assert await away.run(lambda c: c.execute(select(hold)).all()) == []


async def test_a_disk_that_fails_too_is_no_receipt(books: Books, away: Away, key: NewKey, tmp_path: Path) -> None:
    opened = await books.open(admission(key, "r"))
    away.is_away = True
    (tmp_path / SPOOL_NAME).mkdir()
    with pytest.raises(StorageUnavailable, match="spool"):
        await books.settle(opened, Outcome.FINISHED, Usage(input_tokens=3, output_tokens=2))
    books.note(opened, Usage(input_tokens=3, output_tokens=2))
    books.close()
    (tmp_path / SPOOL_NAME).rmdir()
    away.is_away = False
    again = Books(database=away, home=tmp_path, clock=TurnedClock())
    assert await again.start() == 1
    again.close()
    [entry] = await away.run(list_entries)
    assert (entry["outcome"], entry["output_tokens"]) == ("crashed", 2)


async def test_a_hold_that_the_journal_does_not_know_is_settled_at_the_start(
    books: Books, away: Away, key: NewKey, tmp_path: Path
) -> None:
    await away.run(lambda c: open_hold(c, admission(key, "r")))
    books.close()
    again = Books(database=away, home=tmp_path, clock=CLOCK)
    assert (await again.start(), await again.drain()) == (1, 0)
    again.close()
    assert [one["outcome"] for one in await away.run(list_entries)] == ["crashed"]


async def test_a_slot_is_on_the_disk_soon_after_it_was_opened(
    tmp_path: Path, key: NewKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "SYNC_S", 3600.0)
    journal = Journal(home=tmp_path / "other")
    journal.open()
    running = asyncio.create_task(journal.run())
    await asyncio.sleep(0)
    for name in ("r1", "r2"):
        journal.open_slot(admission(key, name))
        async with asyncio.timeout(10):
            while journal._is_changed:  # noqa: ASYNC110  # pyright: ignore[reportPrivateUsage]
                await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    journal.close()

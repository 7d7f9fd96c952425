"""Usage events of two replicas on one PostgreSQL: each entry is handed out once, by whichever of them."""

import asyncio

from app.metering.database import Database
from app.metering.feed import waiting
from app.metering.keys import NewKey
from tests.delivery.test_events import Ledger
from tests.fixtures.receiver import answer, running_receiver
from tests.postgres.test_books import replicas, shared_key

__all__ = ["replicas", "shared_key"]


async def test_two_replicas_hand_each_entry_out_once_while_entries_come_in(
    replicas: list[Database], shared_key: NewKey
) -> None:
    async with running_receiver() as receiver:
        ledgers = [Ledger(one, shared_key, url=receiver.url) for one in replicas]
        await ledgers[0].events.announce(ledgers[0].sinks[0])
        receiver.delay_s = 0.01
        is_over = False

        async def hand_out(ledger: Ledger) -> None:
            while not is_over or (await ledger.events.hand_out(ledger.sinks[0]))[0]:
                await ledger.events.hand_out(ledger.sinks[0])

        handing = [asyncio.create_task(hand_out(ledger)) for ledger in ledgers for _ in range(2)]
        await asyncio.gather(*(ledgers[number % 2].settle(number, times=2) for number in range(80)))
        is_over = True
        await asyncio.gather(*handing)
        ids = [one["id"] for found in receiver.received for one in found.event]
        assert sorted(ids) == [f"req_{number:04}" for number in range(80)], "each once, nothing left out"
        receiver.delay_s = 0.0
        receiver.answers.append(answer(503))
        await ledgers[0].settle(80)
        assert await ledgers[0].events.hand_out(ledgers[0].sinks[0]) == (1, "status 503")
        assert (await ledgers[1].events.hand_out(ledgers[1].sinks[0]))[0] == 1
        assert await replicas[0].run(lambda c: waiting(c, "webhook")) == 0
        for ledger in ledgers:
            await ledger.events.close()

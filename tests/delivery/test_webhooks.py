"""Messages reach a real receiver, signed, once each, again after failures, and never where they must not go."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.delivery.sender import Sender
from app.delivery.settings import WebhookSettings
from app.delivery.signature import signed_headers
from app.delivery.webhooks import Webhooks
from app.metering import webhooks as registered
from app.metering.acts import Operator
from app.metering.database import Database, microseconds
from app.metering.keys import NewKey, Pepper
from app.metering.outbox import State, enqueue, list_deliveries
from app.observability.metrics import Metrics
from tests.fixtures.clock import TurnedClock
from tests.fixtures.receiver import Receiver, answer, running_receiver

SETTINGS = WebhookSettings.model_validate(
    {"allowed_hosts": ["127.0.0.1"], "allowed_networks": ["127.0.0.0/8"], "retry_s": [5, 60], "timeout_s": 2}
)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as made:
        yield made


def stored(home: Path) -> bytes:
    return b"".join(path.read_bytes() for path in home.glob("tollgate.db*"))


class House:
    """A database with a webhook, and the loop that delivers."""

    def __init__(self, database: Database, home: Path) -> None:
        self.database = database
        self.clock = TurnedClock()
        self.pepper = Pepper(home)
        self.by = Operator(actor="cli:x", clock=self.clock, pepper=self.pepper)
        self.loop = Webhooks(
            database=database, pepper=self.pepper, clock=self.clock, metrics=Metrics(), settings=SETTINGS
        )

    async def webhook(self, url: str, tenant: str | None = None) -> dict[str, Any]:
        return await self.database.run(
            lambda c: registered.create_webhook(c, self.by, self.pepper, url=url, tenant_name=tenant)
        )

    async def put(self, count: int = 1, tenant_id: str | None = None) -> None:
        at_us = microseconds(self.clock.now())
        for number in range(count):
            await self.database.run(
                lambda c, n=number: enqueue(c, type_name="test", tenant_id=tenant_id, data={"n": n}, at_us=at_us)
            )

    async def found(self) -> list[dict[str, Any]]:
        return await self.database.run(list_deliveries)


def test_a_message_is_signed_as_standard_webhooks_says() -> None:
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    headers = signed_headers(secret, message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp_s=1614265330, body=body)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_it_arrives_signed_and_only_where_it_belongs(
    database: Database, key: NewKey, tmp_path: Path, receiver: Receiver
) -> None:
    house = House(database, tmp_path)
    made = await house.webhook(receiver.url, "acme")
    await database.run(lambda c: house.by.create_tenant(c, name="other"))
    await house.webhook("http://127.0.0.1:1/", "other")
    await house.put(3, tenant_id=key.record.tenant_id)
    assert await house.loop.deliver_due() == 3
    assert sorted(one.event["data"]["n"] for one in receiver.received) == [0, 1, 2]
    assert len({one.id for one in receiver.received}) == 3
    for one in receiver.received:
        assert one.is_signed_with(made["secret"])
        assert not one.is_signed_with("whsec_" + base64.b64encode(b"x" * 32).decode())
        assert one.headers["content-type"] == "application/json"
        assert set(one.event) == {"type", "timestamp", "data"}
    again = await database.run(lambda c: registered.rotate_secret(c, house.by, house.pepper, webhook_id=made["id"]))
    await house.put(tenant_id=key.record.tenant_id)
    await house.loop.deliver_due()
    assert receiver.received[-1].is_signed_with(again["secret"])
    assert not receiver.received[-1].is_signed_with(made["secret"])
    dump = stored(tmp_path)
    assert base64.b64decode(made["secret"][6:]) not in dump and made["secret"].encode() not in dump
    await house.loop.close()


async def test_it_is_tried_again_under_its_id_then_dead_then_sent_again_by_the_operator(
    database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    house = House(database, tmp_path)
    await house.webhook(receiver.url)
    receiver.answers += [answer(500), answer(302, "location: http://127.0.0.1:1/"), answer(503)]
    await house.put()
    for wait_s, state in ((0, "waiting"), (5.6, "waiting"), (67, "dead")):
        house.clock.turn(wait_s)
        assert await house.loop.deliver_due() == 1
        assert await house.loop.deliver_due() == 0, "not before its time"
        assert [one["state"] for one in await house.found()] == [state]
    [dead] = await house.found()
    assert (dead["attempts"], dead["status"]) == (3, 503)
    assert len({one.id for one in receiver.received}) == 1 and len(receiver.received) == 3
    await database.run(lambda c: registered.send_again(c, house.by, delivery_id=dead["id"]))
    await house.loop.deliver_due()
    [done] = await house.found()
    assert (done["state"], done["id"]) == ("delivered", receiver.received[-1].id)
    receiver.answers.append(answer(410))
    await house.put()
    await house.loop.deliver_due()
    assert [one["state"] for one in await house.found()] == ["delivered", "dead"], "gone for good: not tried again"
    await house.loop.close()


async def test_replicas_send_each_message_once_and_a_dead_ones_later(
    database: Database, tmp_path: Path, receiver: Receiver
) -> None:
    houses = [House(database, tmp_path) for _ in range(4)]
    await houses[0].webhook(receiver.url)
    await houses[0].put(40)
    receiver.delay_s = 0.01
    while any(await asyncio.gather(*(house.loop.deliver_due() for house in houses))):
        pass
    assert len(receiver.received) == 40 == len({one.id for one in receiver.received})
    receiver.delay_s = 30
    await houses[0].put()
    dying = asyncio.create_task(houses[0].loop.deliver_due())
    await receiver.until(lambda r: len(r.received) == 41)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    receiver.delay_s = 0
    assert await houses[1].loop.deliver_due() == 0, "the lease of who died still holds"
    houses[1].clock.turn(60)
    assert await houses[1].loop.deliver_due() == 1
    assert receiver.received[-1].id == receiver.received[-2].id
    assert {one["state"] for one in await houses[1].found()} == {State.DELIVERED.value}
    for house in houses:
        await house.loop.close()


async def test_private_addresses_redirects_slow_and_endless_answers_do_no_harm(receiver: Receiver) -> None:
    closed = Sender(networks=(), timeout_s=1)
    for host in ("127.0.0.1", "localhost", "[::1]", "169.254.169.254", "0x7f000001", "2130706433"):
        refused = await closed.post(f"http://{host}:{receiver.port}/", headers={}, body=b"{}")
        assert refused.status is None and refused.error is not None
        assert "not public" in refused.error or "no address" in refused.error, (host, refused.error)
    assert receiver.received == []
    await closed.close()
    sender = Sender(networks=SETTINGS.allowed_networks, timeout_s=0.5)
    receiver.answers.append(answer(307, f"location: {receiver.url}"))
    assert "redirects are not followed" in str((await sender.post(receiver.url, headers={}, body=b"{}")).error)
    assert len(receiver.received) == 1
    receiver.delay_s = 20
    slow = await sender.post(receiver.url, headers={}, body=b"{}")
    assert slow.status is None and slow.error in ("no answer within 0.5 s", "no connection: ReadTimeout")
    receiver.delay_s, receiver.is_endless = 0, True
    assert (await sender.post(receiver.url, headers={}, body=b"{}")).has_arrived
    assert (await sender.post("http://127.0.0.1:1/", headers={}, body=b"{}")).error == "no connection: ConnectError"
    await sender.close()


async def test_what_is_erased_is_told_to_nobody(
    database: Database, key: NewKey, tmp_path: Path, receiver: Receiver
) -> None:
    house = House(database, tmp_path)
    await house.webhook(receiver.url + "?secret-of-acme", "acme")
    await house.webhook(receiver.url)
    await house.put(tenant_id=key.record.tenant_id)
    await database.run(lambda c: house.by.erase_tenant(c, name="acme"))
    assert await house.loop.deliver_due() == 0
    assert await house.found() == []
    shown = json.dumps(await database.run(registered.list_webhooks))
    assert "secret-of-acme" not in shown
    await house.loop.close()

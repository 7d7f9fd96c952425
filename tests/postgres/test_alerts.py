"""Alerts of two replicas on one PostgreSQL: each share is told once, and each message delivered once."""

import asyncio
from pathlib import Path

from app.metering.budgets import add_money
from app.metering.outbox import list_deliveries
from tests.fixtures.postgres import Postgres
from tests.fixtures.receiver import running_receiver
from tests.fixtures.server import PATIENCE_S, running_server
from tests.postgres.test_road import INLINE
from tests.test_money import BODY, CLOCK, sell

WEBHOOKS = {"allowed_hosts": ["127.0.0.1"], "allowed_networks": ["127.0.0.0/8"]}


async def test_two_servers_tell_a_real_receiver_each_share_once(
    postgres: Postgres, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    url = postgres.fresh()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pepper").write_bytes(b"p" * 32)
    async with (
        running_receiver() as receiver,
        running_server(tmp_path / "a", checkpoints, INLINE, database_url=url, webhooks=WEBHOOKS) as one,
        running_server(tmp_path / "b", checkpoints, INLINE, database_url=url, webhooks=WEBHOOKS) as other,
    ):
        boss = {"authorization": f"Bearer {one.admin_key}"}
        made = await one.client.post("/admin/webhooks", json={"url": receiver.url, "tenant": "acme"}, headers=boss)
        assert made.status_code == 201, made.text
        await sell(one, balance_nano=13)
        await one.database.run(lambda c: add_money(c, clock=CLOCK, tenant_name="acme", amount_nano=40 * 13 - 13))
        headers = {"authorization": f"Bearer {one.key}"}
        answers = await asyncio.gather(
            *(
                (one, other)[number % 2].client.post(
                    "/v1/completions", json=BODY | {"max_tokens": 5}, headers=headers
                )
                for number in range(42)
            )
        )  # fmt: skip
        assert [answer.status_code for answer in answers].count(200) == 40
        await receiver.until(lambda r: len(r.received) >= 4)
        async with asyncio.timeout(PATIENCE_S):
            while {found["state"] for found in await one.database.run(list_deliveries)} != {"delivered"}:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.2)  # the other's next look
        told = [found.event["data"].get("percent", "refused") for found in receiver.received]
        assert sorted(told, key=str) == [100, 50, 80, "refused"]
        assert len({found.id for found in receiver.received}) == 4
        assert all(found.is_signed_with(made.json()["secret"]) for found in receiver.received)
        assert all(b"one" not in found.body for found in receiver.received)
        shown = [(await server.client.get("/metrics")).text for server in (one, other)]
        assert any('tollgate_webhook_attempts_total{outcome="delivered"}' in text for text in shown), "one may do all"

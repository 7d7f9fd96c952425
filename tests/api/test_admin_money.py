"""Prices, budgets and top-ups over the operator's routes: exact in, exact out, written down; a retry is harmless."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.metering.verify import drifts
from tests.fixtures.server import Running
from tests.test_money import BODY

MODEL = {"model": "tiny-gpt2", "task": "text-generation"}


@pytest.fixture
async def boss(server: Running) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {server.admin_key}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
        yield client


async def pay(boss: httpx.AsyncClient, amount: str, reference: str, **fields: Any) -> httpx.Response:
    body = {"tenant": "acme", "amount": amount, **fields}
    return await boss.post("/admin/top-ups", json=body, headers={"idempotency-key": reference})


async def test_prices_hold_from_their_dates_a_tenants_own_first(server: Running, boss: httpx.AsyncClient) -> None:
    for fields in (
        {"meter": "output_token", "per_million": "0.60"},
        {"meter": "output_token", "per_million": "0.50", "tenant": "acme"},
        {"meter": "output_token", "pico_per_unit": 9, "from": "2999-01-01"},
    ):
        answer = await boss.post("/admin/prices", json=MODEL | fields)
        assert answer.status_code == 201, answer.text
    listed = (await boss.get("/admin/prices", params={"model": "tiny-gpt2", "tenant": "acme"})).json()["data"]
    assert [(one["tenant"], one["per_million"], one["state"]) for one in listed] == [
        (None, "0.6", "in_force"), ("acme", "0.5", "in_force"), (None, "0.000009", "to_come"),
    ]  # fmt: skip
    paid = {
        (tenant, at): (await boss.get("/admin/prices/present", params=MODEL | tenant_and(tenant) | at_of(at))).json()
        for tenant in (None, "acme")
        for at in (None, "2999-01-02")
    }
    assert paid[None, None]["pico_per_unit"] == {"output_token": 600_000}
    assert paid["acme", None]["per_million"] == {"output_token": "0.5"}
    assert paid[None, "2999-01-02"]["pico_per_unit"] == {"output_token": 9}
    usage = (await server.client.post("/v1/completions", json=BODY | {"max_tokens": 10})).json()["usage"]
    assert usage["cost_nano"] == 10 * 500
    rows = (await boss.get("/admin/audit", params={"limit": 100})).json()["data"]
    acme = (await boss.get("/admin/tenants/acme")).json()["id"]
    assert [(row["act"], row["tenant_id"]) for row in rows] == [
        ("price.set", None), ("price.set", acme), ("price.set", None),
    ]  # fmt: skip
    assert all(row["actor"].startswith("key:key_") for row in rows)


def tenant_and(tenant: str | None) -> dict[str, str]:
    return {} if tenant is None else {"tenant": tenant}


def at_of(moment: str | None) -> dict[str, str]:
    return {} if moment is None else {"at": moment}


async def test_a_model_is_free_only_when_somebody_says_so(server: Running, boss: httpx.AsyncClient) -> None:
    await boss.post("/admin/prices", json=MODEL | {"meter": "output_token", "per_million": "1"})
    made = (await boss.post("/admin/prices", json=MODEL | {"free": True})).json()["data"]
    assert {one["meter"] for one in made} == {"input_token", "output_token", "character", "request"}
    assert (await server.client.post("/v1/completions", json=BODY)).json()["usage"]["cost_nano"] == 0
    for body, field in (
        ({}, "per_million"),
        ({"per_million": "1"}, "meter"),
        ({"per_million": "1", "free": True}, "per_million"),
        ({"per_million": 0.5, "meter": "request"}, "per_million"),
        ({"pico_per_unit": 0.5, "meter": "request"}, "pico_per_unit"),
        ({"per_million": "1e-7", "meter": "request"}, "per_million"),
        ({"per_million": "1", "meter": "hour"}, "meter"),
    ):
        answer = await boss.post("/admin/prices", json=MODEL | body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field), answer.text


async def test_a_top_up_moves_money_once_however_often_it_is_sent(server: Running, boss: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(pay(boss, "10.000000001", "payment-7", note="invoice 17") for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert {answer.json()["available_nano"] for answer in answers} == {10_000_000_001}
    for amount, fields in (("9", {}), ("10.000000001", {"key": "first"})):
        answer = await pay(boss, amount, "payment-7", **fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_mismatch")
    refused = await boss.post("/admin/top-ups", json={"tenant": "acme", "amount": "1"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "Idempotency-Key")
    assert (await pay(boss, "-11", "correction-1")).status_code == 409
    taken = await pay(boss, "-0.5", "correction-1")
    assert (taken.status_code, taken.json()["available_nano"]) == (201, 9_500_000_001)
    [budget] = (await boss.get("/admin/budgets")).json()["data"]
    assert (budget["tenant"], budget["limit"], budget["key_name"]) == ("acme", "9.500000001", None)
    listed = (await boss.get("/admin/top-ups", params={"tenant": "acme"})).json()["data"]
    assert [(one["amount"], one["note"]) for one in listed] == [("10.000000001", "invoice 17"), ("-0.5", "")]
    acts = [row["act"] for row in (await boss.get("/admin/audit?tenant=acme")).json()["data"]]
    assert acts == ["budget.topup", "budget.topup"]
    assert await server.database.run(lambda c: list(drifts(c))) == []
    assert (await boss.get("/admin/usage/verify")).json() == {"balanced": True, "drifts": []}


async def test_a_months_budget_is_set_and_taken_away(server: Running, boss: httpx.AsyncClient) -> None:
    made = (await boss.put("/admin/budgets", json={"tenant": "acme", "key": "first", "monthly": "0"})).json()
    assert (made["kind"], made["key_name"], made["limit"]) == ("monthly", "first", "0")
    await boss.post("/admin/prices", json=MODEL | {"meter": "request", "pico_per_unit": 10**6})
    assert (await server.client.post("/v1/completions", json=BODY)).json()["error"]["code"] == "insufficient_quota"
    path = f"/admin/budgets/{made['id']}"
    assert (await boss.get(path)).json()["active"] is True
    assert (await boss.delete(path)).json()["active"] is False
    assert (await server.client.post("/v1/completions", json=BODY)).status_code == 200
    assert (await boss.delete("/admin/budgets/none")).status_code == 404
    assert (await boss.put("/admin/budgets", json={"tenant": "acme", "monthly": "-1"})).status_code == 400
    assert (await boss.put("/admin/budgets", json={"tenant": "nobody", "monthly": "1"})).status_code == 404


async def test_the_ledger_is_read_by_who_may(server: Running, boss: httpx.AsyncClient) -> None:
    await boss.post("/admin/prices", json=MODEL | {"free": True})
    for _ in range(2):
        assert (await server.client.post("/v1/completions", json=BODY)).status_code == 200
    found = (await boss.get("/admin/usage/entries", params={"tenant": "acme", "limit": 1})).json()["data"]
    assert [(one["tenant"], one["key_name"], one["model"]) for one in found] == [("acme", "first", "tiny-gpt2")]
    assert not (await boss.get("/admin/usage/entries", params={"from": "2999-01-01"})).json()["data"]
    text = (await boss.get("/admin/usage/entries", params={"format": "csv"})).text
    assert len(text.splitlines()) == 3
    clerk = (
        await boss.post("/admin/keys", json={"tenant": "zeta", "name": "c", "is_admin": True, "acts": ["key.*"]})
    ).json()["key"]
    for method, path, body in (
        ("GET", "/admin/prices", None), ("POST", "/admin/prices", MODEL | {"free": True}),
        ("GET", "/admin/budgets", None), ("PUT", "/admin/budgets", {"tenant": "acme", "monthly": "1"}),
        ("GET", "/admin/top-ups", None), ("POST", "/admin/top-ups", {"tenant": "acme", "amount": "1"}),
        ("GET", "/admin/usage/entries", None), ("GET", "/admin/usage/verify", None),
    ):  # fmt: skip
        for key in (clerk, server.key):
            headers = {"authorization": f"Bearer {key}", "idempotency-key": "x"}
            answer = await server.client.request(method, path, json=body, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "key_not_allowed"), path

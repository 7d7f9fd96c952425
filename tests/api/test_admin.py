"""The operator's routes over real HTTP: what they change holds at once, and leaves its trace."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from app.clock import SystemClock
from app.errors import SourceError
from app.metering.keys import Pepper, create_key
from app.metering.tables import audit_log
from tests.fixtures.server import Running

LABEL = {"model": "tiny-bert-classifier", "input": "hello"}


@pytest.fixture
async def boss(server: Running) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {server.admin_key}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
        yield client


async def made(boss: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await boss.post("/admin/keys", json={"tenant": "zeta", "name": "web", **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def status(server: Running, key: str, headers: dict[str, str] | None = None) -> int:
    sent = {"authorization": f"Bearer {key}", **(headers or {})}
    return (await server.client.post("/v1/classifications", json=LABEL, headers=sent)).status_code


async def test_a_key_lives_through_its_whole_life(server: Running, boss: httpx.AsyncClient) -> None:
    old = await made(boss, tasks=["text-classification"], expires="90d")
    path = f"/admin/keys/{old['id']}"
    assert await status(server, old["key"]) == 200
    shown = (await boss.get(path)).json()
    assert "key" not in shown
    assert shown["tasks"] == ["text-classification"]
    changed = (await boss.patch(path, json={"tasks": ["translation"], "name": "app"})).json()
    assert (changed["name"], changed["tasks"], changed["expires_at"]) == ("app", ["translation"], old["expires_at"])
    assert await status(server, old["key"]) == 403
    assert (await boss.patch(path, json={"tasks": None, "expires": None})).json()["expires_at"] is None
    answer = await boss.post(path + "/rotate", json={"overlap": "1h"})
    new = answer.json()
    assert answer.status_code == 201
    assert (await boss.get(path)).json()["replaced_by"] == new["id"]
    assert [await status(server, one["key"]) for one in (old, new)] == [200, 200]
    assert (await boss.post(path + "/revoke")).json()["revoked_at"] is not None
    assert [await status(server, one["key"]) for one in (old, new)] == [401, 200]
    acts = [row["act"] for row in (await boss.get("/admin/audit?tenant=zeta")).json()["data"]]
    assert acts == [
        "tenant.create", "key.create", "key.update", "key.update", "key.rotate", "key.create", "key.revoke",
    ]  # fmt: skip


@pytest.mark.usefixtures("slow_engine")
async def test_a_suspended_tenant_is_refused_and_its_stream_stops(server: Running, boss: httpx.AsyncClient) -> None:
    key = (await made(boss))["key"]
    headers = {"authorization": f"Bearer {key}"}
    body = {"model": "tiny-gpt2", "prompt": "one " * 8, "max_tokens": 30, "n": 64, "ignore_eos": True}
    running = asyncio.create_task(server.client.post("/v1/completions", json=body, headers=headers))
    while not server.app.state.serving.engine.stats().running:
        assert not running.done(), running.result().text
        await asyncio.sleep(0.001)
    assert (await boss.post("/admin/tenants/zeta/suspend")).json()["status"] == "suspended"
    ended = await running
    assert (ended.status_code, ended.json()["error"]["code"]) == (401, "key_revoked")
    answer = await server.client.post("/v1/classifications", json=LABEL, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "tenant_suspended")
    await boss.post("/admin/tenants/zeta/resume")
    assert await status(server, key) == 200
    [entry] = [entry for entry in await server.entries() if entry["task"] == "text-generation"]
    assert (entry["outcome"], entry["output_tokens"]) == ("key_revoked", 0), "nothing of a whole answer was delivered"


async def test_tenants_are_made_changed_listed_in_pages_and_erased(server: Running, boss: httpx.AsyncClient) -> None:
    for name in ("a", "b", "c"):
        assert (await boss.post("/admin/tenants", json={"name": name, "weight": 2})).status_code == 201
    assert (await boss.post("/admin/tenants", json={"name": "a"})).status_code == 409
    first = (await boss.get("/admin/tenants?limit=3")).json()
    last = (await boss.get(f"/admin/tenants?limit=3&after={first['data'][-1]['id']}")).json()
    assert (first["has_more"], last["has_more"]) == (True, False)
    assert [one["name"] for one in first["data"] + last["data"]] == ["acme", "a", "b", "c"]
    assert (await boss.patch("/admin/tenants/a", json={"weight": 7})).json()["weight"] == 7
    key = (await made(boss, tenant="a"))["key"]
    assert (await boss.post("/admin/tenants/a/erase", json={"confirm": "b"})).status_code == 400
    erased = (await boss.post("/admin/tenants/a/erase", json={"confirm": "a"})).json()
    assert erased["name"] == "erased-" + erased["id"]
    assert await status(server, key) == 401
    assert (await boss.get("/admin/tenants/a")).status_code == 404
    assert (await boss.get("/admin/audit/verify")).json()["is_sound"]


async def test_a_key_is_bound_to_its_networks_and_only_trusted_proxies_speak_for_others(
    server: Running, boss: httpx.AsyncClient
) -> None:
    far = (await made(boss, networks=["203.0.113.0/24"]))["key"]
    near = (await made(boss, name="near", networks=["127.0.0.0/8"]))["key"]
    forged = {"x-forwarded-for": "203.0.113.9"}
    assert await status(server, near) == 200
    assert [await status(server, far), await status(server, far, forged)] == [403, 403]


async def test_limited_admins_and_customers_may_not(server: Running, boss: httpx.AsyncClient) -> None:
    clerk = await made(boss, name="clerk", is_admin=True, acts=["key.*", "audit.read"])
    headers = {"authorization": f"Bearer {clerk['key']}"}
    assert (await server.client.get("/admin/keys", headers=headers)).status_code == 200
    for method, path, body in (
        ("GET", "/admin/tenants", None),
        ("POST", "/admin/tenants", {"name": "x"}),
        ("GET", "/admin/models", None),
        ("POST", "/admin/models/tiny-marian/unload", None),
        ("POST", "/admin/keys", {"tenant": "zeta", "name": "mighty", "is_admin": True}),
        ("POST", "/admin/tenants/zeta/erase", {"confirm": "zeta"}),
    ):
        answer = await server.client.request(method, path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "key_not_allowed"), path
        assert (await server.client.request(method, path, json=body)).status_code == 403, path
        assert (await server.client.request(method, path, json=body, headers={"authorization": ""})).status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "code", "field"),
    [
        ("/admin/keys", {"tenant": "t", "name": ""}, 400, "name"),
        ("/admin/keys", {"tenant": "t", "name": "n", "networks": ["here"]}, 400, "networks"),
        ("/admin/keys", {"tenant": "t", "name": "n", "tasks": ["juggling"]}, 400, "tasks.0"),
        ("/admin/keys", {"tenant": "t", "name": "n", "expires": "2001-01-01"}, 400, None),
        ("/admin/keys", {"tenant": "t", "name": "n", "colour": 1}, 400, "colour"),
        (
            "/admin/keys",
            {"tenant": "t", "name": "n", "limits": {"tokens_per_minute": 0}},
            400,
            "limits.tokens_per_minute",
        ),
        ("/admin/keys/nobody/rotate", {}, 404, None),
        ("/admin/keys/nobody/revoke", {}, 404, None),
        ("/admin/tenants", {"name": "t", "weight": 0}, 400, "weight"),
        ("/admin/tenants/nobody/suspend", {}, 404, None),
    ],
)
async def test_a_bad_act_says_what_is_wrong_and_leaves_no_trace(
    boss: httpx.AsyncClient, path: str, body: dict[str, Any], code: int, field: str | None
) -> None:
    answer = await boss.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (code, field), answer.text
    assert (await boss.get("/admin/audit")).json()["data"] == []


async def test_models_in_and_out_of_memory_are_written_down(server: Running, boss: httpx.AsyncClient) -> None:
    for act in ("unload", "load"):
        assert (await boss.post(f"/admin/models/tiny-marian/{act}")).status_code == 200
    rows = (await boss.get("/admin/audit")).json()["data"]
    assert [(row["act"], row["target"]) for row in rows] == [
        ("model.unload", "tiny-marian"), ("model.load", "tiny-marian"),
    ]  # fmt: skip
    assert rows[0]["actor"].startswith("key:key_")


async def test_an_operator_reads_why_a_model_could_not_be_loaded_and_a_customer_does_not(
    server: Running, boss: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: object) -> None:
        raise SourceError("tiny-marian: no such GPU")

    assert (await boss.post("/admin/models/tiny-marian/unload")).status_code == 200
    monkeypatch.setattr(server.app.state.serving.residency, "_load", refuse)
    told = await boss.post("/admin/models/tiny-marian/load")
    assert (told.status_code, told.json()["error"]["code"]) == (503, "model_unavailable")
    assert told.json()["error"]["message"] == "The model tiny-marian could not be loaded: tiny-marian: no such GPU"
    theirs = await server.client.post("/v1/translations", json={"model": "tiny-marian", "input": "hello"})
    assert theirs.status_code == 503 and "GPU" not in theirs.text


async def test_a_tampered_row_is_named(server: Running, boss: httpx.AsyncClient) -> None:
    await made(boss)
    assert (await boss.get("/admin/audit/verify")).json()["faults"] == []
    await server.database.run(lambda c: c.execute(audit_log.update().values(actor="somebody else")))
    verdict = (await boss.get("/admin/audit/verify")).json()
    assert not verdict["is_sound"]
    assert "row 1 was changed" in verdict["faults"][0]


async def test_last_use_is_shown_without_a_write_in_the_request(server: Running, boss: httpx.AsyncClient) -> None:
    key = await made(boss)
    assert await status(server, key["key"]) == 200
    assert (await boss.get(f"/admin/keys/{key['id']}")).json()["last_used_at"] is None
    await server.app.state.serving._authenticator.note_uses()
    assert (await boss.get(f"/admin/keys/{key['id']}")).json()["last_used_at"] is not None


async def test_ten_thousand_keys_are_looked_up_by_index(server: Running) -> None:
    home, clock = server.database.path.parent, SystemClock()
    pepper = Pepper(home)

    def fill(connection: Any) -> str:
        for number in range(2000):
            create_key(connection, clock=clock, pepper=pepper, tenant_name="many", name=f"k{number}")
        return create_key(connection, clock=clock, pepper=pepper, tenant_name="many", name="last").key

    key = await server.database.run(fill)
    assert await status(server, key) == 200
    look_up = "SELECT * FROM api_key JOIN tenant ON tenant.id = api_key.tenant_id WHERE digest = x'00'"
    plan = await server.database.run(lambda c: str(c.exec_driver_sql(f"EXPLAIN QUERY PLAN {look_up}").all()))
    assert "SCAN" not in plan
    assert "uq_api_key_digest" in plan or "sqlite_autoindex_api_key" in plan


async def test_the_routes_are_documented_with_examples(boss: httpx.AsyncClient) -> None:
    paths = (await boss.get("/openapi.json")).json()["paths"]
    admin = {path: methods for path, methods in paths.items() if path.startswith("/admin/") and "models" not in path}
    assert len(admin) >= 13
    for path, methods in admin.items():
        for method, said in methods.items():
            assert said["summary"], path
            if method in ("put", "patch") or "requestBody" in said:
                schema = said["requestBody"]["content"]["application/json"]["schema"]
                assert schema["examples"], path
                assert "$ref" not in str(schema), path

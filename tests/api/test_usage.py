"""Usage as customers and operators read it, the latter with OpenAI's own SDK."""

import csv
import io
import time
from typing import Any

from openai import AsyncOpenAI

from tests.fixtures.server import Running, make_key
from tests.test_money import BODY, sell


async def use(server: Running) -> None:
    """Two completions and a classification of acme, a completion of another."""
    other = await make_key(server.database, server.database.path.parent, name="x", tenant="other")
    for key in (server.key, server.key, other):
        body = BODY | {"max_tokens": 5}
        headers = {"authorization": f"Bearer {key}"}
        assert (await server.client.post("/v1/completions", json=body, headers=headers)).status_code == 200
    label = {"model": "tiny-bert-classifier", "input": "hello world"}
    assert (await server.client.post("/v1/classifications", json=label)).status_code == 200


async def test_the_openai_sdk_reads_usage_and_costs(server: Running) -> None:
    await sell(server, balance_nano=10_000)
    await use(server)
    start = int(time.time()) - 86_400
    async with AsyncOpenAI(base_url=server.url + "/v1", admin_api_key=server.admin_key, api_key="none") as client:
        usage = client.admin.organization.usage
        page = await usage.completions(start_time=start, group_by=["project_id", "model"], bucket_width="1d")
        found = [(r.model, r.input_tokens, r.output_tokens, r.num_model_requests) for b in page.data for r in b.results]  # pyright: ignore
        assert sorted(found) == [("tiny-gpt2", 3, 5, 1), ("tiny-gpt2", 6, 10, 2)]
        for width in ("1h", "1m"):
            some = await usage.completions(start_time=int(time.time()) - 60, bucket_width=width, models=["tiny-gpt2"])  # pyright: ignore
            assert sum(r.output_tokens for b in some.data for r in b.results) == 15  # pyright: ignore
        assert not [r for b in (await usage.embeddings(start_time=start)).data for r in b.results]
        costs = await usage.costs(start_time=start, group_by=["line_item"])
        amounts = {r.line_item: r.amount.value for b in costs.data for r in b.results}  # pyright: ignore
        assert amounts == {"tiny-gpt2": 39e-9, "tiny-bert-classifier": 0.0}
        pages, cursor = [], None
        while True:
            more: dict[str, Any] = {} if cursor is None else {"page": cursor}
            one = await usage.completions(start_time=start, limit=1, **more)
            pages += one.data
            cursor = one.next_page
            if not one.has_more:
                break
        assert len(pages) == 2
        assert sum(r.num_model_requests for b in pages for r in b.results) == 3  # pyright: ignore


async def test_usage_of_all_is_for_admins(server: Running) -> None:
    for path in ("/v1/organization/usage/completions", "/v1/organization/costs"):
        assert (await server.client.get(path, params={"start_time": 0})).status_code == 403
    boss = {"authorization": f"Bearer {server.admin_key}"}
    bad = [({"start_time": 0, "group_by": "colour"}, "group_by"), ({"start_time": 0, "page": "x"}, "page")]
    for params, field in bad:
        answer = await server.client.get("/v1/organization/usage/completions", params=params, headers=boss)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    assert (await server.client.get("/v1/organization/usage/completions", headers=boss)).status_code == 400


async def test_a_customer_sees_its_own_usage_only(server: Running) -> None:
    await sell(server, balance_nano=10_000)
    await use(server)
    start = int(time.time()) - 3600
    page = (await server.client.get("/v1/usage", params={"start_time": start})).json()
    rows = {row["model"]: row for bucket in page["data"] for row in bucket["results"]}
    assert rows["tiny-gpt2"]["requests"] == 2
    assert (rows["tiny-gpt2"]["cost"], page["balance"]) == ("0.000000026", "0.000009974")
    params = {"start_time": start, "format": "csv"}
    text = (await server.client.get("/v1/usage/entries", params=params)).text
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["cost_nano"] for line in lines] == ["13", "13", "0"]
    listed = (await server.client.get("/v1/usage/entries", params={"start_time": start})).json()["data"]
    assert [one["request_id"] for one in listed] == [line["request_id"] for line in lines]


async def test_an_estimate_is_what_the_request_then_costs_and_leaves_no_entry(server: Running) -> None:
    await sell(server, balance_nano=20)
    asked = {"model": "tiny-gpt2", "input": "hello world", "max_tokens": 5}
    found = (await server.client.post("/v1/estimate", json=asked)).json()
    assert await server.entries() == []
    body = {"model": "tiny-gpt2", "prompt": "hello world", "max_tokens": 5, "ignore_eos": True}
    usage = (await server.client.post("/v1/completions", json=body)).json()["usage"]
    assert found["input_tokens"] == usage["prompt_tokens"]
    assert (found["cost_nano_max"], found["is_covered"]) == (usage["cost_nano"], True)
    assert (await server.client.post("/v1/estimate", json=asked)).json()["is_covered"] is False
    ask = {"model": "tiny-bert-qa", "input": "who?", "context": "i am clara"}
    assert (await server.client.post("/v1/estimate", json=ask)).json()["cost_max"] == "0"
    for model in ("tiny-bert-classifier", "tiny-marian"):
        answer = await server.client.post("/v1/estimate", json={"model": model, "input": "hello"})
        assert answer.json()["input_tokens"] > 0


async def test_an_invoice_sums_a_month(server: Running) -> None:
    await sell(server, balance_nano=10_000)
    await use(server)
    boss = {"authorization": f"Bearer {server.admin_key}"}
    month = time.strftime("%Y-%m", time.gmtime())
    path = f"/v1/organization/invoices/acme/{month}"
    found = (await server.client.get(path, headers=boss)).json()
    assert (found["total"], found["is_final"]) == ("0.000000026", False)
    assert [(line["model"], line["requests"]) for line in found["lines"]] == [
        ("tiny-bert-classifier", 1),
        ("tiny-gpt2", 2),
    ]
    page = (await server.client.get(path, params={"format": "html"}, headers=boss)).text
    assert "0.000000026" in page and "preview" in page
    text = (await server.client.get(path, params={"format": "csv"}, headers=boss)).text
    assert text.splitlines()[-1].endswith("0.000000026")
    assert (await server.client.get("/v1/organization/invoices/acme/2026-13", headers=boss)).status_code == 400
    assert (await server.client.get(path)).status_code == 403

"""Money over real HTTP: prices, budgets, receipts, and a stream that ends with the last token that is paid for."""

import json
from typing import Any

from openai import AsyncOpenAI, RateLimitError

from app.clock import SystemClock
from app.metering.budgets import add_money, list_budgets
from app.metering.money import Meter
from app.metering.prices import set_price
from tests.fixtures.server import Running, make_key

CLOCK = SystemClock()
BODY: dict[str, Any] = {"model": "tiny-gpt2", "prompt": [5, 6, 7], "max_tokens": 60, "ignore_eos": True}


async def sell(server: Running, *, balance_nano: int) -> None:
    """An input token costs 1 nano, an output token 2; acme has so much."""
    for meter, pico in ((Meter.INPUT_TOKEN, 1000), (Meter.OUTPUT_TOKEN, 2000)):
        await server.database.run(
            lambda c, meter=meter, pico=pico: set_price(
                c, clock=CLOCK, model="tiny-gpt2", task="text-generation", meter=meter, pico_per_unit=pico
            )
        )
    await top_up(server, balance_nano)


async def top_up(server: Running, amount_nano: int) -> None:
    await server.database.run(lambda c: add_money(c, clock=CLOCK, tenant_name="acme", amount_nano=amount_nano))


async def test_an_answer_tells_its_cost_and_what_is_left_and_its_receipt_says_the_same(server: Running) -> None:
    await sell(server, balance_nano=1000)
    answer = await server.client.post("/v1/completions", json=BODY | {"max_tokens": 5})
    assert answer.headers["x-tollgate-cost"] == "0.000000013"
    assert answer.headers["x-tollgate-balance"] == "0.000000987"
    assert (answer.json()["usage"]["cost_nano"], answer.json()["usage"]["balance_nano"]) == (13, 987)
    receipt = (await server.client.get("/v1/requests/" + answer.headers["x-request-id"])).json()
    assert (receipt["status"], receipt["cost_nano"], receipt["output_tokens"]) == ("settled", 13, 5)
    assert receipt["prices"] == {"input_token": 1000, "output_token": 2000}
    assert (await server.client.get("/v1/requests/req_nothing")).status_code == 404


async def test_another_tenant_does_not_see_the_receipt(server: Running) -> None:
    answer = await server.client.post("/v1/completions", json=BODY | {"max_tokens": 1})
    stranger = await make_key(server.database, server.database.path.parent, name="x", tenant="other")
    headers = {"authorization": f"Bearer {stranger}"}
    path = "/v1/requests/" + answer.headers["x-request-id"]
    assert (await server.client.get(path, headers=headers)).status_code == 404


async def test_an_empty_budget_is_a_429_that_clients_do_not_retry_until_it_is_topped_up(server: Running) -> None:
    await sell(server, balance_nano=10)
    answer = await server.client.post("/v1/completions", json=BODY)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (429, "insufficient_quota", "insufficient_quota")
    assert answer.headers["x-should-retry"] == "false"
    async with AsyncOpenAI(base_url=server.url + "/v1", api_key=server.key, max_retries=5) as client:
        try:
            await client.completions.create(model="tiny-gpt2", prompt="x")
            raise AssertionError("it is refused")
        except RateLimitError as refused:
            assert refused.code == "insufficient_quota"
    await top_up(server, 1000)
    assert (await server.client.post("/v1/completions", json=BODY)).status_code == 200
    assert len(await server.entries()) == 1


async def test_a_stream_ends_at_the_last_token_that_its_budget_covers(server: Running) -> None:
    await sell(server, balance_nano=3 + 2 * 64 + 2 * 7 + 1)
    tokens, last = 0, dict[str, Any]()
    body = BODY | {"n": 2, "max_tokens": 60, "stream": True, "logprobs": 0, "stream_options": {"include_usage": True}}
    async with server.client.stream("POST", "/v1/completions", json=body) as stream:
        assert stream.status_code == 200
        reasons: list[tuple[str, str | None]] = []
        async for line in stream.aiter_lines():
            if not line.startswith("data: {"):
                continue
            last = json.loads(line[6:])
            for choice in last["choices"]:
                tokens += len((choice["logprobs"] or {"tokens": []})["tokens"])
                if choice["finish_reason"]:
                    reasons.append((choice["finish_reason"], choice.get("cause")))
    assert tokens == 71
    assert ("length", "insufficient_quota") in reasons and len(reasons) == 2
    assert (last["usage"]["completion_tokens"], last["usage"]["cost_nano"]) == (71, 145)
    assert last["usage"]["balance_nano"] == 1
    [budget] = await server.database.run(lambda c: list_budgets(c, clock=CLOCK))
    assert (budget.spent_nano, budget.held_nano) == (145, 0)


async def test_a_hung_up_request_never_costs_more_than_was_held(server: Running) -> None:
    await sell(server, balance_nano=3 + 2 * 10)
    async with server.client.stream(
        "POST", "/v1/completions", json=BODY | {"max_tokens": 10, "stream": True}
    ) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data:"):
                break
    (entry,) = await server.settled(1)
    [budget] = await server.database.run(lambda c: list_budgets(c, clock=CLOCK))
    assert (budget.spent_nano, budget.held_nano) == (entry["cost_nano"], 0)
    assert budget.available_nano >= 0

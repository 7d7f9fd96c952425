"""Customers who try to have more than they pay for, and prices, keys and budgets that change beneath a running text."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.clock import SystemClock
from app.metering.budgets import BudgetState, add_money, list_budgets
from app.metering.keys import Pepper, rotate_key
from app.metering.money import Meter
from app.metering.prices import set_price
from app.metering.tables import hold
from app.metering.verify import drifts
from tests.fixtures.server import PATIENCE_S, Running

CLOCK = SystemClock()
PRICE = 10
"""Nano-units a token, read or written."""
PATH = "/v1/completions"
BODY: dict[str, Any] = {
    "model": "tiny-gpt2",
    "prompt": [5, 6, 7],
    "max_tokens": 50,
    "temperature": 0,
    "ignore_eos": True,
}
READ = len(BODY["prompt"])


async def price(server: Running, nano: int, *, from_us: int | None = None) -> None:
    for meter in (Meter.INPUT_TOKEN, Meter.OUTPUT_TOKEN):
        await server.database.run(
            lambda c, meter=meter: set_price(
                c, clock=CLOCK, model="tiny-gpt2", task="text-generation", meter=meter, pico_per_unit=nano * 1000,
                effective_us=from_us,
            )
        )  # fmt: skip


async def money(server: Running, nano: int, key: str | None = None) -> None:
    await server.database.run(lambda c: add_money(c, clock=CLOCK, tenant_name="acme", amount_nano=nano, key=key))


async def books(server: Running) -> BudgetState:
    """The one budget, once nothing runs; what was spent is the sum of the entries."""
    give_up_s = time.monotonic() + PATIENCE_S
    while held := await server.database.run(lambda c: c.execute(select(hold.c.request_id)).all()):
        assert time.monotonic() < give_up_s, held
        await asyncio.sleep(0.02)
    assert await server.database.run(lambda c: list(drifts(c))) == []
    [found] = await server.database.run(lambda c: list_budgets(c, clock=CLOCK))
    assert (found.held_nano, found.spent_nano) == (0, sum(one["cost_nano"] for one in await server.entries()))
    assert found.available_nano >= 0
    return found


async def ask(server: Running, **more: Any) -> httpx.Response:
    return await server.client.post(PATH, json=BODY | more)


async def chunks(stream: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in stream.aiter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


@pytest.fixture
async def shop(server: Running) -> Running:
    """The server, with prices."""
    await price(server, PRICE, from_us=0)
    return server


@pytest.mark.parametrize("is_streaming", [False, True])
async def test_every_choice_is_charged_to_its_stop_string_and_no_further(shop: Running, is_streaming: bool) -> None:
    await money(shop, 10_000)
    plain = {"prompt": "hello", "max_tokens": 30, "ignore_eos": False}
    whole = (await ask(shop, **plain)).json()["choices"][0]["text"]
    asked = plain | {"n": 3, "stop": [whole[4:7], "never written"], "stream": is_streaming}
    answer = await ask(shop, **asked, stream_options={"include_usage": True} if is_streaming else None)
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    usage = (json.loads(lines[-1]) if is_streaming else answer.json())["usage"]
    _, entry = await shop.settled(2)
    assert entry["output_tokens"] == usage["completion_tokens"] and entry["output_tokens"] % 3 == 0
    assert 0 < entry["output_tokens"] < 3 * 30
    assert entry["cost_nano"] == usage["cost_nano"] == PRICE * (entry["input_tokens"] + entry["output_tokens"])
    await books(shop)


async def test_reading_alone_is_charged_and_needs_money(shop: Running) -> None:
    await money(shop, PRICE * READ)
    only = {"echo": True, "max_tokens": 0, "logprobs": 1}
    assert (await ask(shop, **only)).json()["usage"]["cost_nano"] == PRICE * READ
    refused = await ask(shop, **only)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    assert (await books(shop)).available_nano == 0


@pytest.mark.parametrize("is_streaming", [False, True])
@pytest.mark.parametrize("choices", [1, 2])
async def test_a_long_text_on_a_small_balance_ends_with_the_last_token_that_is_paid(
    shop: Running, is_streaming: bool, choices: int
) -> None:
    held = 64
    await money(shop, PRICE * (READ + held + 5))
    asked = {"n": choices, "max_tokens": 60, "stream": is_streaming, "prompt": BODY["prompt"]}
    answer = await ask(shop, **asked)
    assert answer.status_code == 200, answer.text
    (entry,) = await shop.settled(1)
    assert entry["output_tokens"] == min(held + 5, 60 * choices)
    assert ("insufficient_quota" in answer.text) == (choices == 2)
    await books(shop)


async def test_hang_ups_at_any_moment_pay_for_what_arrived_and_hold_nothing(shop: Running) -> None:
    await money(shop, 100_000)
    received: dict[str, int] = {}

    async def customer(place: int) -> None:
        asked = BODY | {"stream": place % 3 != 0, "n": 1 + place % 2, "logprobs": 1 if place % 5 == 0 else None}
        leave_s = 0.03 * place
        try:
            async with asyncio.timeout(leave_s), shop.client.stream("POST", PATH, json=asked) as stream:
                name = stream.headers["x-tollgate-request-id"]
                received[name] = 0
                async for chunk in chunks(stream):
                    received[name] += any(choice["text"] for choice in chunk["choices"])
        except TimeoutError:
            pass

    await asyncio.gather(*(customer(place) for place in range(40)))
    await books(shop)
    charged = {entry["request_id"]: entry["output_tokens"] for entry in await shop.entries()}
    assert received
    assert all(charged[name] >= tokens for name, tokens in received.items())


async def test_a_price_that_changes_beneath_a_text_holds_for_the_next_one(shop: Running) -> None:
    await money(shop, 100_000)
    async with shop.client.stream("POST", PATH, json=BODY | {"stream": True}) as stream:
        texts = chunks(stream)
        await anext(texts)
        await price(shop, 7 * PRICE)
        async for _ in texts:
            pass
    again = await ask(shop)
    costs = [entry["cost_nano"] for entry in await shop.settled(2)]
    assert costs == [PRICE * (READ + 50), 7 * PRICE * (READ + 50)]
    assert again.json()["usage"]["cost_nano"] == costs[1]
    await books(shop)


async def test_a_repetition_after_a_price_has_risen_is_the_first_answer_at_the_first_price(shop: Running) -> None:
    await money(shop, 10_000)
    headers = {"idempotency-key": "k"}
    first = await shop.client.post(PATH, json=BODY, headers=headers)
    await price(shop, 7 * PRICE)
    again = await shop.client.post(PATH, json=BODY, headers=headers)
    assert again.content == first.content and again.headers["idempotency-replayed"] == "true"
    assert [entry["cost_nano"] for entry in await shop.entries()] == [PRICE * (READ + 50)]
    await books(shop)


@pytest.mark.usefixtures("slow_engine")
async def test_a_rotated_key_takes_its_budget_along_and_stays_bound_itself(shop: Running, tmp_path: Path) -> None:
    """Neither a fresh key nor the overlap is a way out of a key's own budget, also when it is rotated twice."""
    await money(shop, PRICE * (READ + 50) * 3, key="first")
    pepper, keys = Pepper(tmp_path), [shop.key]
    async with shop.client.stream("POST", PATH, json=BODY | {"stream": True}) as stream:
        texts = chunks(stream)
        await anext(texts)
        for _ in range(2):
            made = await shop.database.run(
                lambda c: rotate_key(c, clock=CLOCK, pepper=pepper, key="first", overlap_us=3_600_000_000)
            )
            keys.append(made.key)
        assert len([chunk async for chunk in texts]) > 1, "what runs goes on"
    answers = [
        await shop.client.post(PATH, json=BODY, headers={"authorization": f"Bearer {key}"})
        for key in (keys[2], keys[0], *keys)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429, 429]
    assert (await books(shop)).available_nano == 0


async def test_top_ups_beneath_a_crowd_are_spent_to_the_last_token_and_no_further(shop: Running) -> None:
    one = PRICE * (READ + 50)
    await money(shop, one)

    async def top_ups() -> None:
        for _ in range(5):
            await asyncio.sleep(0.02)
            await money(shop, one)

    answers, _ = await asyncio.gather(asyncio.gather(*(ask(shop) for _ in range(30))), top_ups())
    assert {answer.status_code for answer in answers} <= {200, 429}
    found = await books(shop)
    assert found.limit_nano == 6 * one
    while (await ask(shop)).status_code == 200:
        pass
    assert (await books(shop)).available_nano < one

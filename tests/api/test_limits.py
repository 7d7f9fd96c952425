"""Rate limits over real HTTP: headers that real clients parse, refusals that they obey."""

import asyncio
from typing import Any, cast

import httpx
import pytest
from huggingface_hub.utils import parse_ratelimit_headers  # pyright: ignore[reportPrivateImportUsage]
from openai import AsyncOpenAI, BadRequestError, RateLimitError

from app.admission.buckets import Limit, What
from app.admission.limits import Standing
from app.api.limits import go_duration, limit_headers
from tests.fixtures.server import Running

ASKED: dict[str, Any] = {"model": "tiny-gpt2", "prompt": "hello world", "max_tokens": 5, "ignore_eos": True}
SIMPLE = {name: value for name, value in ASKED.items() if name != "ignore_eos"}
CALLS = [
    ("/v1/completions", ASKED),
    ("/v1/completions", ASKED | {"stream": True}),
    ("/v1/classifications", {"model": "tiny-bert-classifier", "input": "one"}),
    ("/v1/translations", {"model": "tiny-marian", "input": "hello"}),
    ("/v1/answers", {"model": "tiny-bert-qa", "question": "who?", "context": "clara"}),
    ("/v1/completions", {"model": "nobody", "prompt": "x"}),
    ("/v1/classifications", {"input": 3}),
]
HEADERS = [f"x-ratelimit-{part}-{what}" for part in ("limit", "remaining", "reset") for what in ("requests", "tokens")]

LIMITED = 'tollgate_requests_limited_total{limit="concurrent"}'
WAIT_S = 30.0


async def limit(server: Running, **limits: int) -> None:
    boss = {"authorization": f"Bearer {server.admin_key}"}
    answer = await server.client.put("/admin/tenants/acme/limits", json=limits, headers=boss)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(("path", "body"), CALLS)
async def test_every_answer_tells_how_the_limits_stand(server: Running, path: str, body: dict[str, Any]) -> None:
    await limit(server, requests_per_minute=3, tokens_per_minute=6000)  # three: none comes back while one runs
    answer = await server.client.post(path, json=body)
    assert [name for name in HEADERS if name not in answer.headers] == []
    assert answer.headers["x-ratelimit-limit-requests"] == "3"
    is_run = answer.status_code == 200
    assert answer.headers["x-ratelimit-remaining-requests"] == ("2" if is_run else "3")
    parsed = parse_ratelimit_headers(cast("Any", answer.headers))
    assert parsed is not None
    assert parsed.resource_type in ("requests", "tokens")
    assert (parsed.limit, parsed.window_seconds) in ((3, 60), (6000, 60))


async def test_the_unused_part_of_the_reservation_comes_back(server: Running) -> None:
    await limit(server, tokens_per_minute=120)
    stop = (await server.client.post("/v1/completions", json=ASKED | {"max_tokens": 40, "temperature": 0})).json()
    body = ASKED | {"max_tokens": 40, "temperature": 0, "stop": stop["choices"][0]["text"][2:4]}
    answer = await server.client.post("/v1/completions", json=body)
    spent = sum(entry["input_tokens"] + entry["output_tokens"] for entry in await server.entries())
    assert spent < 2 * (40 + 5)
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) == pytest.approx(120 - spent, abs=25)


async def test_the_openai_client_sees_a_rate_limit_and_waits_as_it_is_told(server: Running) -> None:
    await limit(server, requests_per_minute=60)
    for _ in range(60):
        await server.client.post("/v1/classifications", json=CALLS[2][1])
    async with AsyncOpenAI(base_url=server.url + "/v1", api_key=server.key, max_retries=0) as client:
        with pytest.raises(RateLimitError) as refused:
            for _ in range(60):  # as many as are filled in again while the sixty above are served, and no end
                await client.completions.create(**SIMPLE)
        assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "requests")
        headers = refused.value.response.headers
        assert 0 < int(headers["retry-after-ms"]) <= 1000
        assert headers["retry-after"] == "1"
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert "ratelimit-policy" in headers
    async with AsyncOpenAI(base_url=server.url + "/v1", api_key=server.key, max_retries=3) as patient:
        assert (await patient.completions.create(**SIMPLE)).choices[0].text


async def test_tokens_and_streams_are_limited_with_their_own_type(server: Running) -> None:
    await limit(server, tokens_per_minute=60)
    body = ASKED | {"prompt": [5, 6, 7], "max_tokens": 50}
    assert (await server.client.post("/v1/completions", json=body)).status_code == 200
    refused = await server.client.post("/v1/completions", json=body | {"stream": True})
    assert refused.status_code == 429
    assert (refused.json()["error"]["type"], refused.json()["error"]["code"]) == ("tokens", "rate_limit_exceeded")
    assert 30_000 < int(refused.headers["retry-after-ms"]) < 60_000
    assert len(await server.entries()) == 1, "a refusal is not charged"


async def test_what_can_never_run_is_no_429_that_clients_would_repeat(server: Running) -> None:
    await limit(server, tokens_per_minute=20)
    async with AsyncOpenAI(base_url=server.url + "/v1", api_key=server.key) as client:
        with pytest.raises(BadRequestError, match="can never run") as refused:
            await client.completions.create(model="tiny-gpt2", prompt="hello", max_tokens=40)
        assert (refused.value.code, refused.value.param) == ("request_exceeds_rate_limit", "max_tokens")
    answer = await server.client.post("/v1/translations", json={"model": "tiny-marian", "input": "hello"})
    assert answer.status_code == 200, "an output that the caller cannot choose is held as far as the bucket is large"


async def test_so_many_at_once_and_no_more_and_a_hang_up_frees_the_place(server: Running) -> None:
    await limit(server, concurrent_requests=2)
    long = ASKED | {"prompt": "one " * 8, "max_tokens": 40, "n": 16}

    async def keep_a_place() -> None:
        while True:
            await server.client.post("/v1/completions", json=long)

    async def statuses() -> list[int]:
        answers = await asyncio.gather(*(server.client.post("/v1/completions", json=ASKED) for _ in range(2)))
        return [answer.status_code for answer in answers]

    keeping = [asyncio.create_task(keep_a_place()) for _ in range(2)]
    async with asyncio.timeout(WAIT_S):
        while (refused := await server.client.post("/v1/completions", json=ASKED)).status_code == 200:
            pass
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert "2 requests running" in refused.json()["error"]["message"]
    for task in keeping:
        task.cancel()
    async with asyncio.timeout(WAIT_S):
        while await statuses() != [200, 200]:
            pass
    text = (await server.client.get("/metrics")).text
    (counted,) = [line for line in text.splitlines() if line.startswith(LIMITED)]
    assert float(counted.removeprefix(LIMITED)) >= 1


async def test_a_limit_that_is_raised_holds_at_once(server: Running) -> None:
    await limit(server, requests_per_minute=1)
    assert (await server.client.post("/v1/completions", json=ASKED)).status_code == 200
    assert (await server.client.post("/v1/completions", json=ASKED)).status_code == 429
    await limit(server, requests_per_minute=60_000)
    await asyncio.sleep(0.01)
    assert (await server.client.post("/v1/completions", json=ASKED)).status_code == 200


async def test_a_strangers_answer_has_no_limits(server: Running) -> None:
    answer = await server.client.post("/v1/completions", json=ASKED, headers={"authorization": ""})
    assert not any("ratelimit" in name for name in answer.headers)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0115, "12ms"), (1, "1s"), (8.64, "8.64s"), (59.9999, "1m0s"), (360, "6m0s"), (3600.5, "1h0m0.5s")],
)
def test_durations_are_written_as_go_writes_them(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


def test_of_two_limits_the_tighter_is_shown_and_comes_first() -> None:
    def stands(scope: str, what: What, amount: int, remaining: int) -> Standing:
        return Standing(Limit(scope, what, amount), remaining, 30.0)

    headers = limit_headers(
        [
            stands("key", What.REQUESTS, 10, 9),
            stands("tenant", What.REQUESTS, 100, 3),
            stands("tenant", What.TOKENS, 1000, 500),
            stands("tenant", What.CONCURRENT, 5, 0),
        ]
    )
    assert headers["x-ratelimit-limit-requests"] == "100"
    assert headers["ratelimit"] == '"requests";r=3;t=30, "tokens";r=500;t=30'
    assert headers["ratelimit-policy"] == '"requests";q=100;w=60, "tokens";q=1000;w=60'
    parsed = parse_ratelimit_headers(cast("Any", httpx.Headers(headers)))
    assert parsed is not None
    assert (parsed.remaining, parsed.limit) == (3, 100)

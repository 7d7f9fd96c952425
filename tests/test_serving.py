"""The road over real HTTP: each task, what it counts, and every way to break it off."""

import asyncio
import json
from typing import Any

import pytest
from openai import AsyncOpenAI, AuthenticationError, BadRequestError, NotFoundError

from app.clock import SystemClock
from app.metering.keys import revoke_key
from tests.fixtures.server import Running, make_key

CALLS: list[tuple[str, dict[str, Any], str, int]] = [
    ("/v1/completions", {"model": "tiny-gpt2", "prompt": "hello world", "max_tokens": 5}, "text-generation", 5),
    ("/v1/classifications", {"model": "tiny-bert-classifier", "input": ["one", "two"]}, "text-classification", 0),
    ("/v1/answers", {"model": "tiny-bert-qa", "question": "who?", "context": "i am clara"}, "question-answering", 0),
]


@pytest.mark.parametrize(("path", "body", "task", "output_tokens"), CALLS)
async def test_each_task_answers_and_leaves_one_entry(
    server: Running, path: str, body: dict[str, Any], task: str, output_tokens: int
) -> None:
    answer = await server.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    (entry,) = await server.entries()
    assert (entry["task"], entry["outcome"], entry["output_tokens"]) == (task, "finished", output_tokens)
    assert entry["input_tokens"] > 0
    assert entry["request_id"] == answer.headers["x-request-id"]
    usage = answer.json()["usage"]
    assert entry["input_tokens"] == usage.get("input_tokens", usage.get("prompt_tokens"))


async def test_a_translation_keeps_its_lines(server: Running) -> None:
    body = {"model": "tiny-marian", "input": ["hello world. one two.\n\ngood morning", "nine"], "source": "en"}
    answer = (await server.client.post("/v1/translations", json=body)).json()
    assert [one["index"] for one in answer["data"]] == [0, 1]
    assert answer["data"][0]["text"].count("\n\n") == 1
    (entry,) = await server.entries()
    assert entry["output_tokens"] == answer["usage"]["output_tokens"] > 0


async def test_the_openai_client_streams_what_it_gets_whole(server: Running) -> None:
    async with AsyncOpenAI(base_url=server.url + "/v1", api_key=server.key, max_retries=0) as client:
        asked: dict[str, Any] = {
            "model": "tiny-gpt2", "prompt": "my name is", "max_tokens": 20, "seed": 3, "n": 2, "logprobs": 2,
        }  # fmt: skip
        whole = await client.completions.create(**asked)
        texts, reasons, usage = {0: "", 1: ""}, {}, None
        stream = await client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.text
                reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
            usage = chunk.usage or usage
        assert texts == {choice.index: choice.text for choice in whole.choices}
        assert reasons == {choice.index: choice.finish_reason for choice in whole.choices}
        assert usage is not None and whole.usage is not None
        assert usage.completion_tokens == whole.usage.completion_tokens
        assert "tiny-gpt2" in [model.id async for model in client.models.list()]
    first, second = await server.entries()
    assert first["output_tokens"] == second["output_tokens"] == usage.completion_tokens
    assert first["input_tokens"] == usage.prompt_tokens


async def test_an_evaluation_harness_reads_the_scores_of_its_own_tokens(server: Running) -> None:
    ids = [[5, 6, 7, 8, 9], [11, 12]]
    body = {"model": "tiny-gpt2", "prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
    answer = (await server.client.post("/v1/completions", json=body)).json()
    for choice, prompt in zip(answer["choices"], ids, strict=True):
        found = choice["logprobs"]
        assert len(found["tokens"]) == len(prompt) + 1
        assert "".join(found["tokens"]) == choice["text"]
        assert (found["token_logprobs"][0], found["top_logprobs"][0]) == (None, None)
        for text, logprob, top in list(zip(*list(found.values())[:3], strict=True))[1:]:
            assert top[text] >= logprob
            assert 1 <= len(top) <= 2
        assert found["token_logprobs"][-1] == max(found["top_logprobs"][-1].values()), "greedy, by float equality"
    scored = (await server.client.post("/v1/completions", json=body | {"max_tokens": 0, "prompt": ids[0]})).json()
    assert scored["choices"][0]["logprobs"]["token_logprobs"] == answer["choices"][0]["logprobs"]["token_logprobs"][:-1]
    assert scored["usage"]["completion_tokens"] == 0
    refused = await server.client.post("/v1/completions", json=body | {"max_tokens": 0, "echo": False})
    assert refused.status_code == 400
    counts = [(entry["input_tokens"], entry["output_tokens"]) for entry in await server.entries()]
    assert counts == [(7, 2), (5, 0)]


async def test_a_stop_string_ends_text_and_count(server: Running) -> None:
    body = {"model": "tiny-gpt2", "prompt": "hello", "max_tokens": 30, "temperature": 0}
    whole = (await server.client.post("/v1/completions", json=body)).json()["choices"][0]["text"]
    stop = whole[4:7]
    answer = (await server.client.post("/v1/completions", json=body | {"stop": stop})).json()
    assert answer["choices"][0]["text"] == whole[: whole.index(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"
    _, entry = await server.entries()
    assert entry["output_tokens"] == answer["usage"]["completion_tokens"] < 30


async def test_a_hung_up_stream_stops_and_is_counted_once(server: Running) -> None:
    body = {"model": "tiny-gpt2", "prompt": "one", "max_tokens": 60, "stream": True, "ignore_eos": True}
    async with server.client.stream("POST", "/v1/completions", json=body) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data:"):
                break
    (entry,) = await server.settled(1)
    assert entry["outcome"] in ("cancelled", "finished")
    assert 1 <= entry["output_tokens"] <= 60
    assert entry["input_tokens"] > 0
    assert server.app.state.serving.engine.stats().running == 0


@pytest.mark.usefixtures("slow_engine")
async def test_a_waiting_json_request_that_is_hung_up_stops(server: Running) -> None:
    body = {"model": "tiny-gpt2", "prompt": "one " * 8, "max_tokens": 40, "n": 64, "ignore_eos": True}
    task = asyncio.create_task(server.client.post("/v1/completions", json=body))
    while not server.app.state.serving.engine.stats().running:
        assert not task.done(), task.result().text
        await asyncio.sleep(0.001)
    task.cancel()
    (entry,) = await server.settled(1)
    assert entry["outcome"] == "cancelled"
    assert entry["output_tokens"] < 64 * 40


async def test_a_revoked_key_is_refused_within_two_seconds(server: Running) -> None:
    await server.database.run(lambda connection: revoke_key(connection, clock=SystemClock(), key="first"))
    for _ in range(40):
        answer = await server.client.get("/v1/models")
        if answer.status_code == 401:
            break
        await asyncio.sleep(0.05)
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "revoked" in answer.json()["error"]["message"]


async def test_the_openai_client_raises_its_own_errors(server: Running) -> None:
    async with AsyncOpenAI(base_url=server.url + "/v1", api_key="sk-wrong", max_retries=0) as stranger:
        with pytest.raises(AuthenticationError):
            await stranger.completions.create(model="tiny-gpt2", prompt="x")
    async with AsyncOpenAI(base_url=server.url + "/v1", api_key=server.key, max_retries=0) as client:
        with pytest.raises(NotFoundError):
            await client.completions.create(model="other", prompt="x")
        with pytest.raises(BadRequestError) as refused:
            await client.completions.create(model="tiny-gpt2", prompt="one " * 200)
        assert refused.value.code == "context_length_exceeded"
        with pytest.raises(BadRequestError):
            await client.completions.create(model="tiny-gpt2", prompt="x", max_tokens=500, stream=True)
    assert await server.entries() == []


PROMPT = {"model": "tiny-gpt2", "prompt": "x"}
LABEL = {"model": "tiny-bert-classifier", "input": "x"}
ASK = {"model": "tiny-bert-qa", "question": ["a", "b"], "context": "c"}
BAD: list[tuple[str, dict[str, Any], int, str, str | None]] = [
    ("/v1/completions", {"model": "tiny-gpt2", "prompt": ""}, 400, "empty_input", "prompt.0"),
    ("/v1/completions", PROMPT | {"temperature": -1}, 400, "invalid_request", "temperature"),
    ("/v1/completions", PROMPT | {"top_p": 2}, 400, "invalid_request", "top_p"),
    ("/v1/completions", PROMPT | {"max_tokens": 10**9}, 400, "invalid_request", "max_tokens"),
    ("/v1/completions", {"model": "tiny-gpt2", "prompt": [999999]}, 400, "invalid_request", "prompt.0"),
    ("/v1/completions", PROMPT | {"logit_bias": {"a": 1}}, 400, "invalid_request", "logit_bias"),
    ("/v1/completions", PROMPT | {"logit_bias": {"99999999": 1}}, 400, "invalid_request", "logit_bias"),
    ("/v1/completions", PROMPT | {"logit_bias": {"-1": 1}}, 400, "invalid_request", "logit_bias"),
    ("/v1/completions", {"model": "tiny-marian", "prompt": "x"}, 400, "model_task_mismatch", "model"),
    ("/v1/completions", {"prompt": "x"}, 400, "invalid_request", "model"),
    ("/v1/classifications", LABEL | {"input": " "}, 400, "empty_input", "input.0"),
    ("/v1/classifications", LABEL | {"input": []}, 400, "invalid_request", "input"),
    ("/v1/classifications", LABEL | {"colour": 1}, 400, "invalid_request", "colour"),
    ("/v1/translations", {"model": "tiny-marian", "input": "x", "target": "fr"}, 400, "invalid_request", "target"),
    ("/v1/answers", ASK | {"context": ["c"] * 3}, 400, "invalid_request", "context"),
    ("/v1/answers", {"model": "no/such", "question": "a", "context": "c"}, 404, "model_not_found", "model"),
    ("/v1/nothing", {}, 404, "not_found", None),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "code", "field"), BAD)
async def test_bad_input_is_refused_by_its_field_and_free(
    server: Running, path: str, body: dict[str, Any], status: int, code: str, field: str | None
) -> None:
    answer = await server.client.post(path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, field), answer.text
    assert await server.entries() == []


RAW: list[tuple[bytes, int, str]] = [
    (b"", 400, "invalid_request"),
    (b"{", 400, "invalid_request"),
    (b"[]", 400, "invalid_request"),
    (b'{"model": "\xff"}', 400, "invalid_request"),
    (b'{"model": "tiny-gpt2", "prompt": "x", "temperature": NaN}', 400, "invalid_request"),
    (b'{"model": "tiny-gpt2", "prompt": "x", "temperature": 1e999}', 400, "invalid_request"),
    (b'{"model": "tiny-gpt2", "prompt": "\\ud800"}', 400, "invalid_request"),
    (b"[" * 100_000, 400, "invalid_request"),
    (b'{"model": "tiny-gpt2", "prompt": "' + b"x" * 10_000_000 + b'"}', 413, "request_too_large"),
]


@pytest.mark.parametrize(("raw", "status", "code"), RAW)
async def test_a_broken_body_is_refused_and_free(server: Running, raw: bytes, status: int, code: str) -> None:
    answer = await server.client.post("/v1/completions", content=raw)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert await server.entries() == []


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/classifications", "/v1/translations", "/v1/answers"])
async def test_no_route_runs_without_a_key(server: Running, path: str) -> None:
    answer = await server.client.post(path, content=b"{", headers={"authorization": ""})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "missing_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_probes_metrics_and_documents_need_no_key(server: Running) -> None:
    await server.client.post(CALLS[1][0], json=CALLS[1][1])
    for path in ("/livez", "/readyz", "/health", "/startupz", "/docs"):
        assert (await server.client.get(path, headers={"authorization": ""})).status_code == 200
    text = (await server.client.get("/metrics", headers={"authorization": ""})).text
    assert (
        'tollgate_requests_total{model="tiny-bert-classifier",outcome="finished",task="text-classification"} 1.0'
        in text
    )
    document = (await server.client.get("/openapi.json")).json()
    assert "ClassificationBody" in json.dumps(document["paths"]["/v1/classifications"])


async def test_models_go_in_and_out_of_memory_by_an_admin_key(server: Running) -> None:
    boss = {"authorization": f"Bearer {server.admin_key}"}
    path = "/admin/models/tiny-marian"
    assert (await server.client.post(path + "/unload")).status_code == 403
    assert (await server.client.post(path + "/unload", headers=boss)).json()["state"] == "absent"
    body = {"model": "tiny-marian", "input": "hello"}
    assert (await server.client.post("/v1/translations", json=body)).status_code == 200
    shown = (await server.client.get("/admin/models", headers=boss)).json()["data"]
    assert {one["id"]: one["state"] for one in shown}["tiny-marian"] == "resident"
    assert (await server.client.post(path + "/load", headers=boss)).json()["memory_bytes"] > 0


async def test_many_at_once_are_each_counted_exactly(server: Running) -> None:
    keys = [await make_key(server.database, server.database.path.parent, name=f"k{index}") for index in range(4)]
    body = {"model": "tiny-gpt2", "prompt": "one two", "max_tokens": 7, "ignore_eos": True}
    calls = [
        server.client.post("/v1/completions", json=body, headers={"authorization": f"Bearer {key}"})
        for key in keys
        for _ in range(8)
    ]
    answers = await asyncio.gather(*calls)
    assert {answer.status_code for answer in answers} == {200}
    entries = await server.entries()
    assert len({entry["request_id"] for entry in entries}) == 32
    assert {entry["output_tokens"] for entry in entries} == {7}

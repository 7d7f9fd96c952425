"""What is common to all dialects: keys, unknown fields, honest cuts, deadlines and cancelling, over real HTTP."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from app.api.conduct import shown_names, timeout_of
from app.api.context import presented_key
from app.clock import SystemClock
from app.errors import InvalidRequest
from app.metering.database import Database
from app.metering.ledger import ask_to_cancel
from tests.fixtures.server import Running, make_key

PROMPT: dict[str, Any] = {"model": "tiny-gpt2", "prompt": "one", "max_tokens": 2}
LONG: dict[str, Any] = {
    "model": "tiny-gpt2", "prompt": ["one"] * 4, "n": 16, "max_tokens": 55, "ignore_eos": True, "stream": True,
    "stream_options": {"include_usage": True},
}  # fmt: skip
"""64 rows: two seconds of a slow engine."""
WHOLE = {name: value for name, value in LONG.items() if name not in ("stream", "stream_options")}


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """FastAPI may send nothing to a thread."""

    async def refuse(work: Any, *_: Any, **__: Any) -> Any:
        pytest.fail(f"{work} is no coroutine, so it costs each request two changes of threads")

    monkeypatch.setattr("fastapi.dependencies.utils.run_in_threadpool", refuse)
    monkeypatch.setattr("fastapi.routing.run_in_threadpool", refuse)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", PROMPT),
        ("/v1/classifications", {"model": "tiny-bert-classifier", "input": "one"}),
        ("/v1/estimate", {"model": "tiny-gpt2", "input": "one"}),
    ],
)
@pytest.mark.usefixtures("no_threads")
async def test_what_a_route_needs_is_found_without_a_thread(server: Running, path: str, body: dict[str, Any]) -> None:
    answer = await server.client.post(path, json=body)
    assert answer.status_code == 200, answer.text


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw})


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"authorization": "Bearer a"}, "a"),
        ({"authorization": "bearer  a "}, "a"),
        ({"authorization": "DeepL-Auth-Key a"}, "a"),
        ({"x_api_key": "a"}, "a"),
        ({"authorization": "Basic a", "x_api_key": "b"}, "b"),
        ({"authorization": "Bearer "}, None),
        ({}, None),
    ],
)
def test_a_key_is_found_wherever_clients_put_it(headers: dict[str, str], key: str | None) -> None:
    assert presented_key(request(**headers)) == key


def test_a_deadline_is_a_number_of_seconds_or_milliseconds() -> None:
    assert timeout_of(request()) is None
    assert timeout_of(request(x_request_timeout="2.5")) == 2.5
    assert timeout_of(request(x_request_timeout_ms="40")) == pytest.approx(0.04)
    for wrong in ("", "soon", "0", "-1", "nan", "inf"):
        with pytest.raises(InvalidRequest):
            timeout_of(request(x_request_timeout=wrong))


def test_names_of_unknown_fields_are_safe_in_a_header() -> None:
    assert shown_names(["a", "b.0.c"]) == "a, b.0.c"
    assert shown_names(["x\r\nset-cookie: y", "ü", "a,b"]) == "x??set-cookie:?y, ?, a?b"
    many = shown_names([f"field-{'x' * 100}-{number}" for number in range(50)])
    assert len(many) < 1500 and many.endswith("and-30-more")


async def test_unknown_fields_pass_and_are_named_unless_the_caller_is_strict(server: Running) -> None:
    body = PROMPT | {"cache_salt": "x", "stream": True, "stream_options": {"colour": 1}, "ü\n": 1}
    answer = await server.client.post("/v1/completions", json=body)
    assert (answer.status_code, answer.headers["x-ignored-fields"]) == (200, "cache_salt, stream_options.colour, ??")
    known = await server.client.post("/v1/completions", json=PROMPT)
    assert "x-ignored-fields" not in known.headers
    for asked in (body | {"strict": True}, body):
        query = "" if "strict" in asked else "?strict=true"
        refused = await server.client.post("/v1/completions" + query, json=asked)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "cache_salt")
    fine = await server.client.post("/v1/completions?strict=true", json=PROMPT)
    assert fine.status_code == 200


CUT: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", PROMPT | {"prompt": ["one " * 90, "one"]}),
    ("/v1/completions", PROMPT | {"prompt": ["one " * 90, "one"], "stream": True}),
    ("/v1/classifications", {"model": "tiny-bert-classifier", "input": ["one " * 300, "two"]}),
    ("/v1/translations", {"model": "tiny-marian", "input": ["one " * 300, "two"]}),
    ("/v1/answers", {"model": "tiny-bert-qa", "question": ["who", "a"], "context": ["one " * 9000, "two"]}),
]


async def test_a_cut_is_told_in_a_header_and_counted(server: Running) -> None:
    for path, body in CUT:
        answer = await server.client.post(path, json=body | {"truncate": "left"})
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-hf-warning"].startswith("truncation; 1 input was too long"), path
        data = [] if path == "/v1/completions" else answer.json()["data"]
        assert [one["truncated"] for one in data] in ([], [True, False])
    assert "x-hf-warning" not in (await server.client.post("/v1/completions", json=PROMPT)).headers
    metrics = (await server.client.get("/metrics")).text
    assert 'tollgate_truncated_inputs_total{model="tiny-gpt2",task="text-generation"} 2.0' in metrics
    assert 'tollgate_truncated_inputs_total{model="tiny-bert-qa",task="question-answering"} 1.0' in metrics


@pytest.mark.usefixtures("slow_engine")
async def test_a_deadline_ends_a_request_which_pays_for_what_was_done(server: Running) -> None:
    late = await server.client.post("/v1/completions", json=WHOLE, headers={"x-request-timeout-ms": "1000"})
    assert (late.status_code, late.json()["error"]["code"]) == (504, "request_timeout")
    [entry] = await server.settled(1)
    assert entry["outcome"] == "cancelled"
    assert 0 < entry["output_tokens"] < 64 * 55
    assert server.app.state.serving.engine.stats().running == 0
    wrong = await server.client.post("/v1/completions", json=PROMPT, headers={"x-request-timeout": "soon"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "x-request-timeout")
    in_time = await server.client.post("/v1/completions", json=PROMPT, headers={"x-request-timeout": "20"})
    assert in_time.status_code == 200


async def cancelled_stream(server: Running, cancel: Any) -> tuple[str, list[dict[str, Any]], str]:
    """The id, the chunks and the last line of a stream that `cancel(id)` ends after its first chunk."""
    chunks: list[dict[str, Any]] = []
    last, request_id = "", ""
    async with server.client.stream("POST", "/v1/completions", json=LONG) as stream:
        request_id = stream.headers["x-request-id"]
        async for line in stream.aiter_lines():
            last = line or last
            if line.startswith("data: {"):
                chunks.append(json.loads(line.removeprefix("data: ")))
                if len(chunks) == 1:
                    await cancel(request_id)
    return request_id, chunks, last


@pytest.mark.usefixtures("slow_engine")
async def test_a_cancelled_stream_ends_in_order_with_its_usage(server: Running) -> None:
    async def cancel(request_id: str) -> None:
        answer = await server.client.post(f"/v1/requests/{request_id}/cancel")
        assert answer.json() == {"id": request_id, "object": "request.cancellation", "status": "cancelling"}

    request_id, chunks, last = await cancelled_stream(server, cancel)
    assert last == "data: [DONE]"
    ends = [choice for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
    assert {(end["finish_reason"], end["cause"]) for end in ends} == {("length", "cancelled")}
    assert len(ends) == 64
    [entry] = await server.settled(1)
    assert entry["outcome"] == "cancelled"
    assert 0 < entry["output_tokens"] == chunks[-1]["usage"]["completion_tokens"] < 64 * 55
    again = await server.client.post(f"/v1/requests/{request_id}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "ended")


@pytest.mark.usefixtures("slow_engine")
async def test_only_its_own_account_or_an_admin_may_cancel(server: Running, tmp_path: Path) -> None:
    stranger = await make_key(server.database, tmp_path, name="other", tenant="other")

    async def try_to(request_id: str) -> None:
        path = f"/v1/requests/{request_id}/cancel"
        refused = await server.client.post(path, headers={"authorization": f"Bearer {stranger}"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
        boss = await server.client.post(path, headers={"authorization": f"Bearer {server.admin_key}"})
        assert boss.json()["status"] == "cancelling"

    _, chunks, _ = await cancelled_stream(server, try_to)
    assert chunks[-1]["usage"]["completion_tokens"] < 64 * 55
    audit = await server.client.get("/admin/audit", headers={"authorization": f"Bearer {server.admin_key}"})
    assert "request.cancel" in audit.text
    assert (await server.client.post("/v1/requests/req_none/cancel")).status_code == 404


@pytest.mark.usefixtures("slow_engine")
async def test_another_process_can_cancel(server: Running, tmp_path: Path) -> None:
    elsewhere = Database(home=tmp_path)
    await elsewhere.open()

    async def cancel(request_id: str) -> None:
        assert await elsewhere.run(
            lambda connection: ask_to_cancel(connection, request_id=request_id, tenant_id=None, clock=SystemClock())
        )

    request_id, chunks, _ = await cancelled_stream(server, cancel)
    await elsewhere.close()
    assert chunks[-1]["usage"]["completion_tokens"] < 64 * 55
    [entry] = await server.settled(1)
    assert (entry["request_id"], entry["outcome"]) == (request_id, "cancelled")


@pytest.mark.usefixtures("slow_engine")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/translations", {"model": "tiny-marian", "input": ["one two three four five\n" * 12] * 20}),
        ("/v1/completions", WHOLE),
    ],
)
async def test_a_whole_answer_that_is_cancelled_says_so_and_pays_for_what_was_done(
    server: Running, path: str, body: dict[str, Any]
) -> None:
    serving = server.app.state.serving
    task = asyncio.create_task(server.client.post(path, json=body))
    while not serving.engine.stats().running:
        assert not task.done(), task.result().text
        await asyncio.sleep(0.001)
    [request_id] = serving.runs
    assert (await server.client.post(f"/v1/requests/{request_id}/cancel")).json()["status"] == "cancelling"
    answer = await task
    [entry] = await server.settled(1)
    assert entry["outcome"] == "cancelled"
    assert entry["input_tokens"] > 0
    if path == "/v1/completions":
        assert {one["cause"] for one in answer.json()["choices"]} == {"cancelled"}
        assert answer.json()["usage"]["completion_tokens"] == entry["output_tokens"]
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "request_cancelled")
        assert answer.headers["x-should-retry"] == "false"

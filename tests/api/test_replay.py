"""Idempotency-Key: the first answer again, one run, one charge."""

import asyncio
from typing import Any

import httpx
import pytest

from app.errors import StorageUnavailable
from tests.fixtures.server import Running

BODY: dict[str, Any] = {"model": "tiny-gpt2", "prompt": [5, 6, 7], "max_tokens": 5, "ignore_eos": True}
PATH = "/v1/completions"


async def post(server: Running, key: str, body: dict[str, Any] = BODY, path: str = PATH) -> httpx.Response:
    return await server.client.post(path, json=body, headers={"idempotency-key": key})


async def test_fifty_at_once_are_one_run_one_charge_and_fifty_equal_answers(server: Running) -> None:
    refused = 0

    async def persistent() -> httpx.Response:
        nonlocal refused
        while True:
            answer = await post(server, "once")
            if answer.status_code != 409:
                return answer
            assert answer.json()["error"]["code"] == "idempotency_in_progress"
            assert answer.headers["retry-after"] == "1"
            refused += 1
            await asyncio.sleep(0.05)

    answers = await asyncio.gather(*(persistent() for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    [entry] = await server.entries()
    replayed = [answer for answer in answers if answer.headers.get("idempotency-replayed") == "true"]
    assert len(replayed) == 49
    assert {answer.headers["x-tollgate-replay-of"] for answer in replayed} == {entry["request_id"]}


async def test_a_stream_is_replayed_whole(server: Running) -> None:
    body = BODY | {"stream": True}
    first, again = await post(server, "s", body), await post(server, "s", body)
    assert first.content == again.content
    assert first.content.endswith(b"data: [DONE]\n\n")
    assert again.headers["content-type"] == first.headers["content-type"]
    assert len(await server.entries()) == 1


async def test_the_same_key_with_another_request_is_told(server: Running) -> None:
    await post(server, "k")
    answer = await post(server, "k", BODY | {"max_tokens": 6})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_mismatch")
    label = {"model": "tiny-bert-classifier", "input": "x"}
    assert (await post(server, "k", label, "/v1/classifications")).status_code == 422
    assert len(await server.entries()) == 1


async def test_a_refused_request_leaves_its_key_free(server: Running) -> None:
    assert (await post(server, "k", BODY | {"max_tokens": 10**9})).status_code == 400
    assert (await post(server, "k")).status_code == 200
    assert (await post(server, "x" * 300)).status_code == 400
    headers = {"idempotency-key": "k", "authorization": "Bearer none"}
    assert (await server.client.post(PATH, json=BODY, headers=headers)).status_code == 401


async def test_an_answer_that_is_no_longer_kept_points_to_its_receipt(server: Running) -> None:
    first = await post(server, "k")
    server.app.state.replays.forget_all()
    answer = await post(server, "k")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "idempotency_replay_unavailable")
    assert answer.headers["x-should-retry"] == "false"
    assert first.headers["x-request-id"] in error["message"]
    assert len(await server.entries()) == 1


async def test_while_the_database_is_away_keys_are_served_once_here(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That replicas together charge once is for tests/metering/test_idempotency.py and tests/postgres."""

    async def away(*_: Any, **__: Any) -> None:
        raise StorageUnavailable

    before = await post(server, "before")
    books = server.app.state.serving.books
    with monkeypatch.context() as outage:
        outage.setattr(books.database, "run", away)
        new = await post(server, "new")
        for key, first in (("before", before), ("new", new)):
            again = await post(server, key)
            assert (again.status_code, again.headers.get("idempotency-replayed")) == (200, "true"), key
            assert again.content == first.content
        assert (await post(server, "new", BODY | {"max_tokens": 6})).status_code == 422
        assert (await post(server, "bad", BODY | {"max_tokens": 10**9})).status_code == 400
        assert (await post(server, "bad")).status_code == 200
    assert len(await server.settled(3)) == 3
    assert (await post(server, "new")).headers["idempotency-replayed"] == "true"
    server.app.state.replays.forget_all()
    assert (await post(server, "new")).json()["error"]["code"] == "idempotency_replay_unavailable"
    assert len(await server.entries()) == 3

"""OpenAI's SDK raises the class that each refusal means, waits as it is told, and a hang-up ends the work."""

import threading
from typing import Any

import pytest
from openai import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    DefaultHttpxClient,
    InternalServerError,
    NotFoundError,
    OpenAI,
    PermissionDeniedError,
    RateLimitError,
    UnprocessableEntityError,
)

from app.clock import SystemClock
from app.metering.keys import Pepper, create_key
from app.metering.limits import LimitRule
from tests.wire.live import Live

GPT2: Any = {"model": "tiny-gpt2", "prompt": "hello world", "max_tokens": 4}
LONG: Any = GPT2 | {"max_tokens": 60, "extra_body": {"ignore_eos": True}, "n": 64}


def client_of(live: Live, key: str, retries: int = 0, sent: list[Any] | None = None) -> OpenAI:
    """The SDK's client; every attempt, retries too, is noted in `sent`."""
    noted = DefaultHttpxClient(event_hooks={"request": [[].append if sent is None else sent.append]})
    return OpenAI(base_url=live.url + "/v1", api_key=key, max_retries=retries, http_client=noted)


def special_key(live: Live, **more: Any) -> str:
    """A key with scopes or limits."""
    pepper = Pepper(live.home)
    made = live.on_server(
        live.running.database.run(
            lambda connection: create_key(
                connection, clock=SystemClock(), pepper=pepper, tenant_name="special", name="special", **more
            )
        )
    )
    return made.key


def test_each_refusal_is_an_exception_of_its_own(live: Live, key: str) -> None:
    with client_of(live, "sk-wrong") as stranger, pytest.raises(AuthenticationError) as unknown:
        stranger.completions.create(**GPT2)
    assert unknown.value.code == "invalid_api_key"
    assert unknown.value.response.headers["www-authenticate"] == "Bearer"
    with client_of(live, special_key(live, models=("tiny-bert-*",))) as narrow:
        with pytest.raises(PermissionDeniedError) as forbidden:
            narrow.completions.create(**GPT2)
        assert forbidden.value.type == "permission_error"
    with client_of(live, key) as client:
        with pytest.raises(NotFoundError) as missing:
            client.completions.create(**(GPT2 | {"model": "none"}))
        assert missing.value.code == "model_not_found"
        with pytest.raises(BadRequestError) as long:
            client.completions.create(**(GPT2 | {"prompt": "one " * 200, "stream": True}))
        assert (long.value.code, long.value.param) == ("context_length_exceeded", "prompt.0")
        with pytest.raises(APIStatusError) as large:
            client.completions.create(**(GPT2 | {"prompt": "x" * 3_000_000}))
        assert (large.value.status_code, large.value.code) == (413, "request_too_large")
    assert live.entries(key) == []


def test_a_rate_limit_says_when_to_come_back(live: Live) -> None:
    with client_of(live, special_key(live, limits=LimitRule(requests_per_minute=1))) as client:
        client.completions.create(**GPT2)
        with pytest.raises(RateLimitError) as limited:
            client.completions.create(**GPT2)
    headers = limited.value.response.headers
    assert (limited.value.type, limited.value.code) == ("requests", "rate_limit_exceeded")
    assert 0 < int(headers["retry-after-ms"]) <= 60_000 and 0 < int(headers["retry-after"]) <= 60
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("1", "0")
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert "q=1;w=60" in headers["ratelimit-policy"] and "r=0" in headers["ratelimit"]


def test_a_budget_that_is_used_up_is_not_asked_again(live: Live, key: str) -> None:
    live.allow_money(key, task="text-generation", model="tiny-gpt2", requests=1.5)
    sent: list[Any] = []
    with client_of(live, key, retries=2, sent=sent) as client:
        assert client.completions.create(**GPT2).choices[0].text
        for more in ({}, {"stream": True}):
            with pytest.raises(RateLimitError) as refused:
                client.completions.create(**GPT2, **more)
            assert (refused.value.type, refused.value.code) == ("insufficient_quota", "insufficient_quota")
            assert refused.value.response.headers["x-should-retry"] == "false"
    assert len(sent) == 3, "the SDK would ask a 429 thrice"
    assert len(live.entries(key)) == 1


@pytest.mark.usefixtures("slow_engine")
def test_a_key_that_is_in_use_or_was_used_otherwise_is_told(live: Live, key: str) -> None:
    once: Any = {"extra_headers": {"Idempotency-Key": "order-7"}}
    sent: list[Any] = []
    with client_of(live, key) as hasty, client_of(live, key, retries=2, sent=sent) as patient:
        stream = hasty.completions.create(**LONG, **once, stream=True)
        first = next(iter(stream))
        with pytest.raises(ConflictError) as running:
            hasty.completions.create(**LONG, **once, stream=True)
        assert (running.value.type, running.value.code) == ("conflict_error", "idempotency_in_progress")
        assert running.value.response.headers["retry-after"] == "1"
        for _ in stream:
            pass
        again = list(patient.completions.create(**LONG, **once, stream=True))
        assert {chunk.id for chunk in again} == {first.id}
        with pytest.raises(UnprocessableEntityError) as other:
            patient.completions.create(**GPT2, **once)
        assert other.value.code == "idempotency_mismatch"
    assert len(sent) == 2, "neither the replay nor the refusal was asked for twice"
    assert len(live.entries(key, count=1)) == 1


@pytest.mark.usefixtures("slow_engine")
def test_a_deadline_that_passes_is_504_and_not_paid_twice(live: Live, key: str) -> None:
    sent: list[Any] = []
    with client_of(live, key, retries=2, sent=sent) as client, pytest.raises(InternalServerError) as late:
        client.completions.create(**LONG, extra_headers={"x-request-timeout-ms": "1000"})
    assert (late.value.status_code, late.value.type, late.value.code) == (504, "server_error", "request_timeout")
    assert late.value.response.headers["x-should-retry"] == "false"
    assert len(sent) == 1, "the SDK would try a 5xx again, and pay for what was done each time"
    (entry,) = live.entries(key, count=1)
    assert (entry["outcome"], entry["input_tokens"]) == ("cancelled", 3)


def test_a_client_tries_again_where_the_server_is_about_to_leave(live: Live, key: str) -> None:
    serving = live.running.app.state.serving
    serving.is_draining = True
    try:
        with client_of(live, key) as hasty, pytest.raises(InternalServerError) as refused:
            hasty.completions.create(**GPT2)
        assert (refused.value.status_code, refused.value.code) == (503, "draining")
        threading.Timer(0.3, lambda: setattr(serving, "is_draining", False)).start()
        with client_of(live, key, retries=3) as patient:
            assert patient.completions.create(**GPT2).choices[0].text
    finally:
        serving.is_draining = False
    assert len(live.entries(key, count=1)) == 1


@pytest.mark.usefixtures("slow_engine")
def test_a_hang_up_ends_the_row_and_leaves_one_entry(live: Live, key: str) -> None:
    with client_of(live, key) as client:
        stream = client.completions.create(**LONG, stream=True)
        next(iter(stream))
        stream.close()
    (entry,) = live.entries(key, count=1)
    assert entry["outcome"] == "cancelled"
    assert 1 <= entry["output_tokens"] < 64 * 60 / 4
    assert live.running.app.state.serving.engine.stats().running == 0

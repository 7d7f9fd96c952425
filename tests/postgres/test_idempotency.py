"""Idempotency-Keys while PostgreSQL is away: nothing runs twice, and no key stays stuck when it is back."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.cli.test_lifecycle import engine_of, halted
from tests.fixtures.postgres import Postgres
from tests.fixtures.process import Served, served
from tests.fixtures.redis import RedisServer

BODY = {"model": "tiny-gpt2", "prompt": [5, 6, 7], "max_tokens": 5, "ignore_eos": True}
PATIENCE_S = 30.0


def ask(server: Served, key: str, **headers: str) -> httpx.Response:
    sent = server.headers | {"idempotency-key": key} | headers
    return httpx.post(server.url + "/v1/completions", json=BODY, headers=sent, timeout=60)


def until_there_are(url: str, count: int, *, running: bool) -> None:
    """So many requests hold money, or have claimed their keys."""
    give_up_s = time.monotonic() + PATIENCE_S
    asked = "SELECT count(*) FROM hold" if running else "SELECT count(*) FROM idempotency"
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(asked).fetchall() != [(count,)]:
            assert time.monotonic() < give_up_s
            time.sleep(0.02)


@contextmanager
def stopped(postgres: Postgres) -> Iterator[None]:
    postgres.stop()
    try:
        yield
    finally:
        postgres.start()


def until_served(server: Served) -> None:
    """The database is back, and its settlements are in."""
    give_up_s = time.monotonic() + PATIENCE_S
    while "tollgate_spool_waiting 0.0" not in httpx.get(server.url + "/metrics").text:
        assert time.monotonic() < give_up_s
        time.sleep(0.1)


@pytest.mark.fault_long
def test_a_key_runs_once_through_an_outage_and_is_free_again_after_a_refusal(
    postgres: Postgres, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    url = postgres.fresh()
    with served(tmp_path, checkpoints, TOLLGATE_METERING__DATABASE_URL=url) as server, ExitStack() as outage:
        first = ask(server, "before")
        assert first.status_code == 200
        answers: dict[str, httpx.Response] = {}

        def keep(key: str, **headers: str) -> None:
            answers[key] = ask(server, key, **headers)

        asking = [
            threading.Thread(target=keep, args=("answered",)),
            threading.Thread(target=keep, args=("refused",), kwargs={"x-request-timeout": "3"}),
        ]
        with halted(engine_of(server)):
            for count, thread in enumerate(asking, 1):
                thread.start()
                until_there_are(url, count, running=True)
            outage.enter_context(stopped(postgres))
            asking[1].join(PATIENCE_S)
            new = ask(server, "during")
        asking[0].join(PATIENCE_S)
        outage.close()
        assert (new.status_code, new.json()["error"]["code"]) == (503, "storage_unavailable")
        assert (answers["answered"].status_code, answers["refused"].status_code) == (200, 504)
        until_served(server)
        again = ask(server, "answered")
        assert (again.status_code, again.headers.get("idempotency-replayed")) == (200, "true")
        assert again.content == answers["answered"].content
        for key in ("refused", "during"):
            fresh = ask(server, key)
            assert (fresh.status_code, fresh.headers.get("idempotency-replayed")) == (200, None), key
        charged = [entry for entry in server.entries() if entry["output_tokens"]]
        assert len(charged) == 4, "before, answered, and the two that ran afterwards"


@pytest.mark.fault_long
def test_a_key_whose_request_was_refused_for_the_outage_itself_is_free_afterwards(
    postgres: Postgres, redis_server: RedisServer, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    url = postgres.fresh()
    slow = {"TOLLGATE_LIMITS__REDIS_URL": redis_server.url, "TOLLGATE_LIMITS__REDIS_TIMEOUT_S": "5"}
    with served(tmp_path, checkpoints, TOLLGATE_METERING__DATABASE_URL=url, **slow) as server:
        answers: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answers.append(ask(server, "k")))
        redis_server.freeze()  # so that it has claimed its key, and holds no money yet
        asking.start()
        until_there_are(url, 1, running=False)
        with stopped(postgres):
            asking.join(PATIENCE_S)
        redis_server.thaw()
        assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (503, "storage_unavailable")
        give_up_s = time.monotonic() + PATIENCE_S
        while (again := ask(server, "k")).status_code == 503:
            assert time.monotonic() < give_up_s
        assert (again.status_code, again.headers.get("idempotency-replayed")) == (200, None), again.text
        assert len(server.entries()) == 1

"""Idempotency-Keys while PostgreSQL is away: nothing runs twice, and no key stays stuck when it is back."""

import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.cli.test_lifecycle import engine_of, halted
from tests.fixtures.postgres import Postgres
from tests.fixtures.process import Served, served

BODY = {"model": "tiny-gpt2", "prompt": [5, 6, 7], "max_tokens": 5, "ignore_eos": True}
PATIENCE_S = 30.0


def ask(server: Served, key: str, **headers: str) -> httpx.Response:
    sent = server.headers | {"idempotency-key": key} | headers
    return httpx.post(server.url + "/v1/completions", json=BODY, headers=sent, timeout=60)


def until_claimed(server: Served, key: str) -> None:
    """The request under this key runs: whoever asks again is told so."""
    give_up_s = time.monotonic() + PATIENCE_S
    while ask(server, key, **{"x-request-timeout": "0.2"}).status_code != 409:
        assert time.monotonic() < give_up_s
        time.sleep(0.05)


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
    with served(tmp_path, checkpoints, TOLLGATE_METERING__DATABASE_URL=postgres.fresh()) as server:
        first = ask(server, "before")
        assert first.status_code == 200
        answers: dict[str, httpx.Response] = {}

        def keep(key: str, **headers: str) -> None:
            answers[key] = ask(server, key, **headers)

        asking = [
            threading.Thread(target=keep, args=("answered",)),
            threading.Thread(target=keep, args=("refused",), kwargs={"x-request-timeout": "4"}),
        ]
        with halted(engine_of(server)):
            for thread, key in zip(asking, ("answered", "refused"), strict=True):
                thread.start()
                until_claimed(server, key)
            postgres.stop()
            try:
                asking[1].join(PATIENCE_S)
                new = ask(server, "during")
            except BaseException:
                postgres.start()
                raise
        asking[0].join(PATIENCE_S)
        postgres.start()
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

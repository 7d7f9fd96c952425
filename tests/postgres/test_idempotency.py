"""Idempotency-Keys while PostgreSQL is away: nothing runs twice, and no key stays stuck when it is back."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.cli.test_lifecycle import engine_of, halted
from tests.fixtures.postgres import Postgres
from tests.fixtures.process import COMMAND, Served, free_port, served
from tests.fixtures.redis import RedisServer

BODY: dict[str, Any] = {"model": "tiny-gpt2", "prompt": [5, 6, 7], "max_tokens": 5, "ignore_eos": True}
PATIENCE_S = 30.0


def ask(server: Served, key: str, *, body: dict[str, Any] = BODY, **headers: str) -> httpx.Response:
    sent = server.headers | {"idempotency-key": key} | headers
    return httpx.post(server.url + "/v1/completions", json=body, headers=sent, timeout=60)


@contextmanager
def beside(server: Served, home: Path) -> Iterator[Served]:
    """Another replica of the same customers, with prices."""
    for meter in ("input_token", "output_token"):
        words = ("--model", "tiny-gpt2", "--task", "text-generation", "--meter", meter, "--per-million", "1000")
        subprocess.run([*COMMAND, "prices", "set", *words], env=server.env, check=True, capture_output=True)
    home.mkdir()
    shutil.copy(Path(server.env["TOLLGATE_HOME"]) / "pepper", home)
    url, env = f"http://127.0.0.1:{free_port()}", server.env | {"TOLLGATE_HOME": str(home)}
    log = home / "server.log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--host", "127.0.0.1", "--port", url.rpartition(":")[2]], env=env, stdout=written,
            stderr=written,
        )  # fmt: skip
    made = Served(url=url, key=server.key, process=process, env=env, log=log)
    try:
        made.until("/readyz", 200)
        yield made
    finally:
        process.kill()
        process.wait()


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
        asking[0].join(PATIENCE_S)
        new = ask(server, "during")
        outage.close()
        assert (new.status_code, new.headers.get("idempotency-replayed")) == (200, None)
        assert (answers["answered"].status_code, answers["refused"].status_code) == (200, 504)
        until_served(server)
        for key, answer in (("before", first), ("answered", answers["answered"]), ("during", new)):
            again = ask(server, key)
            assert (again.status_code, again.headers.get("idempotency-replayed")) == (200, "true"), key
            assert again.content == answer.content
        fresh = ask(server, "refused")
        assert (fresh.status_code, fresh.headers.get("idempotency-replayed")) == (200, None)
        charged = [entry for entry in server.entries() if entry["output_tokens"]]
        assert len(charged) == 4, "before, answered, during, and the one that was refused and ran afterwards"


@pytest.mark.fault_long
def test_a_key_that_two_replicas_serve_around_an_outage_is_charged_once(
    postgres: Postgres, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    url = postgres.fresh()
    with (
        served(tmp_path / "a", checkpoints, TOLLGATE_METERING__DATABASE_URL=url) as one,
        beside(one, tmp_path / "b") as other,
    ):
        for server, key in ((one, "a's"), (other, "b's"), (one, "before")):
            assert ask(server, key).status_code == 200
        with stopped(postgres):
            found = {(server.url, key): ask(server, key) for server in (one, other) for key in ("before", "during")}
            changed = ask(other, "during", body=BODY | {"max_tokens": 4})
        assert {answer.status_code for answer in found.values()} == {200}
        replayed = {place for place, answer in found.items() if "idempotency-replayed" in answer.headers}
        assert replayed == {(one.url, "before")}, "that one alone knows of it"
        assert (changed.status_code, changed.json()["error"]["code"]) == (422, "idempotency_mismatch")
        for server in (one, other):
            until_served(server)
            assert ask(server, "during").headers["idempotency-replayed"] == "true"
        costs = {entry["request_id"]: entry["cost_nano"] for entry in one.entries()}
        assert len(costs) == 6
        of_before = [costs[found[other.url, "before"].headers["x-tollgate-request-id"]]]
        of_during = [costs[found[server.url, "during"].headers["x-tollgate-request-id"]] for server in (one, other)]
        assert of_before == [0], "the first is charged already"
        assert sorted(map(bool, of_during)) == [False, True]
        assert sum(map(bool, costs.values())) == 4, "a's, b's, before and during"


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

"""A start while PostgreSQL is away: the port tells so, the server comes when it comes, and gives up in one line."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.cli.test_serve import COMMAND, free_port
from tests.fixtures.postgres import Postgres

PHASE = "waiting for the database"


@contextmanager
def starting(
    home: Path, database_url: str, *words: str, wait_s: float = 60
) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    """A server with no model to load, and a client of it."""
    port, catalogue = free_port(), home / "catalogue.yaml"
    catalogue.write_text("models: []\n", encoding="utf-8")
    env = os.environ | {
        "TOLLGATE_HOME": str(home), "TOLLGATE_REGISTRY__CATALOGUE": str(catalogue),
        "TOLLGATE_METERING__DATABASE_URL": database_url, "TOLLGATE_METERING__START_WAIT_S": str(wait_s),
    }  # fmt: skip
    words = ("serve", "--host", "127.0.0.1", "--port", str(port), *words)
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
        subprocess.Popen([*COMMAND, *words], env=env, text=True, stderr=subprocess.PIPE) as process,
    ):
        try:
            yield client, process
        finally:
            process.kill()


@pytest.fixture
def away(postgres: Postgres) -> Iterator[str]:
    """The URL of a database whose server is stopped; started again afterwards, unless the test did."""
    url = postgres.fresh()
    postgres.stop()
    try:
        yield url
    finally:
        if not is_up(postgres):
            postgres.start()


def is_up(postgres: Postgres) -> bool:
    return subprocess.run([*postgres.control, "status"], check=False, capture_output=True, cwd="/").returncode == 0


def asked(client: httpx.Client, path: str, wanted: str) -> httpx.Response:
    """The first answer that has `wanted` in it."""
    give_up_s = time.monotonic() + 60
    while True:
        with suppress(httpx.TransportError):
            answer = client.get(path)
            if wanted in answer.text:
                return answer
        assert time.monotonic() < give_up_s, f"{path} never says {wanted}"
        time.sleep(0.05)


@pytest.mark.parametrize("words", [(), pytest.param(("--workers", "2"), marks=pytest.mark.fault_long)])
def test_a_start_waits_for_the_database_and_tells_so(
    away: str, postgres: Postgres, tmp_path: Path, words: tuple[str, ...]
) -> None:
    with starting(tmp_path, away, *words) as (client, _):
        assert asked(client, "/startupz", PHASE).status_code == 503
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").json() == {"status": PHASE}
        refusal = client.post("/v1/completions", json={"model": "m", "prompt": "p"})
        assert refusal.status_code == 503 and refusal.json()["error"]["code"] == "storage_unavailable"
        assert int(refusal.headers["retry-after"]) >= 1
        postgres.start()
        assert asked(client, "/startupz", "started").status_code == 200
        assert client.get("/v1/models").status_code == 401


def test_a_start_that_waited_too_long_ends_in_one_line(tmp_path: Path) -> None:
    nobody = f"postgresql://postgres@127.0.0.1:{free_port()}/tollgate"
    with starting(tmp_path, nobody, wait_s=1) as (_, process):
        assert process.wait(60) == 1
        assert process.stderr is not None
        lines = [line for line in process.stderr.read().splitlines() if line]
    assert lines[-1].startswith("tollgate: the database cannot be opened: ") and "Connection refused" in lines[-1]
    assert any("it is asked again in 0.5 s" in line for line in lines)
    assert not any("Traceback" in line for line in lines)


def test_a_start_that_waits_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    nobody = f"postgresql://postgres@127.0.0.1:{free_port()}/tollgate"
    with starting(tmp_path, nobody) as (client, process):
        asked(client, "/startupz", PHASE)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0

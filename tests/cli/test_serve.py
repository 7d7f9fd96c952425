"""The command as an operator runs it: it starts, greets, is killed, and starts again with every key and entry."""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.cli.serve import server_of
from app.main import build_app
from app.metering.journal import Journal
from app.settings import Settings
from tests.fixtures.residency import write_catalogue

COMMAND = [sys.executable, "-m", "app"]
START_S = 240


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment(home: Path, checkpoints: dict[str, Path]) -> dict[str, str]:
    catalogue = write_catalogue(home, checkpoints, load="start")
    return os.environ | {"TOLLGATE_HOME": str(home), "TOLLGATE_REGISTRY__CATALOGUE": str(catalogue)}


def command(env: dict[str, str], *words: str) -> str:
    return subprocess.run([*COMMAND, *words], env=env, capture_output=True, text=True, check=True).stdout


@contextmanager
def served(env: dict[str, str], *words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [*COMMAND, "serve", "--host", "127.0.0.1", "--port", str(port), *words], env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        give_up_s = time.monotonic() + START_S
        prober = httpx.Client(verify=False)
        while True:
            assert process.poll() is None, f"the server ended with {process.returncode}"
            assert time.monotonic() < give_up_s, "the server does not become ready"
            try:
                if prober.get(url + "/readyz").status_code == 200:
                    prober.close()
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        yield url, process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_keys_and_entries_outlive_a_kill_and_a_restart(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    env = environment(tmp_path, checkpoints)
    key = json.loads(command(env, "keys", "create", "--tenant", "acme", "--name", "web", "--json"))["key"]
    headers = {"authorization": f"Bearer {key}"}
    body = {"model": "tiny-gpt2", "prompt": [5, 6, 7], "max_tokens": 5, "ignore_eos": True}
    with served(env) as (url, process):
        assert httpx.post(url + "/v1/completions", json=body, headers=headers).status_code == 200
        stream = body | {"stream": True, "max_tokens": 60}
        with httpx.stream("POST", url + "/v1/completions", json=stream, headers=headers) as answer:
            next(answer.iter_lines())
            process.send_signal(signal.SIGKILL)
            process.wait()
    with served(env) as (url, process):
        assert httpx.post(url + "/v1/completions", json=body, headers=headers).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    entries = json.loads(command(env, "usage", "--json"))
    assert [entry["key_name"] for entry in entries] == ["web"] * len(entries)
    outcomes = [entry["outcome"] for entry in entries]
    assert outcomes in (["finished", "crashed", "finished"], ["finished", "finished", "finished"])
    assert (entries[0]["input_tokens"], entries[0]["output_tokens"]) == (3, 5)


def test_the_greeting_gives_a_key_that_works_once(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    env = environment(tmp_path, checkpoints)

    def greeting(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or "tollgate usage" not in lines[-1]:
            lines.append(process.stdout.readline())
        return "".join(lines)

    with served(env, "--welcome") as (url, process):
        text = greeting(process)
        key = text.partition("TOLLGATE_API_KEY=")[2].split()[0]
        assert text.count("curl ") == 4
        assert httpx.get(url + "/v1/models", headers={"x-api-key": key}).status_code == 200
    with served(env, "--welcome") as (_, process):
        assert "sk-tg-" not in greeting(process)


async def test_what_the_start_has_made_is_out_of_the_collector_s_sight_before_the_server_greets(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    catalogue = write_catalogue(tmp_path, checkpoints, load="start")
    engine = {"threads": 1, "transport": "inline"}
    settings = Settings(home=tmp_path, engine=engine, registry={"catalogue": catalogue}, api={"port": free_port()})
    server = server_of(build_app(settings), settings, is_welcoming=False)
    frozen: list[int] = []

    async def greet() -> None:
        frozen.append(gc.get_freeze_count())
        server.should_exit = True

    server.greet = greet
    switch_s = sys.getswitchinterval()
    try:
        await server.serve()
        assert frozen and frozen[0] > 10_000
    finally:
        gc.unfreeze()
        sys.setswitchinterval(switch_s)


def test_a_bad_setting_stops_the_start_in_one_line(tmp_path: Path) -> None:
    env = os.environ | {"TOLLGATE_HOME": str(tmp_path), "TOLLGATE_ENGINE__SLOTS": "none"}
    ended = subprocess.run([*COMMAND, "serve"], env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("tollgate: engine.slots: ")
    assert len(ended.stderr.strip().splitlines()) == 1


def test_a_data_folder_that_another_server_uses_stops_the_start_without_a_trace(tmp_path: Path) -> None:
    journal = Journal(home=tmp_path)
    journal.open()
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text("models: []\n", encoding="utf-8")
    env = os.environ | {"TOLLGATE_HOME": str(tmp_path), "TOLLGATE_REGISTRY__CATALOGUE": str(catalogue)}
    words = [*COMMAND, "serve", "--port", str(free_port())]
    ended = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    journal.close()
    assert ended.returncode != 0
    assert "another server uses the data folder" in ended.stderr and "Traceback" not in ended.stderr

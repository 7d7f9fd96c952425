"""Prompts and outputs stay nowhere: not in the database, its log, the data folder, or what the server says."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

from tests.cli.test_serve import COMMAND, START_S, command, environment, free_port

MARKER = "zqxmarker"
"""Goes into every text that a customer can send, in good requests and in bad ones."""
CALLS: list[tuple[str, dict[str, Any], int]] = [
    ("/v1/completions", {"model": "tiny-gpt2", "prompt": f"hello {MARKER}", "max_tokens": 5, "echo": True}, 200),
    ("/v1/completions", {"model": "tiny-gpt2", "prompt": MARKER, "max_tokens": 5, "stream": True, "echo": True}, 200),
    ("/v1/completions", {"model": "tiny-gpt2", "prompt": "one", "max_tokens": 9, "stop": MARKER}, 200),
    ("/v1/completions", {"model": "tiny-gpt2", "prompt": f"{MARKER} " * 500}, 400),
    ("/v1/completions", {"model": "tiny-gpt2", "prompt": MARKER, "temperature": MARKER}, 400),
    ("/v1/completions", {"model": MARKER, "prompt": MARKER}, 404),
    ("/v1/classifications", {"model": "tiny-bert-classifier", "input": ["fine", f"so {MARKER}"]}, 200),
    ("/v1/classifications", {"model": "tiny-bert-classifier", "input": MARKER, MARKER: MARKER}, 400),
    ("/v1/translations", {"model": "tiny-marian", "input": f"hello {MARKER}. one."}, 200),
    ("/v1/answers", {"model": "tiny-bert-qa", "question": f"who {MARKER}?", "context": f"i am {MARKER}"}, 200),
    ("/v1/answers", {"model": "tiny-bert-qa", "question": MARKER, "context": [MARKER] * 3}, 400),
]


def files_with(folder: Path, word: str) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


def test_a_marker_in_every_text_is_found_nowhere_after_real_traffic(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    env = environment(tmp_path, checkpoints) | {"TOLLGATE_LOG_LEVEL": "debug", "TOLLGATE_ENGINE__THREADS": "1"}
    key = json.loads(command(env, "keys", "create", "--tenant", "acme", "--name", "web", "--json"))["key"]
    headers = {"authorization": f"Bearer {key}"}
    said = tmp_path.parent / f"{tmp_path.name}-said"
    port = free_port()
    with said.open("wb") as file:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port", str(port)], env=os.environ | env, stdout=file, stderr=file
        )
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
                wait_until_ready(client, process)
                echoed = 0
                for path, body, status in CALLS:
                    answer = client.post(path, json=body)
                    assert answer.status_code == status, (body, answer.text)
                    echoed += MARKER in answer.text
                assert echoed >= 4, "the marker did pass through"
                with client.stream("POST", "/v1/completions", json=CALLS[1][1] | {"max_tokens": 40}) as stream:
                    next(stream.iter_lines())
                client.post("/v1/completions", content=f'{{"prompt": "{MARKER}'.encode())
                client.get(f"/v1/models/{MARKER}")
                held = files_with(tmp_path, MARKER)
                assert (tmp_path / "tollgate.db-wal").stat().st_size > 0, "the write-ahead log was searched as well"
        finally:
            process.terminate()
            process.wait()
    assert held == []
    assert files_with(tmp_path, MARKER) == []
    log = said.read_text(encoding="utf-8", errors="replace")
    paths = [line for line in log.splitlines() if MARKER in line and f"/v1/models/{MARKER}" not in line]
    assert paths == []
    assert log.count("/v1/answers") >= 2, "the log was there to be searched"
    assert key not in log
    assert files_with(tmp_path, key[10:]) == []
    entries = json.loads(command(env, "usage", "--json"))
    assert sum(entry["outcome"] == "finished" for entry in entries) >= 6


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    give_up_s = time.monotonic() + START_S
    while True:
        assert process.poll() is None
        assert time.monotonic() < give_up_s
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)

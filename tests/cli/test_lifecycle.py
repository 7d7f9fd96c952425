"""How a server comes and goes, as processes: ready when it can serve, and never away with a request half done."""

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.fixtures.process import Served, children_of, is_running, served

BODY = {
    "model": "tiny-gpt2", "prompt": [[5, 6, 7]] * 4, "n": 4, "max_tokens": 60, "ignore_eos": True, "stream": True,
}  # fmt: skip
"""With one slot it lasts long enough to halt the engine in its middle."""
ONE_SLOT = {"TOLLGATE_ENGINE__SLOTS": "1"}
PATIENCE_S = 60.0
LONG_DRAIN_S = 120.0


def engine_of(server: Served) -> int:
    """The engine's process: a child of the server or of its parent."""
    named = children_of(server.process.pid)
    return next(pid for pid, line in named.items() if b"app.engine.transports.worker" in line)


def until_gone(pid: int) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while is_running(pid):
        assert time.monotonic() < give_up_s, f"{pid} outlives its parent"
        time.sleep(0.02)


@contextmanager
def streaming(server: Served) -> Iterator[Iterator[str]]:
    """A stream whose first line has come; the rest of its lines."""
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", server.url + "/v1/completions", json=BODY, headers=server.headers) as answer,
    ):
        lines = (line for line in answer.iter_lines() if line.startswith("data: "))
        next(lines)
        yield lines


@contextmanager
def halted(pid: int) -> Iterator[None]:
    """A process that stands still, so that what it works on lasts."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def outcomes(server: Served) -> list[str]:
    return [entry["outcome"] for entry in server.entries()]


def test_sigterm_lets_balancers_notice_then_a_stream_end_and_exits_0(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    with served(tmp_path, checkpoints, TOLLGATE_API__DRAIN_DELAY_S="3", **ONE_SLOT) as server:
        engine = engine_of(server)
        with streaming(server) as lines:
            with halted(engine):
                server.process.send_signal(signal.SIGTERM)
                server.until("/readyz", 503, timeout_s=PATIENCE_S)
                assert server.status("/livez") == 200
                shown = httpx.get(server.url + "/v1/models", headers=server.headers)
                assert (shown.status_code, shown.headers["connection"]) == (200, "close")
                server.until("/livez", None, timeout_s=PATIENCE_S)
                assert server.process.poll() is None
            assert list(lines)[-1] == "data: [DONE]"
        assert server.process.wait(PATIENCE_S) == 0
        until_gone(engine)
        assert outcomes(server) == ["finished"]


def test_a_request_that_comes_while_draining_is_told_to_try_elsewhere(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    with served(tmp_path, checkpoints) as server, socket.socket() as late:
        address = httpx.URL(server.url)
        body = json.dumps(BODY).encode()
        late.settimeout(PATIENCE_S)
        late.connect((address.host, address.port))
        late.sendall(
            f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.key}\r\n"
            f"expect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body[:5]
        )
        begun = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert late.recv(len(begun), socket.MSG_WAITALL) == begun, "it has begun"
        server.process.send_signal(signal.SIGTERM)
        server.until("/livez", None, timeout_s=PATIENCE_S)
        late.sendall(body[5:])
        received = b""
        while part := late.recv(4096):
            received += part
        head, _, said = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close" in head.lower() and b"retry-after: 1" in head.lower()
        assert json.loads(said)["error"]["code"] == "draining"
        assert server.process.wait(PATIENCE_S) == 0
        assert outcomes(server) == []


def test_what_outlasts_the_drain_is_told_so_and_settled_as_far_as_it_came(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    with served(tmp_path, checkpoints, TOLLGATE_API__DRAIN_S="0.2", **ONE_SLOT) as server:
        with streaming(server) as lines:
            with halted(engine_of(server)):
                server.process.send_signal(signal.SIGTERM)
                give_up_s = time.monotonic() + PATIENCE_S
                while "1 requests are cut off" not in server.log.read_text(encoding="utf-8"):
                    assert time.monotonic() < give_up_s
                    time.sleep(0.02)
            seen = [json.loads(line.removeprefix("data: ")) for line in lines if not line.endswith("[DONE]")]
        assert seen[-1]["error"]["code"] == "draining"
        assert server.process.wait(PATIENCE_S) == 0
        (entry,) = server.entries()
        assert entry["outcome"] == "failed"
        assert len(seen) - 1 <= entry["output_tokens"] < 4 * 4 * 60


@pytest.mark.parametrize("words", [(), pytest.param(("--workers", "2"), marks=pytest.mark.fault_long)])
def test_a_second_signal_aborts(tmp_path: Path, checkpoints: dict[str, Path], words: tuple[str, ...]) -> None:
    drain_s = {"TOLLGATE_API__DRAIN_S": str(LONG_DRAIN_S)}
    with served(tmp_path, checkpoints, *words, **drain_s, **ONE_SLOT) as server, streaming(server):
        engine = engine_of(server)
        with halted(engine):
            server.process.send_signal(signal.SIGTERM)
            server.until("/livez", None, timeout_s=PATIENCE_S)
            assert server.process.poll() is None
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(LONG_DRAIN_S / 2) == 1
        until_gone(engine)


def test_several_workers_drain_together(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    with served(tmp_path, checkpoints, "--workers", "2", **ONE_SLOT) as server:
        engine = engine_of(server)
        with streaming(server) as lines:
            with halted(engine):
                server.process.send_signal(signal.SIGTERM)
                server.until("/livez", None, timeout_s=PATIENCE_S)
                assert server.process.poll() is None
            assert list(lines)[-1] == "data: [DONE]"
        assert server.process.wait(PATIENCE_S) == 0
        until_gone(engine)
        assert outcomes(server) == ["finished"]


def test_few_open_files_are_few_connections_and_no_outage(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    with served(tmp_path, checkpoints, files_max=256) as server, ExitStack() as held:
        address = httpx.URL(server.url)
        idle = [held.enter_context(socket.create_connection((address.host, address.port or 0))) for _ in range(300)]
        assert b"503" in idle[-1].recv(100)
        for one in idle[:10]:
            one.close()
        server.until("/livez", 200)
        with streaming(server) as lines:
            assert list(lines)[-1] == "data: [DONE]"
        assert server.command("usage", "--json"), "what it sold is written, too"
        warned = [line["event"] for line in server.logged() if line["level"] == "warning"]
        assert any(line.startswith("the system grants 256 open files: 96 connections") for line in warned), warned
        assert server.stop() == 0


def test_the_port_is_open_before_the_models_are_there_and_a_start_can_be_broken_off(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    with served(tmp_path, checkpoints, is_awaited=False) as server:
        server.until("/livez", 200)
        started = httpx.get(server.url + "/startupz")
        if started.status_code == 503:
            assert started.json()["phase"] in ("starting the engine", "loading models")
            unready = httpx.get(server.url + "/readyz")
            if unready.status_code == 503:
                assert unready.json()["status"] in ("starting the engine", "loading models")
        assert started.json()["models"] >= 4
        assert started.json()["elapsed_s"] >= 0
        assert server.stop() == 0


def test_a_start_without_the_gpu_that_was_asked_for_says_what_to_do(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    with served(tmp_path, checkpoints, is_awaited=False, TOLLGATE_ENGINE__DEVICE="cuda:63") as server:
        server.until("/startupz", 200)
        told = httpx.get(server.url + "/startupz").json()
        assert (told["models_loaded"], told["models_failed"]) == (0, told["models"])
        assert server.status("/livez") == 200
        assert server.status("/readyz") == 503
        lines = [line for line in server.logged() if line["level"] == "error"]
        assert all("a GPU that nvidia-smi lists here" in line["event"] for line in lines[:-1]), lines
        metrics = httpx.get(server.url + "/metrics").text
        assert "tollgate_ready 0" in metrics
        [memory] = re.findall(r"^tollgate_engine_resident_memory_bytes (\S+)$", metrics, re.MULTILINE)
        assert 5e7 < float(memory) < 5e9
        assert f": 0 of {told['models']} models loaded; not tiny-" in lines[-1]["event"]
        assert len(lines) == told["models"] + 1
        assert not any("exc" in name or "trace" in name for line in lines for name in line), "an operator's, no bug"
        assert server.stop() == 0

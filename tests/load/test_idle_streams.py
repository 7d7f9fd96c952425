"""A thousand clients that wait for a stream: memory bounded, and given back with their files when they hang up."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fixtures.process import Served, served

STREAMS = 1000
BODY = json.dumps({"model": "tiny-gpt2", "prompt": [5, 6, 7], "max_tokens": 60, "stream": True}).encode()
BYTES_EACH_MAX = 150_000


def scraped(server: Served) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx.get(server.url + "/metrics", timeout=30).text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def until_open(server: Served, count: int) -> dict[str, float]:
    give_up_s = time.monotonic() + 60
    while (found := scraped(server)).get("tollgate_requests_open", 0) != count:
        assert time.monotonic() < give_up_s, found.get("tollgate_requests_open")
        time.sleep(0.2)
    return found


def engine_of(server: Served) -> int:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text(encoding="utf-8")
    return int(children.split()[0])


def opened(server: Served) -> list[socket.socket]:
    address = httpx.URL(server.url)
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.key}\r\n"
        f"content-length: {len(BODY)}\r\n\r\n"
    )
    clients: list[socket.socket] = []
    for _ in range(STREAMS):
        clients.append(socket.create_connection((address.host, address.port)))
        clients[-1].sendall(head.encode() + BODY)
    return clients


@pytest.mark.fault_long
def test_a_thousand_waiting_streams_take_bounded_memory_and_leave_none_of_their_files(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    with served(tmp_path, checkpoints, TOLLGATE_ENGINE__QUEUE_JOBS="2000") as server:
        httpx.post(server.url + "/v1/completions", content=BODY, headers=server.headers, timeout=30)
        before = scraped(server)
        os.kill(engine_of(server), signal.SIGSTOP)
        clients = opened(server)
        during = until_open(server, STREAMS)
        for client in clients:
            client.close()
        os.kill(engine_of(server), signal.SIGCONT)
        after = until_open(server, 0)
        memory, files = "tollgate_process_resident_memory_bytes", "tollgate_process_open_fds"
        each = (during[memory] - before[memory]) / STREAMS
        print(
            f"\n{before[memory] / 2**20:.0f} MiB before, {during[memory] / 2**20:.0f} with {STREAMS} streams "
            f"({each / 1000:.0f} kB each), {after[memory] / 2**20:.0f} after; files {before[files]:.0f}, "
            f"{during[files]:.0f}, {after[files]:.0f}"
        )
        assert during[files] >= before[files] + STREAMS
        assert each < BYTES_EACH_MAX
        assert after[files] < before[files] + 20
        assert after["tollgate_requests_total"] == STREAMS + 1
        assert server.stop() == 0

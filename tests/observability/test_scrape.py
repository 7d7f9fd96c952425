"""One scrape of several processes, as an operator runs them: sums, also after one of them was killed."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from app.cli.workers import LIMITS_NAME
from app.observability.metrics import PROCESSES_FOLDER
from tests.fixtures.process import Served, children_of, served

ASK = {"model": "tiny-gpt2", "prompt": [5, 6, 7], "max_tokens": 4, "ignore_eos": True}
FRESH = {"connection": "close"}


def scraped(server: Served) -> dict[str, float]:
    """The sums over all labels, by sample."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx.get(server.url + "/metrics", headers=FRESH).text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def workers_of(parent: int) -> list[int]:
    """Processes that answer HTTP."""
    return [pid for pid, line in children_of(parent).items() if b"app.cli.workers" in line]


def until(server: Served, is_so: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """The first scrape of which it is true."""
    give_up_s = time.monotonic() + 60
    while not is_so(found := scraped(server)):
        assert time.monotonic() < give_up_s, found
        time.sleep(0.1)
    return found


def until_two_serve(server: Served, *, but: int = 0) -> None:
    """Two workers run, neither of them `but`, have told of themselves, and are ready."""
    give_up_s = time.monotonic() + 60
    while len(running := workers_of(server.process.pid)) != 2 or but in running:
        assert time.monotonic() < give_up_s, running
        time.sleep(0.02)
    until(server, lambda found: found.get("tollgate_processes") == 2 and found["tollgate_ready"] == 1)


def mapped_by(worker: int) -> list[Path]:
    """The files that workers map: their numbers, and the limits that they count together."""
    said = dict(line.split("=", 1) for line in Path(f"/proc/{worker}/environ").read_text().split("\0") if line)
    folder = Path(said[PROCESSES_FOLDER])
    return [*folder.iterdir(), folder.with_name(LIMITS_NAME)]


def test_any_worker_tells_the_sum_and_a_killed_one_takes_no_count_along(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    boards = '["vllm"]'
    with served(tmp_path, checkpoints, "--workers", "2", TOLLGATE_OBSERVABILITY__METRICS_COMPAT=boards) as server:
        until_two_serve(server)
        for _ in range(20):
            answer = httpx.post(server.url + "/v1/completions", json=ASK, headers=server.headers | FRESH)
            assert answer.status_code == 200, answer.text
        for _ in range(8):
            found = scraped(server)
            assert found["tollgate_requests_total"] == 20
            assert found["tollgate_generation_tokens_total"] == 80
            assert found["tollgate_time_to_first_token_seconds_count"] == 20
            assert found["vllm:generation_tokens_total"] == 80
        found = until(server, lambda found: found["tollgate_iteration_rows_count"] >= 80)  # told a moment late
        assert found["tollgate_iteration_rows_count"] < 160, "the engine's steps are its own, not twice as many"
        files = {path.name: path.stat() for path in mapped_by(workers_of(server.process.pid)[0])}
        holes = {name for name, found in files.items() if found.st_blocks * 512 < found.st_size}
        assert len(files) > 8 and not holes, "on a full disk a store into a hole ends the worker"
        killed = workers_of(server.process.pid)[0]
        os.kill(killed, signal.SIGKILL)
        until_two_serve(server, but=killed)
        assert scraped(server)["tollgate_requests_total"] == 20
        assert server.stop() == 0

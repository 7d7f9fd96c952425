"""Limits that the workers of one machine count together: one limit for all, also when one of them is killed."""

import asyncio
import json
import multiprocessing
import os
import signal
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import httpx
import pytest

from app.admission.buckets import Ask, Limit, What
from app.admission.mapped_buckets import PROBES, SLOTS, MappedBuckets, make_file
from app.clock import SystemClock
from tests.cli.test_serve import command, environment, served
from tests.fixtures.clock import TurnedClock

REQUESTS = Limit("key_1", What.REQUESTS, 1000)
TRIES = 500
CONCURRENT = Limit("key_1", What.CONCURRENT, 3)


def ask(name: object, *limits: Limit) -> Ask:
    return Ask(request_id=f"r{name}", tenant_id="t", limits=limits, tokens=1)


def take_many(path: Path, worker: int, told: "Queue[int]", all_there: Barrier) -> None:
    """A worker process that takes what it can get, while the others do."""
    buckets = MappedBuckets(path=path, worker=worker, clock=TurnedClock())

    async def run() -> int:
        found = [await buckets.take(ask(f"{worker}-{number}", REQUESTS)) for number in range(TRIES)]
        return found.count(None)

    all_there.wait()
    told.put(asyncio.run(run()))


def die_running(path: Path, worker: int) -> None:
    """A worker process that is killed while two of its requests run, and while it has the lock."""
    buckets = MappedBuckets(path=path, worker=worker, clock=SystemClock())
    for number in range(2):
        asyncio.run(buckets.take(ask(number, CONCURRENT)))
    with buckets._locked():  # pyright: ignore[reportPrivateUsage]
        os.kill(os.getpid(), signal.SIGKILL)


def test_four_processes_at_once_pass_exactly_the_limit(tmp_path: Path) -> None:
    make_file(tmp_path / "limits", workers=4)
    spawning = multiprocessing.get_context("spawn")
    told: Queue[int] = spawning.Queue()
    all_there = spawning.Barrier(4)
    processes = [
        spawning.Process(target=take_many, args=(tmp_path / "limits", n, told, all_there)) for n in range(1, 5)
    ]
    for process in processes:
        process.start()
    counts = [told.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sum(counts) == REQUESTS.amount < 4 * TRIES


async def test_the_places_of_a_killed_worker_come_back_when_it_starts_again(tmp_path: Path) -> None:
    make_file(tmp_path / "limits", workers=2)
    mine = MappedBuckets(path=tmp_path / "limits", worker=1, clock=SystemClock())
    dying = multiprocessing.get_context("spawn").Process(target=die_running, args=(tmp_path / "limits", 2))
    dying.start()
    await asyncio.to_thread(dying.join)
    assert await mine.take(ask("a", CONCURRENT)) is None
    assert await mine.take(ask("b", CONCURRENT)) is not None
    again = MappedBuckets(path=tmp_path / "limits", worker=2, clock=SystemClock())
    assert await mine.take(ask("b", CONCURRENT)) is None
    assert await again.take(ask("c", CONCURRENT)) is None
    assert await mine.take(ask("d", CONCURRENT)) is not None
    mine.close()
    again.close()


async def test_more_keys_than_slots_forget_the_one_that_rested_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.admission.mapped_buckets.SLOTS", PROBES)
    assert SLOTS > 10_000 * 6, "room for six limits of 10,000 keys"
    make_file(tmp_path / "limits", workers=1)
    clock = TurnedClock()
    buckets = MappedBuckets(path=tmp_path / "limits", worker=1, clock=clock)
    limits = [Limit(f"key_{number}", What.REQUESTS, 1) for number in range(PROBES + 1)]
    for limit in limits:
        clock.turn(0.01)
        assert await buckets.take(ask(limit.scope, limit)) is None
    assert await buckets.take(ask("last", limits[-1])) is not None
    assert await buckets.take(ask("second", limits[1])) is not None
    assert await buckets.take(ask("first", limits[0])) is None
    buckets.close()


def test_two_workers_enforce_one_limit_over_http(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    env = environment(tmp_path, checkpoints) | {"TOLLGATE_ENGINE__THREADS": "1"}
    words = ("--tenant", "acme", "--name", "web", "--requests-per-minute", "30", "--json")
    key = json.loads(command(env, "keys", "create", *words))["key"]
    with served(env, "--workers", "2") as (url, _):
        began_s = time.monotonic()
        statuses: list[int] = []
        for _ in range(60):  # a connection each, so that both workers are asked
            body = {"model": "tiny-bert-classifier", "input": "hello"}
            headers = {"authorization": f"Bearer {key}", "connection": "close"}
            statuses.append(httpx.post(url + "/v1/classifications", json=body, headers=headers).status_code)
        refilled = (time.monotonic() - began_s) / 2
    assert set(statuses) == {200, 429}
    assert 30 <= statuses.count(200) <= 31 + refilled

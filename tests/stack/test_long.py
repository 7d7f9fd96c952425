"""Two replicas against one, and a soak: figures for docs/operating.md (`make test-stack`)."""

import asyncio
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import linear_regression

import psycopg
import pytest

from deploy.stack import Stack
from tests.stack.books import assert_balanced
from tests.stack.clients import crowd_at
from tests.stack.conftest import stack_of
from tests.stack.test_replicas import children_of, engine_of

pytestmark = [pytest.mark.stack, pytest.mark.timeout(4000)]
MEASURED_S = 10.0
SOAK_S = float(os.environ.get("SOAK_S", "60"))
SOAK_PAUSE_S = float(os.environ.get("SOAK_PAUSE_S", "0"))
"""How long each of the soak's customers rests after a request, at most: 0 is all that the machine gives."""
SAMPLES = 60
Size = tuple[float, int, int]
"""Resident MiB, open files and threads."""
WARM_SHARE = 0.34
"""Of a soak: what grows until then is caches, not leaks."""


def commits(stack: Stack) -> int:
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        row = connection.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = 'tollgate'").fetchone()
    assert row is not None
    return int(row[0])


def redis_calls(stack: Stack) -> int:
    tool = ["redis-cli", "-p", str(stack.redis_port), "info", "stats"]
    told = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
    return int(next(line.split(":")[1] for line in told.splitlines() if line.startswith("total_commands_processed")))


def processor_seconds(stack: Stack) -> dict[str, float]:
    """Spent so far by each part, with all that it started; the customers are this process."""
    ticks = os.sysconf("SC_CLK_TCK")
    roots = {
        "PostgreSQL": [stack.postgres.pid], "Redis": [stack.redis.pid], "nginx": [stack.nginx.pid],
        "engines": [engine_of(stack, index) for index in range(stack.replica_count)],
        "replicas' HTTP": [replica.pid for replica in stack.replicas], "customers": [os.getpid()],
    }  # fmt: skip
    found = dict.fromkeys(roots, 0.0)
    for name, pids in roots.items():
        workers = [child for pid in pids for child in children_of(pid)] if name in ("PostgreSQL", "nginx") else []
        for process in (*pids, *workers):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            found[name] += (int(fields[11]) + int(fields[12])) / ticks
    return found


async def measured(stack: Stack, customers: int) -> tuple[float, float, float, dict[str, float]]:
    """Requests a second, PostgreSQL commits and Redis commands a request, and milliseconds of processor by part."""
    key = await asyncio.to_thread(stack.new_key, tenant="t" + secrets.token_hex(4))
    async with crowd_at(stack.url, key, customers) as crowd:
        before, spent = (
            (len(crowd.calls), commits(stack), redis_calls(stack), time.monotonic()),
            processor_seconds(stack),
        )
        await asyncio.sleep(MEASURED_S)
        count = len(crowd.calls) - before[0]
        seconds = time.monotonic() - before[3]
        parts = {name: 1000 * (now - spent[name]) / count for name, now in processor_seconds(stack).items()}
        found = count / seconds, (commits(stack) - before[1]) / count, (redis_calls(stack) - before[2]) / count, parts
    assert not crowd.failed, crowd.told()
    return found


async def test_two_replicas_against_one_on_the_same_cores(stack: Stack, checkpoints: dict[str, Path]) -> None:
    both = await measured(stack, 64)
    folder = Path(tempfile.mkdtemp(prefix="tollgate-stack-"))
    single = stack_of(folder, checkpoints, replica_count=1)
    try:
        await asyncio.to_thread(single.start)
        one = await measured(single, 64)
    finally:
        await asyncio.to_thread(single.stop)
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{os.cpu_count()} cores shared with 64 customers: two replicas {both[0]:.1f} requests/s, one {one[0]:.1f}")
    print(f"a request: {both[1]:.2f} commits in PostgreSQL, {both[2]:.2f} commands in Redis")
    for name, cost in (("two replicas", both), ("one", one)):
        busy = sum(cost[3].values()) * cost[0] / 1000 / (os.cpu_count() or 1)
        shown = ", ".join(f"{part} {spent:.1f}" for part, spent in sorted(cost[3].items(), key=lambda one: -one[1]))
        print(f"{name}, ms of processor a request ({busy:.0%} of {os.cpu_count()} cores): {shown}")
    assert both[0] > 0.5 * one[0]


def sizes(stack: Stack) -> dict[str, Size]:
    """Of each replica and its engine."""
    found: dict[str, Size] = {}
    for index, replica in enumerate(stack.replicas):
        for name, pid in ((replica.name, replica.pid), (f"engine-{index + 1}", engine_of(stack, index))):
            status = Path(f"/proc/{pid}/status").read_text()
            value = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if len(line.split()) > 1}
            files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            found[name] = round(int(value["VmRSS"]) / 1024, 1), files, int(value["Threads"])
    return found


def slopes(samples: list[tuple[float, dict[str, Size]]], name: str) -> tuple[float, float, float]:
    """What a process gains an hour: MiB, open files, threads; by least squares."""
    hours = [at_s / 3600 for at_s, _ in samples]
    gained = (linear_regression(hours, [sizes[name][which] for _, sizes in samples]).slope for which in range(3))
    memory, files, threads = gained
    return memory, files, threads


async def test_a_soak_leaves_memory_files_and_threads_flat(stack: Stack) -> None:
    tenant = "t" + secrets.token_hex(4)
    key = await asyncio.to_thread(stack.new_key, tenant=tenant)
    samples: list[tuple[float, dict[str, Size]]] = []
    async with crowd_at(stack.url, key, 32, pause_s=SOAK_PAUSE_S) as crowd:
        await asyncio.sleep(SOAK_S * WARM_SHARE)
        for _ in range(SAMPLES):
            samples.append((time.monotonic(), sizes(stack)))
            await asyncio.sleep(SOAK_S * (1 - WARM_SHARE) / SAMPLES)
    print(f"\n{SOAK_S:.0f} s, 32 customers: {crowd.told()}")
    warm, last = samples[0][1], samples[-1][1]
    for name in warm:
        memory, files, threads = slopes(samples, name)
        print(f"{name}: MiB, files, threads {warm[name]} at a third, {last[name]} at the end;", end=" ")
        print(f"an hour {memory:+.1f} MiB, {files:+.1f} files, {threads:+.1f} threads")
    print(await asyncio.to_thread(assert_balanced, stack, crowd, tenant))
    assert not crowd.failed, crowd.told()
    for name, (memory, files, threads) in warm.items():
        assert last[name][0] <= memory * 1.1 + 20, name
        assert last[name][1] <= files + 40 and last[name][2] <= threads + 8, name

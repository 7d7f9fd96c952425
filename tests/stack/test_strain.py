"""What the stack does when a part of it is neither well nor dead: frozen, full, or out of connections."""

import asyncio
import os
import resource
import signal
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psycopg
import pytest
from redis import Redis

from deploy.processes import answers
from deploy.stack import Stack
from tests.stack.clients import Crowd
from tests.stack.test_replicas import AFTER_S, assert_only_what_was_on, children_of, customers, engine_of, until_ready

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]
COUNT = 16
FROZEN_S = 30.0
IDLE = 10_000


async def until_stuck(crowd: Crowd) -> int:
    """Wait until nobody gets anything any more; returns how many were served by then."""
    seen = -1
    while seen != len(crowd.done):
        seen = len(crowd.done)
        await asyncio.sleep(1.5)
    return seen


async def test_a_replica_frozen_for_half_a_minute_keeps_its_customers_waiting_and_fails_none(stack: Stack) -> None:
    async with customers(stack, COUNT) as (crowd, _):
        os.kill(stack.replicas[0].pid, signal.SIGSTOP)
        try:
            await until_stuck(crowd)
            await asyncio.sleep(FROZEN_S)
        finally:
            os.kill(stack.replicas[0].pid, signal.SIGCONT)
    assert not crowd.failed, crowd.told()


async def test_a_frozen_replica_that_is_killed_frees_its_customers(stack: Stack) -> None:
    async with customers(stack, COUNT, killed=0) as (crowd, tenant):
        os.kill(stack.replicas[0].pid, signal.SIGSTOP)
        before = await until_stuck(crowd)
        await asyncio.to_thread(stack.replicas[0].kill)
        await asyncio.to_thread(stack.replicas[0].start)
        await asyncio.sleep(AFTER_S)
    assert len(crowd.done) > before + COUNT
    assert_only_what_was_on(stack, crowd, tenant, 0)


async def test_a_frozen_engine_is_killed_after_hang_s_and_nobody_waits_longer(stack: Stack) -> None:
    hang_s = 30.0
    async with customers(stack, COUNT) as (crowd, tenant):
        os.kill(engine_of(stack, 1), signal.SIGSTOP)
        began_s = time.monotonic()
        while await asyncio.to_thread(answers, stack.replica_url(1) + "/readyz"):
            assert time.monotonic() < began_s + hang_s + 15, "nobody notices"
            await asyncio.sleep(0.2)
        noticed_s = time.monotonic() - began_s
        await until_ready(stack, 1)
        print(f"\nnoticed after {noticed_s:.0f} s, served again after {time.monotonic() - began_s:.0f} s")
    assert_only_what_was_on(stack, crowd, tenant, 1)


def take_all_connections(stack: Stack) -> list[psycopg.Connection]:
    """Every connection that PostgreSQL has, those of the replicas too, which are cut off and not let in again."""
    mine = [psycopg.connect(stack.database_url, autocommit=True)]
    while True:
        with suppress(psycopg.OperationalError):
            while True:
                mine.append(psycopg.connect(stack.database_url))
        others = mine[0].execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tollgate' AND pid <> ALL(%s)",
            [[connection.info.backend_pid for connection in mine]],
        )
        if not others.fetchall():
            return mine


async def test_a_database_without_a_free_connection_is_one_that_is_away(stack: Stack) -> None:
    async with customers(stack, COUNT) as (crowd, _):
        taken = await asyncio.to_thread(take_all_connections, stack)
        before = len(crowd.done)
        await asyncio.sleep(3 * AFTER_S)
        meanwhile = len(crowd.done) - before
        for connection in taken:
            connection.close()
        await asyncio.sleep(AFTER_S)
    print(f"{len(taken)} connections were taken; {meanwhile} requests were served meanwhile")
    assert not crowd.failed, crowd.told()
    assert meanwhile > COUNT


async def until_shared(stack: Stack, wanted: str) -> None:
    """Until both replicas say that limits are shared, or that they are not."""
    for port in stack.replica_admin_ports:
        url = f"http://127.0.0.1:{port}/metrics"
        while f"\ntollgate_limits_shared {wanted}" not in (await asyncio.to_thread(httpx.get, url)).text:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def test_a_full_redis_is_one_that_is_away(stack: Stack) -> None:
    async with customers(stack, COUNT) as (crowd, tenant):
        words = ("limits", "set", "--tenant", tenant, "--requests-per-minute", "1000000")
        await asyncio.to_thread(stack.command, *words)
        with Redis(port=stack.redis_port) as operator:
            usual = operator.config_get("maxmemory")["maxmemory"]
            operator.config_set("maxmemory", "1")
            await until_shared(stack, "0.0")
            await asyncio.sleep(3 * AFTER_S)
            await until_shared(stack, "0.0")
            operator.config_set("maxmemory", usual)
        await until_shared(stack, "1.0")
    assert not crowd.failed, crowd.told()


async def test_ten_thousand_idle_connections_hinder_nobody(stack: Stack) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with ExitStack() as idle:
            for _ in range(IDLE):
                one = idle.enter_context(socket.create_connection(("127.0.0.1", stack.port)))
                one.sendall(b"GET /balancer/livez HTTP/1.1\r\nhost: x\r\n\r\n")
            async with customers(stack, COUNT) as (crowd, _):
                await asyncio.sleep(3 * AFTER_S)
            resident = [resident_mib(pid) for pid in (stack.nginx.pid, *children_of(stack.nginx.pid))]
            print(f"nginx with {IDLE} idle connections: {resident} MiB")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not crowd.failed, crowd.told()
    assert sum(resident) < 200


def resident_mib(pid: int) -> int:
    """Memory that a process has now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() // 2**20

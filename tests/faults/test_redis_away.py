"""Redis killed, brought back and frozen under a crowd at two servers: no error, and about the limit passes."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fixtures.postgres import Postgres
from tests.fixtures.redis import RedisServer
from tests.fixtures.server import Running, running_server
from tests.postgres.test_road import INLINE

A_MINUTE = 600
"""The limit of the key, on both servers together."""
A_SECOND = A_MINUTE / 60
CUSTOMERS = 24
CALL: dict[str, Any] = {"model": "tiny-bert-classifier", "input": "hello"}
TIMEOUT_S = 0.25


@dataclass
class Crowd:
    """Customers that ask again and again, refused or not, and what they were told."""

    is_over: bool = False
    statuses: Counter[int] = field(default_factory=Counter[int])
    slowest_s: float = 0.0
    without_advice: int = 0

    async def ask_for_ever(self, client: httpx.AsyncClient, headers: dict[str, str]) -> None:
        while not self.is_over:
            began_s = time.monotonic()
            answer = await client.post("/v1/classifications", json=CALL, headers=headers)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
            self.statuses[answer.status_code] += 1
            if answer.status_code == 429:
                self.without_advice += int(answer.headers["retry-after-ms"]) <= 0
                await asyncio.sleep(0.1)

    async def during(self, seconds: float) -> int:
        """How many passed in the next seconds."""
        before = self.statuses[200]
        await asyncio.sleep(seconds)
        return self.statuses[200] - before


@asynccontextmanager
async def two_servers(
    postgres: Postgres, redis_server: RedisServer, home: Path, checkpoints: dict[str, Path]
) -> AsyncGenerator[tuple[Running, Running]]:
    url = postgres.fresh()
    for name in ("a", "b"):
        (home / name).mkdir()
        (home / name / "pepper").write_bytes(b"p" * 32)
    limits = {"redis_url": redis_server.url, "redis_timeout_s": TIMEOUT_S, "replicas": 2}
    more: dict[str, Any] = {"database_url": url, "limits": limits}
    async with (
        running_server(home / "a", checkpoints, INLINE, **more) as one,
        running_server(home / "b", checkpoints, INLINE, **more) as other,
    ):
        yield one, other


async def until_shared(server: Running, wanted: float) -> None:
    async with asyncio.timeout(10):
        while f"tollgate_limits_shared {wanted}" not in (await server.client.get("/metrics")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.mark.fault_long
@pytest.mark.timeout(300)
async def test_a_crowd_sees_no_error_and_about_its_limit_while_redis_comes_and_goes(
    postgres: Postgres, redis_server: RedisServer, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    async with two_servers(postgres, redis_server, tmp_path, checkpoints) as servers:
        boss = {"authorization": f"Bearer {servers[0].admin_key}"}
        rule = {"requests_per_minute": A_MINUTE}
        assert (await servers[0].client.put("/admin/tenants/acme/limits", json=rule, headers=boss)).status_code == 200
        headers = {"authorization": f"Bearer {servers[0].key}"}
        crowd, began_s = Crowd(), time.monotonic()
        asking = [
            asyncio.create_task(crowd.ask_for_ever(servers[number % 2].client, headers)) for number in range(CUSTOMERS)
        ]
        async with asyncio.timeout(60):
            while not crowd.statuses[429]:
                await crowd.during(0.1)
        seconds = 8.0
        found = {"shared": await crowd.during(seconds)}
        redis_server.stop()
        found["away"] = await crowd.during(seconds)
        for server in servers:
            await until_shared(server, 0.0)
        redis_server.start()
        for server in servers:
            await until_shared(server, 1.0)
        async with asyncio.timeout(60):  # an empty Redis knows of nothing taken: the bucket is full, once
            while await crowd.during(1.0) > 2 * A_SECOND:
                pass
        redis_server.freeze()
        found["frozen"] = await crowd.during(seconds)
        redis_server.thaw()
        for server in servers:
            await until_shared(server, 1.0)
        found["back"] = await crowd.during(seconds)
        crowd.is_over = True
        await asyncio.gather(*asking)
        took_s = time.monotonic() - began_s
        nominal = A_MINUTE + A_SECOND * took_s
        print(
            f"\nin {took_s:.0f} s {dict(crowd.statuses)}, {crowd.statuses[200] / nominal:.2f} x of nominal; in "
            f"{seconds:.0f} s each (nominal {A_SECOND * seconds:.0f}): {found}; slowest answer {crowd.slowest_s:.2f} s"
        )
        assert set(crowd.statuses) == {200, 429}
        assert crowd.without_advice == 0
        assert crowd.statuses[200] <= 2 * nominal
        for name, passed in found.items():
            assert A_SECOND * seconds / 2 <= passed <= 2 * A_SECOND * seconds, name
        assert crowd.slowest_s < 5

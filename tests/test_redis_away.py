"""A server whose Redis dies under traffic: customers see no error, the metric says so, and it comes back by itself."""

import json
import time
from pathlib import Path

import httpx

from tests.cli.test_serve import command, environment, served
from tests.fixtures.redis import RedisServer

CALL = {"model": "tiny-bert-classifier", "input": "hello"}
RETURN_S = 60.0


def shared(client: httpx.Client) -> float:
    line = next(line for line in client.get("/metrics").text.splitlines() if line.startswith("tollgate_limits_shared "))
    return float(line.split()[1])


def test_customers_see_no_error_while_redis_is_away(
    tmp_path: Path, checkpoints: dict[str, Path], redis_server: RedisServer
) -> None:
    env = environment(tmp_path, checkpoints) | {
        "TOLLGATE_LIMITS__REDIS_URL": redis_server.url,
        "TOLLGATE_LIMITS__REDIS_TIMEOUT_S": "5",
        "TOLLGATE_LIMITS__REPLICAS": "2",
        "TOLLGATE_ENGINE__THREADS": "1",
    }
    words = ("--tenant", "acme", "--name", "web", "--requests-per-minute", "40", "--json")
    key = json.loads(command(env, "keys", "create", *words))["key"]
    with (
        served(env) as (url, _),
        httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=30) as client,
    ):

        def statuses(count: int) -> list[int]:
            return [client.post("/v1/classifications", json=CALL).status_code for _ in range(count)]

        assert statuses(5) == [200] * 5
        assert shared(client) == 1
        redis_server.stop()
        away = statuses(40)
        assert set(away) == {200, 429}
        assert 17 <= away.count(200) <= 30, "half of the limit, begun as full as it last was, and what refilled since"
        assert shared(client) == 0
        refused = client.post("/v1/classifications", json=CALL)
        assert int(refused.headers["retry-after-ms"]) > 0
        redis_server.start()
        give_up_s = time.monotonic() + RETURN_S
        while shared(client) == 0:
            assert time.monotonic() < give_up_s
            time.sleep(0.1)
        assert statuses(5) == [200] * 5

"""A key that another process revokes: new requests are refused, and its running stream stops, within two seconds."""

import json
import time
from pathlib import Path

import pytest

from app.clock import SystemClock
from app.metering.database import Database
from app.metering.keys import revoke_key
from tests.fixtures.server import Running

ROWS, TOKENS = 64, 55
BOUND_S = 2.0


@pytest.mark.usefixtures("slow_engine")
async def test_a_running_stream_stops_and_is_charged_what_was_delivered(server: Running, tmp_path: Path) -> None:
    body = {
        "model": "tiny-gpt2", "prompt": ["one"] * (ROWS // 16), "n": 16, "max_tokens": TOKENS, "ignore_eos": True,
        "stream": True,
    }  # fmt: skip
    elsewhere = Database(home=tmp_path)
    await elsewhere.open()
    revoked_s, chunks, last = 0.0, 0, ""
    async with server.client.stream("POST", "/v1/completions", json=body) as stream:
        assert stream.status_code == 200
        async for line in stream.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunks, last = chunks + 1, line
            if not revoked_s:
                await elsewhere.run(lambda connection: revoke_key(connection, clock=SystemClock(), key="first"))
                revoked_s = time.monotonic()
    took_s = time.monotonic() - revoked_s
    await elsewhere.close()
    assert took_s < BOUND_S
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "key_revoked"
    assert (await server.client.get("/v1/models")).status_code == 401
    [entry] = await server.settled(1)
    assert entry["outcome"] == "key_revoked"
    assert 0 < entry["output_tokens"] < ROWS * TOKENS
    assert 'outcome="key_revoked"' in (await server.client.get("/metrics")).text
    assert server.app.state.serving.engine.stats().running == 0

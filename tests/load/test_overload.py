"""Five times what the server can do: it does as much as before, what it takes is in time, and the rest is told so."""

import asyncio
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx
import pytest

from tests.fixtures.process import Served, served

BODY: dict[str, Any] = {
    "model": "tiny-gpt2", "prompt": [5, 6, 7], "n": 8, "max_tokens": 60, "ignore_eos": True, "temperature": 0,
}  # fmt: skip
SLOTS = 4
WAIT_S = 2.0
WARM_S, PEAK_S, OVERLOAD_S = 6.0, 10.0, 25.0
TIMES = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """How one request ended."""

    at_s: float
    took_s: float
    status: int
    retry_after: str | None


class Client:
    """The same request over and over on kept connections, and nothing else: what it takes, the server's cores lack."""

    def __init__(self, server: Served) -> None:
        url, body = httpx.URL(server.url), json.dumps(BODY).encode()
        self._place = url.host, url.port
        head = {**server.headers, "host": url.netloc.decode(), "content-length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self._request = (
            f"POST /v1/completions HTTP/1.1\r\ncontent-type: application/json\r\n{lines}\r\n".encode() + body
        )
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self) -> Seen:
        began_s = time.monotonic()
        while self._free and self._free[-1][0].at_eof():
            self._free.pop()[1].close()
        reader, writer = self._free.pop() if self._free else await asyncio.open_connection(*self._place)
        writer.write(self._request)
        head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().strip().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        await reader.readexactly(int(fields["content-length"]))
        self._free.append((reader, writer))
        now_s = time.monotonic()
        return Seen(now_s, now_s - began_s, int(head.split()[1]), fields.get("retry-after"))

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


async def closed_loop(client: Client, *, clients: int, seconds: float) -> list[Seen]:
    """Each client asks again when it is answered."""
    end_s = time.monotonic() + seconds

    async def one() -> list[Seen]:
        found: list[Seen] = []
        while time.monotonic() < end_s:
            found.append(await client.ask())
        return found

    return [seen for found in await asyncio.gather(*(one() for _ in range(clients))) for seen in found]


async def open_loop(client: Client, *, rate: float, seconds: float) -> list[Seen]:
    """Arrivals that do not care how the server is."""
    source, asked = random.Random(7), list[asyncio.Task[Seen]]()
    began_s = time.monotonic()
    due_s = began_s
    while due_s < began_s + seconds:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        asked.append(asyncio.create_task(client.ask()))
        due_s += source.expovariate(rate)
    return await asyncio.gather(*asked)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


async def peak_of(client: Client) -> tuple[float, float]:
    """Requests a second, and their p99 in seconds, in a closed loop that keeps the engine busy."""
    began_s = time.monotonic()
    found = await closed_loop(client, clients=4, seconds=PEAK_S)
    rate = sum(seen.status == 200 for seen in found) / (time.monotonic() - began_s)
    return rate, percentile([seen.took_s for seen in found], 0.99)


async def measure(server: Served) -> tuple[list[tuple[float, float]], list[Seen], float]:
    """The peak before and after, as machines drift; what was seen in overload, and its goodput."""
    client = Client(server)
    try:
        await closed_loop(client, clients=4, seconds=WARM_S)
        before = await peak_of(client)
        began_s = time.monotonic()
        found = await open_loop(client, rate=TIMES * before[0], seconds=OVERLOAD_S)
        done = sum(seen.status == 200 and seen.at_s < began_s + OVERLOAD_S for seen in found)
        return [before, await peak_of(client)], found, done / OVERLOAD_S
    finally:
        client.close()


@pytest.mark.fault_long
async def test_at_five_times_the_capacity_goodput_stays_and_admitted_requests_are_in_time(
    tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    with served(
        tmp_path, checkpoints, TOLLGATE_ENGINE__SLOTS=str(SLOTS), TOLLGATE_API__QUEUE_WAIT_S=str(WAIT_S)
    ) as server:
        peaks, found, goodput = await measure(server)
        peak, peak_p99_s = fmean(rate for rate, _ in peaks), max(p99_s for _, p99_s in peaks)
        good = [seen for seen in found if seen.status == 200]
        refused = [seen for seen in found if seen.status == 503]
        p99_s = percentile([seen.took_s for seen in good], 0.99)
        refused_p99_s = percentile([seen.took_s for seen in refused], 0.99)
        print(
            f"\npeak {peaks[0][0]:.1f} before and {peaks[1][0]:.1f} requests/s after (p99 {peak_p99_s:.2f} s); offered "
            f"{len(found) / OVERLOAD_S:.1f}/s: goodput {goodput:.1f}/s = {goodput / peak:.0%}, p99 of admitted "
            f"{p99_s:.2f} s, {len(refused)} refused with a p99 of {refused_p99_s:.3f} s"
        )
        assert {seen.status for seen in found} == {200, 503}
        assert all(seen.retry_after is not None for seen in refused)
        assert goodput >= 0.9 * peak
        assert p99_s <= 1.5 * (WAIT_S + peak_p99_s)
        assert refused_p99_s <= 1.0
        assert server.stop() == 0

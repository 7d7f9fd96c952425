"""python -m benchmarks.key_timing: whether the time of a key's check tells more than its answer does.

Ten thousand keys in the table; tries of all kinds take turns, each key is presented once. In the process first (the
function alone), then over HTTP. Two kinds are compared by Mann and Whitney's rank test: p is how often two samples of
one and the same distribution would differ as much.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
from sqlalchemy import update

from app.admission.authenticate import Authenticator
from app.clock import SystemClock
from app.errors import InvalidKey
from app.metering.database import Database
from app.metering.keys import ALPHABET, CHECKSUM_LENGTH, Pepper, base62, create_key, make_key
from app.metering.tables import api_key
from benchmarks.runners.served import Served

CLOCK = SystemClock()
KEYS = 10_000
KINDS = ("known", "revoked", "unknown", "near", "checksum")
"""In the table; there, but revoked; of the right form; the same, one character off a known one; noise."""


def near(key: str) -> str:
    """A key that differs from `key` in its last character before the checksum, which fits."""
    body = key[:-CHECKSUM_LENGTH]
    body = body[:-1] + ALPHABET[(ALPHABET.index(body[-1]) + 1) % len(ALPHABET)]
    return body + base62(zlib.crc32(body.encode()), CHECKSUM_LENGTH)


async def keys_in(home: Path, tries: int) -> dict[str, list[str]]:
    """Fill a database; returns the keys of each kind."""
    database, pepper = Database(home=home), Pepper(home)
    await database.open()
    made: list[str] = []
    for first in range(0, KEYS, 500):
        made += await database.run(
            lambda c, first=first: [
                create_key(c, clock=CLOCK, pepper=pepper, tenant_name="t", name=f"k{first + one}").key
                for one in range(500)
            ]
        )
    random.shuffle(made)
    known, revoked = made[:tries], made[tries : 2 * tries]
    digests = [pepper.digest(key) for key in revoked]
    for first in range(0, tries, 500):
        ended = update(api_key).where(api_key.c.digest.in_(digests[first : first + 500])).values(revoked_us=1)
        await database.run(lambda c, ended=ended: c.execute(ended))
    await database.close()
    return {
        "known": known, "revoked": revoked, "unknown": [make_key(is_admin=False) for _ in known],
        "near": [near(key) for key in known],
        "checksum": [key[:-1] + ("0" if key[-1] != "0" else "1") for key in known],
    }  # fmt: skip


async def timed(keys: Mapping[str, Sequence[str]], ask: Callable[[str], Awaitable[object]]) -> dict[str, list[float]]:
    """Microseconds of each try; the kinds take turns, in a new order each time."""
    took: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for index in range(len(keys["known"])):
        for kind in random.sample(KINDS, len(KINDS)):
            began_s = time.perf_counter()
            await ask(keys[kind][index])
            took[kind].append((time.perf_counter() - began_s) * 1e6)
    return took


def p_of(one: Sequence[float], other: Sequence[float]) -> float:
    """Mann and Whitney's two-sided p, by the normal approximation; times hardly ever tie."""
    ranks = {place: rank for rank, (_, place) in enumerate(sorted((t, i) for i, t in enumerate([*one, *other])), 1)}
    count, rest = len(one), len(other)
    u = sum(ranks[place] for place in range(count)) - count * (count + 1) / 2
    deviation = (count * rest * (count + rest + 1) / 12) ** 0.5
    return 2 * (1 - statistics.NormalDist().cdf(abs(u - count * rest / 2) / deviation))


def tell(where: str, took: Mapping[str, Sequence[float]]) -> None:
    """Print a table."""
    print(f"{where}: {len(took['known'])} tries of each kind")
    for kind in KINDS:
        quarters = statistics.quantiles(took[kind], n=4)
        p = p_of(took[kind], took["unknown"])
        print(f"  {kind:9} median {quarters[1]:7.1f} µs, quartiles {quarters[0]:.1f}-{quarters[2]:.1f}; "
              f"against unknown p = {p:.3g}")  # fmt: skip


async def in_process(home: Path, keys: Mapping[str, Sequence[str]]) -> None:
    """The function alone."""
    database = Database(home=home)
    await database.open()
    authenticator = Authenticator(database=database, pepper=Pepper(home), clock=CLOCK)
    await authenticator.poll()

    async def ask(key: str) -> None:
        with suppress(InvalidKey):
            await authenticator.authenticate(key, "127.0.0.1")

    tell("in the process", await timed(keys, ask))
    await database.close()


async def over_http(url: str, keys: Mapping[str, Sequence[str]]) -> None:
    """GET /v1/models of a server without any, on one connection: a good key gets an empty list."""
    async with httpx.AsyncClient(base_url=url) as client:

        async def ask(key: str) -> None:
            answer = await client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
            assert answer.status_code in (200, 401), answer.text

        tell("over HTTP", await timed(keys, ask))


def main() -> None:
    """Both."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.key_timing", description=__doc__)
    parser.add_argument("--tries", type=int, default=5000, help=f"of each kind, at most half of {KEYS:,} (5,000)")
    tries = parser.parse_args().tries
    with tempfile.TemporaryDirectory(prefix="tollgate-keys-") as folder:
        home = Path(folder)
        keys = asyncio.run(keys_in(home, tries))
        asyncio.run(in_process(home, keys))
        catalogue = home / "catalog.yaml"
        catalogue.write_text("models: []\n", encoding="utf-8")
        env = {"TOLLGATE_HOME": str(home), "TOLLGATE_REGISTRY__CATALOGUE": str(catalogue)}
        server = Served(["app", "serve", "--host", "127.0.0.1"], env=env, ready="/livez")
        try:
            asyncio.run(over_http(server.url, keys))
        finally:
            server.close()


if __name__ == "__main__":
    main()

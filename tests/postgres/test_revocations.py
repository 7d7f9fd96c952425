"""A hundred revocations at random moments: each holds on both replicas, for new and running requests, within 2 s."""

import asyncio
import random
import time
from pathlib import Path

from app.admission.authenticate import Authenticator
from app.clock import SystemClock
from app.errors import InvalidKey
from app.metering.database import Database
from app.metering.keys import NewKey, Pepper, create_key, revoke_key
from tests.postgres.test_books import replicas

__all__ = ["replicas"]
CLOCK = SystemClock()
TRIES = 100
BOUND_S = 2.0


async def test_a_hundred_revocations_hold_on_both_replicas_within_two_seconds(
    replicas: list[Database], tmp_path: Path
) -> None:
    pepper, random_ = Pepper(tmp_path), random.Random(4)
    both = [Authenticator(database=database, pepper=pepper, clock=CLOCK) for database in replicas]
    polling = [asyncio.create_task(one.run()) for one in both]
    for one in both:
        await one.poll()
    keys = [
        await replicas[0].run(
            lambda c, n=n: create_key(c, clock=CLOCK, pepper=pepper, tenant_name=f"tenant{n}", name=f"key{n}")
        )
        for n in range(TRIES)
    ]

    async def follow(
        replica: Authenticator, key: NewKey, follows: asyncio.Semaphore, revoked: "asyncio.Future[float]"
    ) -> float:
        principal = await replica.authenticate(key.key)
        async with replica.watch(principal) as stop:
            follows.release()
            began_s = await revoked
            await stop.wait()
        took_s = time.monotonic() - began_s
        try:
            await replica.authenticate(key.key)
        except InvalidKey:
            return took_s
        raise AssertionError("a running request was stopped, and a new one is let in")

    async def one_try(number: int) -> list[float]:
        revoked: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        follows = asyncio.Semaphore(0)
        followers = [asyncio.create_task(follow(replica, keys[number], follows, revoked)) for replica in both]
        for _ in followers:
            await follows.acquire()
        await asyncio.sleep(random_.uniform(0, 5))
        revoking = replicas[number % 2]
        await revoking.run(lambda c: revoke_key(c, clock=CLOCK, key=f"key{number}"))
        revoked.set_result(time.monotonic())
        return await asyncio.gather(*followers)

    took_s = [one for found in await asyncio.gather(*(one_try(number) for number in range(TRIES))) for one in found]
    for task in polling:
        task.cancel()
    await asyncio.gather(*polling, return_exceptions=True)
    print(f"{TRIES} revocations on 2 replicas: at most {max(took_s):.2f} s, mean {sum(took_s) / len(took_s):.2f} s")
    assert len(took_s) == 2 * TRIES
    assert max(took_s) <= BOUND_S

"""python -m benchmarks.admission: what the toll adds to one request, part by part, without HTTP and without a model.

One request after another (what an idle server adds), then many at once (what they wait for one another). The database
is SQLite on the disk of `--home`, with the settings that a server uses.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from app.admission.authenticate import Authenticator, Principal
from app.admission.gate import HOLD_TOKENS, Gate
from app.admission.limits import Limits
from app.admission.settings import LimitSettings
from app.clock import SystemClock
from app.metering.books import Books
from app.metering.budgets import add_money, set_monthly
from app.metering.database import Database, new_id
from app.metering.keys import Pepper, create_key
from app.metering.ledger import Admission, Outcome, Usage
from app.metering.money import Meter
from app.metering.prices import set_price
from app.observability.metrics import Metrics
from benchmarks.measure import percentile

T = TypeVar("T")
CLOCK = SystemClock()
MODEL, TASK = "gpt2", "text-generation"
MUCH_NANO = 10**15
PARTS = ("key", "limits", "hold", "settle", "limits back")


class Toll:
    """The rooms of a server's toll, on a database of their own."""

    def __init__(self, home: Path) -> None:
        self.database = Database(home=home)
        self.pepper = Pepper(home)
        self.authenticator = Authenticator(database=self.database, pepper=self.pepper, clock=CLOCK)
        self.limits = Limits(settings=LimitSettings(), clock=CLOCK, metrics=Metrics())
        self.books = Books(database=self.database, home=home, clock=CLOCK)
        self.gate = Gate(books=self.books)

    async def customer(self, name: str, *, keys: int, budgets: int) -> list[str]:
        """A tenant with so many keys, the first of which is bound by so many budgets (at most three)."""

        def work(connection: Connection) -> list[str]:
            made = [
                create_key(connection, clock=CLOCK, pepper=self.pepper, tenant_name=name, name=f"{name}-{number}")
                for number in range(keys)
            ]
            ways: list[Callable[[], object]] = [
                lambda: add_money(connection, clock=CLOCK, tenant_name=name, amount_nano=MUCH_NANO),
                lambda: set_monthly(connection, clock=CLOCK, tenant_name=name, limit_nano=MUCH_NANO),
                lambda: set_monthly(connection, clock=CLOCK, tenant_name=name, limit_nano=MUCH_NANO, key=f"{name}-0"),
            ]
            for way in ways[:budgets]:
                way()
            return [one.key for one in made]

        return await self.database.run(work)

    async def request(self, key: str) -> tuple[float, ...]:
        """One request that produces 64 tokens at once; the seconds of its PARTS."""
        at = [time.perf_counter()]
        principal = await self.authenticator.authenticate(key, "127.0.0.1")
        at.append(time.perf_counter())
        admission = admission_of(principal)
        permit = self.limits.permit(
            principal, request_id=admission.request_id, input_tokens=128, output_tokens_max=64, is_output_asked=True
        )
        async with permit as permitted:
            at.append(time.perf_counter())
            async with self.gate.admit(admission) as reservation:
                at.append(time.perf_counter())
                reservation.note(Usage(input_tokens=128, output_tokens=64))
                began_s = time.perf_counter()
                await reservation.settle(Outcome.FINISHED, reservation.delivered)
                settled_s = time.perf_counter()
            permitted.tokens_used = 192
            left_s = time.perf_counter()
        parts = [later - earlier for earlier, later in pairwise(at)]
        return (*parts, settled_s - began_s, time.perf_counter() - left_s)


def admission_of(principal: Principal) -> Admission:
    """128 tokens read, 64 written."""
    return Admission(
        request_id=new_id("req", CLOCK), tenant_id=principal.tenant_id, key_id=principal.key_id, model=MODEL, task=TASK,
        route="/v1/completions", input_tokens=128, output_tokens_max=64, output_tokens_held=HOLD_TOKENS,
    )  # fmt: skip


def line(title: str, samples: list[tuple[float, ...]]) -> str:
    """Medians in milliseconds, and how long admission took: key, limits and hold together."""
    medians = [1000 * statistics.median(part) for part in zip(*samples, strict=True)]
    admitted = [1000 * sum(sample[:3]) for sample in samples]
    shown = ", ".join(f"{name} {value:.3f}" for name, value in zip(PARTS, medians, strict=True))
    ninety_five = percentile(admitted, 0.95)
    return f"{title}: admission {statistics.median(admitted):.3f} ms (p95 {ninety_five:.3f}): {shown}"


async def measure(home: Path, *, requests: int, keys: int) -> None:
    """Prints a line for each kind of customer, a crowd, and many keys."""
    toll = Toll(home)
    await toll.database.open()
    await toll.books.start()
    for meter in (Meter.INPUT_TOKEN, Meter.OUTPUT_TOKEN):
        await toll.database.run(
            lambda connection, meter=meter: set_price(
                connection, clock=CLOCK, model=MODEL, task=TASK, meter=meter, pico_per_unit=150_000
            )
        )
    syncing = asyncio.create_task(toll.books.sync())
    try:
        rich = ""
        for budgets in (0, 1, 3):
            [key] = await toll.customer(f"budgets-{budgets}", keys=1, budgets=budgets)
            await several(toll, [key] * 50)
            print(line(f"{budgets} budgets", [await toll.request(key) for _ in range(requests)]), flush=True)
            rich = key
        crowd = [rich] * requests
        for count in (8, 32):
            print(line(f"3 budgets, {count} at once", await several(toll, crowd, at_once=count)), flush=True)
        many = await toll.customer("many", keys=keys, budgets=0)
        print(line(f"{keys:,} keys, each for the first time", await several(toll, many)), flush=True)
        print(line(f"{keys:,} keys, each once more", await several(toll, many)), flush=True)
    finally:
        syncing.cancel()
        toll.books.close()
        await toll.limits.close()
        await toll.database.close()


async def several(toll: Toll, keys: list[str], *, at_once: int = 1) -> list[tuple[float, ...]]:
    """A request for each key, so many at a time."""
    waiting, found = iter(keys), list[tuple[float, ...]]()

    async def customer() -> None:
        for key in waiting:
            found.append(await toll.request(key))

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(customer())
    return found


def main() -> None:
    """Measure in a folder that is gone afterwards."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.admission", description=__doc__)
    parser.add_argument("--requests", type=int, default=2000, help="requests of each line (2000)")
    parser.add_argument("--keys", type=int, default=10_000, help="keys of the last two lines (10,000)")
    parser.add_argument("--home", type=Path, help="make the folder there; default: the place for temporary files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tollgate-admission-", dir=arguments.home) as folder:
        asyncio.run(measure(Path(folder), requests=arguments.requests, keys=arguments.keys))
    sys.stdout.flush()


if __name__ == "__main__":
    main()

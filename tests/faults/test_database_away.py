"""PostgreSQL stopped under load, for real, and started again: customers see no error, and every entry arrives once."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from app.metering.database import Database
from app.metering.ledger import list_entries
from app.metering.verify import drifts
from tests.cli.test_serve import command, environment, served
from tests.fixtures.postgres import Postgres

BODY: dict[str, Any] = {"model": "tiny-gpt2", "prompt": [5, 6, 7], "max_tokens": 50, "n": 2, "ignore_eos": True}
"""100 tokens: more than a budget holds at first, so that holds grow while the database is away."""
PAUSE_S = 0.05
ENOUGH = 30
COST_NANO = 100_000
"""Of a request: 100 tokens at 1 a million."""
LEASED = "SELECT count(DISTINCT budget_id) FROM budget_lease WHERE amount_nano >= %s"
ARRIVE_S = 60.0


@dataclass
class Customers:
    """What all of them saw."""

    url: str
    is_over: bool = False
    received: dict[str, int] = field(default_factory=dict[str, int])
    """Output tokens by request."""
    errors: list[tuple[str, float, str]] = field(default_factory=list[tuple[str, float, str]])
    """Whose key, when, and what."""

    def complain(self, whose: str, what: str) -> None:
        self.errors.append((whose, time.monotonic(), what))

    async def buy(self, whose: str, key: str, *, is_streaming: bool) -> None:
        """One request after another."""
        async with httpx.AsyncClient(base_url=self.url, headers={"authorization": f"Bearer {key}"}, timeout=60) as http:
            while not self.is_over:
                try:
                    await (self._stream(whose, http) if is_streaming else self._ask(whose, http))
                except httpx.TransportError as error:
                    self.complain(whose, repr(error))
                await asyncio.sleep(PAUSE_S)

    async def _ask(self, whose: str, http: httpx.AsyncClient) -> None:
        answer = await http.post("/v1/completions", json=BODY)
        if answer.status_code != 200:
            self.complain(whose, answer.text)
            return
        self.received[answer.headers["x-request-id"]] = answer.json()["usage"]["completion_tokens"]

    async def _stream(self, whose: str, http: httpx.AsyncClient) -> None:
        body = BODY | {"stream": True, "stream_options": {"include_usage": True}}
        async with http.stream("POST", "/v1/completions", json=body) as answer:
            text = await answer.aread()
        if answer.status_code != 200:
            self.complain(whose, text.decode())
            return
        last = [json.loads(one[6:]) for one in text.split(b"\n\n") if one.startswith(b"data: {")][-1]
        if not text.endswith(b"data: [DONE]\n\n") or "error" in last:
            self.complain(whose, str(last))
            return
        self.received[answer.headers["x-request-id"]] = last["usage"]["completion_tokens"]


async def run_customers(customers: Customers, keys: dict[str, str], away: Callable[[], None]) -> None:
    """Both kinds of answer for each key, while `away` runs on a thread."""
    running = [
        asyncio.create_task(customers.buy(whose, key, is_streaming=is_streaming))
        for whose, key in keys.items()
        for is_streaming in (True, True, False)
    ]
    await asyncio.to_thread(away)
    customers.is_over = True
    await asyncio.gather(*running)


def until_money_is_set_aside(url: str, customers: Customers, *, away_s: float) -> None:
    """All are served, and both budgets are leased: for twice as long as the database will be away, at the pace so far.

    The first lease, of a customer's first seconds, is a hundred requests; a fast machine sells more than that.
    """
    began_s = time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            passed_s = time.monotonic() - began_s
            needed_nano = int(2 * away_s * COST_NANO * len(customers.received) / max(passed_s, 1.0))
            if len(customers.received) >= ENOUGH and connection.execute(LEASED, [needed_nano]).fetchall() == [(2,)]:
                return
            assert passed_s < ARRIVE_S, "no leases are taken"
            time.sleep(0.05)


async def books_of(url: str, home: Path) -> tuple[list[dict[str, Any]], list[str]]:
    database = Database(home=home, url=url)
    await database.open()
    found = await database.run(lambda c: (list_entries(c, limit=None), list(drifts(c))))
    await database.close()
    return found


def sell_while_away(postgres: Postgres, home: Path, checkpoints: dict[str, Path], *, away_s: float) -> None:
    url = postgres.fresh()
    env = environment(home, checkpoints) | {"TOLLGATE_METERING__DATABASE_URL": url}
    keys = {
        tenant: json.loads(command(env, "keys", "create", "--tenant", tenant, "--name", tenant, "--json"))["key"]
        for tenant in ("prepaid", "monthly", "unlimited")
    }
    command(env, "budgets", "topup", "--tenant", "prepaid", "--amount", "1000")
    command(env, "budgets", "set", "--tenant", "monthly", "--monthly", "1000")
    sold = ("prices", "set", "--model", "tiny-gpt2", "--task", "text-generation", "--meter", "output_token")
    command(env, *sold, "--per-million", "1")
    with served(env) as (server_url, _):
        customers = Customers(server_url)
        counts: list[int] = []

        def take_it_away() -> None:
            until_money_is_set_aside(url, customers, away_s=away_s)
            postgres.stop()
            try:
                counts.append(len(customers.received))
                time.sleep(away_s)
                counts.append(len(customers.received))
            finally:
                postgres.start()
            time.sleep(3.0)

        asyncio.run(run_customers(customers, keys, take_it_away))
        give_up_s = time.monotonic() + ARRIVE_S
        with psycopg.connect(url, autocommit=True) as connection:
            while time.monotonic() < give_up_s:
                [(waiting,)] = connection.execute(
                    "SELECT %s - (SELECT count(*) FROM usage_entry) + (SELECT count(*) FROM hold)",
                    [len(customers.received)],
                ).fetchall()
                if waiting == 0:
                    break
                time.sleep(0.1)
    entries, found = asyncio.run(books_of(url, home))
    print(
        f"away {away_s} s: {counts[1] - counts[0]} of {len(entries)} answers meanwhile, {len(customers.errors)} errors"
    )
    assert customers.errors == []
    assert counts[1] - counts[0] > away_s, "hardly anything was sold meanwhile"
    assert {entry["request_id"]: entry["output_tokens"] for entry in entries} == customers.received
    assert len(entries) == len(customers.received)
    assert found == []


@pytest.mark.timeout(400)
def test_customers_see_no_error_while_the_database_is_away_for_a_while(
    postgres: Postgres, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    sell_while_away(postgres, tmp_path, checkpoints, away_s=4.0)


@pytest.mark.fault_long
@pytest.mark.timeout(400)
def test_customers_see_no_error_while_the_database_is_away_for_a_minute(
    postgres: Postgres, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    sell_while_away(postgres, tmp_path, checkpoints, away_s=60.0)

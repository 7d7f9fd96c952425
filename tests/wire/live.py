"""The whole application on a socket, in a thread of its own, so that clients that block may call it from a test."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.fixtures.server import PATIENCE_S, Running, make_key, running_server
from tests.wire.environments import python_of

T = TypeVar("T")
CLIENTS = Path(__file__).parent / "clients"
CLIENT_S_MAX = 100


@dataclass(slots=True, kw_only=True)
class Live:
    """A running server and ways to call it with real clients."""

    running: Running
    home: Path
    checkpoints: dict[str, Path]
    _loop: asyncio.AbstractEventLoop
    _tenants: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def url(self) -> str:
        """http://127.0.0.1:<port>, without a path."""
        return self.running.url

    def on_server(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the server's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * PATIENCE_S)

    def new_key(self, *, is_admin: bool = False) -> str:
        """A fresh customer's first key, so that a test's entries are its own: `entries(key)`."""
        tenant = f"tenant-{len(self._tenants)}"
        key = self.on_server(make_key(self.running.database, self.home, name=tenant, tenant=tenant, is_admin=is_admin))
        self._tenants[key] = tenant
        return key

    def allow_money(self, key: str, *, task: str, model: str, requests: float) -> None:
        """From now on its customer pays for each request to the model, and has a month's money for so many."""
        boss = {"authorization": f"Bearer {self.running.admin_key}"}
        tenant = self._tenants[key]
        price = {"model": model, "task": task, "meter": "request", "per_million": "1000000", "tenant": tenant}
        budget = {"tenant": tenant, "monthly": str(requests)}
        for answer in (
            httpx.post(self.url + "/admin/prices", json=price, headers=boss),
            httpx.put(self.url + "/admin/budgets", json=budget, headers=boss),
        ):
            assert answer.is_success, answer.text

    def entries(self, key: str, *, count: int = 0) -> list[dict[str, Any]]:
        """What the ledger holds of a key, oldest first, once there are `count` of them."""
        return self.on_server(self._entries(self._tenants[key], count))

    async def _entries(self, tenant: str, count: int) -> list[dict[str, Any]]:
        give_up_s = time.monotonic() + PATIENCE_S
        while True:
            found = [entry for entry in await self.running.entries() if entry["tenant"] == tenant]
            if len(found) >= count:
                return found
            assert time.monotonic() < give_up_s, f"{len(found)} entries, {count} expected"
            await asyncio.sleep(0.02)

    def run_client(
        self, script: str, *, key: str, environment: str | None = None, most_s: float = CLIENT_S_MAX, **given: str
    ) -> Any:  # fmt: skip
        """Run `clients/<script>.py` as a process of its own and return the JSON that it prints last.

        It finds TOLLGATE_URL, TOLLGATE_KEY and the `given` names (in capitals) in its environment. `environment` names
        a file in `environments/`; None is the interpreter of the tests.
        """
        python = sys.executable if environment is None else str(python_of(environment))
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        names = {name.upper(): value for name, value in given.items()}
        done = subprocess.run(
            [python, str(CLIENTS / f"{script}.py")], capture_output=True, text=True, timeout=most_s, check=False,
            env=kept | offline | names | {"TOLLGATE_URL": self.url, "TOLLGATE_KEY": key},
        )  # fmt: skip
        assert done.returncode == 0, f"{script} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return json.loads(done.stdout.strip().splitlines()[-1])


@contextmanager
def live_server(home: Path, checkpoints: dict[str, Path]) -> Iterator[Live]:
    """The application with the seeded checkpoints, until the scope is left."""
    ready = threading.Event()
    made: list[Live] = []
    failures: list[BaseException] = []
    stop = asyncio.Event()

    async def serve() -> None:
        async with running_server(home, checkpoints, {"threads": 1, "transport": "inline"}) as running:
            loop = asyncio.get_running_loop()
            made.append(Live(running=running, home=home, checkpoints=checkpoints, _loop=loop))
            ready.set()
            await stop.wait()

    def work() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="live-server")
    thread.start()
    ready.wait(2 * PATIENCE_S)
    assert made, f"the server did not start: {failures}"
    live = made[0]
    try:
        yield live
    finally:
        live._loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_S)
    assert not thread.is_alive() and not failures, f"the server did not stop well: {failures}"

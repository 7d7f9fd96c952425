"""The requests that this process has open, by id: what a client asked of the run, and what it must be told of it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.errors import OwnDeadlinePassed


@dataclass(slots=True)
class Run:
    """One request."""

    timeout_s: float | None = None
    """How long its client waits for the whole answer; None leaves it to the server."""
    tenant_id: str | None = None
    """Whose it is, once it runs."""
    texts_cut: int = 0
    """Inputs that lost an end, as their caller allowed."""
    is_cancelled: bool = False
    once: tuple[str, str] | None = None
    """Its Idempotency-Key, where the database was away when it was to be claimed; see Admission."""
    end: Callable[[], Awaitable[None]] | None = None
    """Ends its jobs in order, once it has any."""

    async def cancel(self) -> None:
        """End it in order: at once, or as soon as it has jobs."""
        self.is_cancelled = True
        if self.end is not None:
            await self.end()


class Runs:
    """Who is open. Bounded by the connections that there are."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._runs))

    def begin(self, request_id: str) -> None:
        """A request has come; whoever calls this calls `finish`."""
        self._runs[request_id] = Run()

    def finish(self, request_id: str) -> None:
        """It is gone."""
        self._runs.pop(request_id, None)

    def find(self, request_id: str) -> Run | None:
        """It, while it is open."""
        return self._runs.get(request_id)


@asynccontextmanager
async def within(timeout_s: float | None) -> AsyncGenerator[None]:
    """A client's deadline is a hang-up that was announced: the scope is cancelled. Raises OwnDeadlinePassed then."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as cause:
        raise OwnDeadlinePassed from cause

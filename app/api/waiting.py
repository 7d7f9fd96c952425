"""What the port says while a start waits for the database: alive, not started, and 503 to everybody who wants more."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from app.api.errors import answer_of
from app.errors import StorageUnavailable

PHASE = "waiting for the database"
CLOSE = {"connection": "close"}
"""The server that comes after this one has other connections."""


def waiting_room() -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The application."""
    began_s = time.monotonic()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        bodies: dict[str, tuple[int, dict[str, Any]]] = {
            "/livez": (200, {"status": "alive"}),
            "/readyz": (503, {"status": PHASE}),
            "/health": (503, {"status": PHASE}),
            "/startupz": (503, {"phase": PHASE, "elapsed_s": round(time.monotonic() - began_s, 3)}),
        }
        if (found := bodies.get(scope["path"])) is not None:
            response = JSONResponse(found[1], found[0], CLOSE)
        else:
            refusal = answer_of(StorageUnavailable("This server waits for its database; try again shortly."))
            response = JSONResponse(refusal.body, refusal.status, refusal.headers | CLOSE)
        await response(scope, receive, send)

    return answer

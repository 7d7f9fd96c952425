"""One log line a request; its id, how long it took, and how its key's limits stand, on the answer.

`x-request-id` gives back what the client sent under that name, so that its traces and those of proxies join;
`x-tollgate-request-id` is always Tollgate's own, by which the ledger knows the request.

Plain ASGI: wraps `send`, so that hang-ups reach the routes.
"""

import logging
import time

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.conduct import told
from app.api.context import client_id_of, request_id_of, serving_of
from app.api.limits import limit_headers

log = logging.getLogger("tollgate.access")
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
OPENAI_VERSION = "2020-10-01"
"""What OpenAI answers; some clients look for it."""
QUIET = frozenset({"/livez", "/readyz", "/startupz", "/metrics"})


class AccessLog:
    """See the module."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the module."""
        if scope["type"] != "http" or scope["path"] in QUIET:
            await self._app(scope, receive, send)
            return
        began_s, status = time.perf_counter(), 499
        scope.setdefault("state", {})
        request = Request(scope)
        request_id = request_id_of(request)
        runs = serving_of(request).runs
        runs.begin(request_id)

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [pair for pair in message.get("headers", []) if pair[0] != b"x-request-id"]
                shown = {
                    "x-request-id": client_id_of(request) or request_id, "x-tollgate-request-id": request_id,
                    "openai-version": OPENAI_VERSION,
                    "openai-processing-ms": str(round((time.perf_counter() - began_s) * 1000)),
                }  # fmt: skip
                if (principal := scope["state"].get("principal")) is not None:
                    shown["openai-organization"] = principal.tenant_id
                    shown |= limit_headers(serving_of(request).standing(principal))
                if serving_of(request).is_leaving:
                    shown["connection"] = "close"
                shown |= told(scope, runs.find(request_id))
                headers += [(name.encode(), value.encode()) for name, value in shown.items()]
                message["headers"] = headers
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            runs.finish(request_id)
            count_answer(request, scope, status)
            extra = {
                "method": scope["method"], "path": scope["path"], "status": status, "request_id": request_id,
                "duration_ms": round((time.perf_counter() - began_s) * 1000, 1),
            }  # fmt: skip
            if (client_id := client_id_of(request)) is not None:
                extra["client_request_id"] = client_id
            log.info("request", extra=extra)


def count_answer(request: Request, scope: Scope, status: int) -> None:
    """Count an answer by its route's pattern, never its path: what callers make up must not become a series."""
    method = scope["method"] if scope["method"] in METHODS else "other"
    route = getattr(scope.get("route"), "path", "none")
    serving_of(request).metrics.counter("tollgate_http_requests").labels(method, route, str(status)).inc()

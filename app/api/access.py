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
from app.observability.journey import CURRENT, Journey

log = logging.getLogger("tollgate.access")
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
OPENAI_VERSION = "2020-10-01"
"""What OpenAI answers; some clients look for it."""
QUIET = frozenset({"/livez", "/readyz", "/health", "/startupz", "/metrics"})


class AccessLog:
    """See the module."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the module."""
        if scope["type"] != "http" or scope["path"] in QUIET:
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})
        request = Request(scope)
        request_id = request_id_of(request)
        runs = serving_of(request).runs
        runs.begin(request_id)
        journey = Journey(
            request_id=request_id, method=scope["method"], path=scope["path"], client_id=client_id_of(request),
            traceparent=request.headers.get("traceparent"), tracestate=request.headers.get("tracestate"),
        )  # fmt: skip
        began_s = journey.began_s
        CURRENT.set(journey)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                journey.status = message["status"]
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
            journey.route = getattr(scope.get("route"), "path", "none")
            count_answer(request, journey)
            log.info("request", extra=journey.fields())
            request.app.state.traces.tell(journey)


def count_answer(request: Request, journey: Journey) -> None:
    """Count an answer by its route's pattern, never its path: what callers make up must not become a series."""
    method = journey.method if journey.method in METHODS else "other"
    counter = serving_of(request).metrics.counter("tollgate_http_requests")
    counter.labels(method, journey.route, str(journey.status)).inc()

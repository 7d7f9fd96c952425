"""What one request was: filled by the rooms on its way, told in one log line and one trace when its answer has left."""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from app.observability.metrics import Watched


@dataclass(slots=True, kw_only=True)
class Journey:
    """One HTTP request, and the run that it asked for, if it came so far. No prompt, no answer, no key."""

    request_id: str
    method: str
    path: str
    route: str = "none"
    status: int = 499
    client_id: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    began_s: float = field(default_factory=time.perf_counter)
    began_ns: int = field(default_factory=time.time_ns)
    tenant: str | None = None
    key_id: str | None = None
    task: str | None = None
    model: str | None = None
    watched: Watched | None = None
    settle_began_s: float | None = None
    settle_s: float = 0.0

    def run(self, watched: Watched, *, tenant: str, key_id: str, task: str, model: str) -> None:
        """It asks for a run."""
        self.watched, self.tenant, self.key_id, self.task, self.model = watched, tenant, key_id, task, model

    def fields(self) -> dict[str, Any]:
        """What the log says. Times are in milliseconds."""
        found: dict[str, Any] = {
            "method": self.method, "path": self.path[:200], "status": self.status, "request_id": self.request_id,
            "duration_ms": milliseconds(time.perf_counter() - self.began_s),
        }  # fmt: skip
        if self.client_id is not None:
            found["client_request_id"] = self.client_id
        if (run := self.watched) is not None:
            found |= {
                "tenant": self.tenant, "key_id": self.key_id, "task": self.task, "model": self.model,
                "outcome": run.outcome, "input_tokens": run.input_tokens, "output_tokens": run.output_tokens,
                "queue_ms": milliseconds(run.queue_s), "prefill_ms": milliseconds(run.prefill_s),
                "decode_ms": milliseconds(run.decode_s), "settle_ms": milliseconds(self.settle_s),
            }  # fmt: skip
            if run.first_s is not None:
                found["first_token_ms"] = milliseconds(run.first_s)
        return found


def milliseconds(seconds: float) -> float:
    """To a tenth."""
    return round(seconds * 1000, 1)


CURRENT: ContextVar[Journey | None] = ContextVar("journey", default=None)
"""The request that this task works for; tasks that it starts inherit it."""

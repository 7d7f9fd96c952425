"""What the engine's process has to tell, and when: a message costs its reader the same, however much it holds.

No clock, no socket: whoever asks says what time it is.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.engine.events import Event, FailedEvent, FinishedEvent, TokenEvent, together
from app.engine.jobs import DecodeJob, Job

TELL_S = 0.002
"""Between two messages: where steps are shorter, a row's tokens of several go together."""
WHOLE_S = 0.05
"""How long tokens wait for more of them where their reader shows nothing before the row's end."""


@dataclass(slots=True)
class _Held:
    events: list[TokenEvent] = field(default_factory=list)
    tokens: int = 0


class Postbag:
    """Events on their way out, each job's in their order. The loop's thread puts, the socket's takes."""

    def __init__(self, *, tokens_max: int) -> None:
        self._tokens_max = tokens_max
        """Of one job held at most, so that its reader is never the reason why it pauses."""
        self._lock = threading.Lock()
        self._ready: list[Event] = []
        self._unbegun: set[str] = set()
        """Jobs to be held, of which no token has come: their readers learn at once that they have begun."""
        self._held: dict[str, _Held] = {}
        self._held_since_s = math.inf
        self._told_s = -math.inf
        self._due_s = math.inf

    def expect(self, job: Job) -> None:
        """Events of `job` will come."""
        if isinstance(job, DecodeJob) and job.is_whole:
            with self._lock:
                self._unbegun.add(job.id)

    def put(self, events: Sequence[Event], now_s: float) -> float | None:
        """Take in what a step has; returns when `take` is to be called, if that is sooner than was said before."""
        with self._lock:
            for event in events:
                self._sort(event, now_s)
            due_s = max(now_s, self._told_s + TELL_S) if self._ready else self._held_since_s + WHOLE_S
            if due_s >= self._due_s:
                return None
            self._due_s = due_s
            return due_s

    def take(self, now_s: float) -> tuple[list[Event], float | None]:
        """What is to be told now, a job's tokens together, and when to call again if nothing more is put."""
        with self._lock:
            if now_s >= self._held_since_s + WHOLE_S:
                for job_id in self._held:
                    self._release(job_id)
            if not any(held.tokens for held in self._held.values()):
                self._held_since_s = math.inf
            found, self._ready = self._ready, []
            if found:
                self._told_s = now_s
            self._due_s = self._held_since_s + WHOLE_S
            return together(found), None if math.isinf(self._due_s) else self._due_s

    def _sort(self, event: Event, now_s: float) -> None:
        job_id = event.job_id
        held = self._held.get(job_id)
        if held is not None and isinstance(event, TokenEvent):
            held.events.append(event)
            held.tokens += len(event.ids)
            self._held_since_s = min(self._held_since_s, now_s)
            if held.tokens >= self._tokens_max:
                self._release(job_id)
            return
        if held is not None:
            self._release(job_id)
        self._ready.append(event)
        if isinstance(event, FinishedEvent | FailedEvent):
            self._held.pop(job_id, None)
            self._unbegun.discard(job_id)
        elif isinstance(event, TokenEvent) and job_id in self._unbegun:
            self._unbegun.discard(job_id)
            self._held[job_id] = _Held()

    def _release(self, job_id: str) -> None:
        self._ready += self._held[job_id].events
        self._held[job_id] = _Held()

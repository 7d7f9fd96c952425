"""A lane's stopwatch and its counts of steps: what metrics, traces and predictions of waiting are made of. No clock."""

import math

from app.engine.events import JobTimes
from app.observability.buckets import ROWS, STEP_SECONDS, TOKENS
from app.observability.distribution import Spread

MEMORY_S = 5.0
"""How fast the measure of speed forgets."""
MEASURED_S = 0.25
"""How long a line must have stood before the measure says anything."""
GAP_S = 2.0
"""A pause between steps longer than this is none of the lane's work."""


class Pace:
    """How much work a lane ends per second of wall time, measured only while somebody waits: else it shows demand."""

    def __init__(self) -> None:
        self._done = 0.0
        self._busy_s = 0.0
        self._stepped_s: float | None = None

    def work(self, cost: float) -> None:
        """So much is done."""
        if self._stepped_s is not None:
            self._done += cost

    def step(self, now_s: float, *, is_backlogged: bool) -> None:
        """A step ended now, and jobs wait, or none."""
        if is_backlogged and self._stepped_s is not None and now_s - self._stepped_s < GAP_S:
            passed_s = now_s - self._stepped_s
            kept = math.exp(-passed_s / MEMORY_S)
            self._busy_s = self._busy_s * kept + passed_s
            self._done *= kept
        self._stepped_s = now_s if is_backlogged else None

    @property
    def speed(self) -> float:
        """Cost a second; 0 when not enough was seen."""
        return self._done / self._busy_s if self._busy_s >= MEASURED_S else 0.0


class Tally:
    """Told by the loop, on its thread, when jobs move on and what each step was like."""

    def __init__(self) -> None:
        self.seconds = Spread(STEP_SECONDS)
        self.rows = Spread(ROWS)
        self.tokens = Spread(TOKENS)
        self._arrived: dict[str, float] = {}
        self._seated: dict[str, float] = {}
        self._begun: dict[str, float] = {}
        self._costs: dict[str, float] = {}
        """What is left of each job, as far as it declared itself: a job that stops early shows in the pace."""
        self.waiting_cost = 0.0
        self.pace = Pace()

    def arrive(self, job_id: str, now_s: float, cost: float) -> None:
        """A job stands in line."""
        self._arrived[job_id] = now_s
        self._costs[job_id] = cost
        self.waiting_cost += cost

    def seat(self, job_id: str, now_s: float) -> None:
        """Its work begins."""
        self._seated[job_id] = now_s
        self.waiting_cost = max(0.0, self.waiting_cost - self._costs[job_id])

    def produce(self, job_id: str, now_s: float, tokens: int = 1) -> None:
        """It has its first token, or one more (of each beam)."""
        self._begun.setdefault(job_id, now_s)
        self._costs[job_id] -= tokens
        self.pace.work(tokens)

    def leave(self, job_id: str, now_s: float) -> JobTimes:
        """It ends; forgets it. A part that it never came to is 0."""
        is_seated = job_id in self._seated
        arrived_s = self._arrived.pop(job_id, now_s)
        seated_s = self._seated.pop(job_id, now_s)
        begun_s = self._begun.pop(job_id, now_s)
        left = self._costs.pop(job_id, 0.0)
        if is_seated:
            self.pace.work(left)
        else:
            self.waiting_cost = max(0.0, self.waiting_cost - left)
        return JobTimes(seated_s - arrived_s, begun_s - seated_s, now_s - begun_s)

    def step(self, *, rows: int, tokens: int, seconds: float) -> None:
        """A step is done."""
        self.rows.add(rows)
        self.tokens.add(tokens)
        self.seconds.add(seconds)

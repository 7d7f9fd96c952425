"""A lane's stopwatch and its counts of steps: what metrics, traces and predictions of waiting are made of. No clock."""

from app.engine.events import JobTimes
from app.observability.buckets import ROWS, STEP_SECONDS, TOKENS
from app.observability.distribution import Spread


class Tally:
    """Told by the loop, on its thread, when jobs move on and what each step was like."""

    def __init__(self) -> None:
        self.seconds = Spread(STEP_SECONDS)
        self.rows = Spread(ROWS)
        self.tokens = Spread(TOKENS)
        self._arrived: dict[str, float] = {}
        self._seated: dict[str, float] = {}
        self._begun: dict[str, float] = {}

    def arrive(self, job_id: str, now_s: float) -> None:
        """A job stands in line."""
        self._arrived[job_id] = now_s

    def seat(self, job_id: str, now_s: float) -> None:
        """Its work begins."""
        self._seated[job_id] = now_s

    def produce(self, job_id: str, now_s: float) -> None:
        """It has its first token, or one more."""
        self._begun.setdefault(job_id, now_s)

    def leave(self, job_id: str, now_s: float) -> JobTimes:
        """It ends; forgets it. A part that it never came to is 0."""
        arrived_s = self._arrived.pop(job_id, now_s)
        seated_s = self._seated.pop(job_id, now_s)
        begun_s = self._begun.pop(job_id, now_s)
        return JobTimes(seated_s - arrived_s, begun_s - seated_s, now_s - begun_s)

    def step(self, *, rows: int, tokens: int, seconds: float) -> None:
        """A step is done."""
        self.rows.add(rows)
        self.tokens.add(tokens)
        self.seconds.add(seconds)

"""How long a request would wait for the engine: what is sure to come too late is refused before work is done for it.

The line is what this process has sent and not seen begin; the speed is what the engine measures while a line stands.
The fair line (engine/schedule/waiting.py) serves tenants by weight, so a tenant waits for its own work, and for no more
of another's than the other gets meanwhile.
"""

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from app.clock import Clock
from app.engine.client import EngineStats, LaneStats
from app.engine.jobs import Job, cost_of
from app.errors import DeadlineUnreachable, EngineOverloaded

RETRY_S_MIN = 1.0


@dataclass(slots=True)
class Line:
    """What of one model's work has not begun."""

    jobs: dict[str, Job] = field(default_factory=dict[str, Job])
    costs: dict[str, float] = field(default_factory=lambda: defaultdict[str, float](float))
    """By tenant."""
    weights: dict[str, float] = field(default_factory=dict[str, float])

    def add(self, job: Job) -> None:
        """A job is sent."""
        self.jobs[job.id] = job
        self.costs[job.tenant] += cost_of(job)
        self.weights[job.tenant] = job.weight

    def remove(self, job_id: str) -> None:
        """It has begun, or has gone."""
        job = self.jobs.pop(job_id, None)
        if job is None:
            return
        self.costs[job.tenant] -= cost_of(job)
        if self.costs[job.tenant] < 1e-6:
            del self.costs[job.tenant], self.weights[job.tenant]

    def ahead_of(self, tenant: str, weight: float) -> float:
        """Work that is done before a new job of `tenant` begins."""
        own = self.costs.get(tenant, 0.0)
        others = (min(cost, own / weight * self.weights[name]) for name, cost in self.costs.items() if name != tenant)
        return own + sum(others)


class Forecast:
    """Predicts waits, and refuses what would wait too long."""

    def __init__(self, *, stats: Callable[[], EngineStats], clock: Clock, wait_s_max: float) -> None:
        self._stats = stats
        self._clock = clock
        self._wait_s_max = wait_s_max
        self._lines: dict[str, Line] = {}

    def wait_s(self, model: str, tenant: str, weight: float) -> float:
        """How long a new job would wait for its turn; 0 when nothing is known."""
        line = self._lines.get(model)
        lane = self._lane(model)
        if lane is None or line is None or not line.jobs or lane.speed <= 0:
            return 0.0
        here = sum(line.costs.values())
        others = max(1.0, lane.waiting_cost / here)
        """Other processes have as much in the engine's line for each of ours."""
        return line.ahead_of(tenant, weight) * others / lane.speed

    def refuse_late(self, model: str, tenant: str, weight: float) -> None:
        """Raises EngineOverloaded when a new request would wait too long for its turn."""
        wait_s = self.wait_s(model, tenant, weight)
        if wait_s > self._wait_s_max:
            raise EngineOverloaded(
                f"The queue for {model} is {wait_s:.0f} s long; try again later.",
                retry_after_s=max(RETRY_S_MIN, wait_s - self._wait_s_max),
            )

    @asynccontextmanager
    async def standing(self, jobs: Sequence[Job]) -> AsyncGenerator[None]:
        """These stand in line until they begin, or the scope ends. Raises EngineOverloaded or DeadlineUnreachable."""
        first = jobs[0] if jobs else None
        if first is not None:
            self.refuse_late(first.model, first.tenant, first.weight)
            self._refuse_hopeless(jobs)
            line = self._lines.setdefault(first.model, Line())
            for job in jobs:
                line.add(job)
        try:
            yield
        finally:
            for job in jobs:
                self.begin(job.model, job.id)

    def begin(self, model: str, job_id: str) -> None:
        """The engine has begun a job, or ended it."""
        if (line := self._lines.get(model)) is not None:
            line.remove(job_id)

    def _refuse_hopeless(self, jobs: Sequence[Job]) -> None:
        last = jobs[-1]
        lane = self._lane(last.model)
        if last.deadline_s is None or lane is None or lane.speed <= 0:
            return
        wait_s = self.wait_s(last.model, last.tenant, last.weight)
        if not wait_s:
            return
        wait_s += sum(cost_of(job) for job in jobs[:-1]) / lane.speed
        left_s = last.deadline_s - self._clock.monotonic_s()
        if wait_s > left_s:
            raise DeadlineUnreachable(
                f"The queue for {last.model} is {wait_s:.1f} s long and this request's deadline is in {left_s:.1f} s; "
                "try again later, or with a later deadline.",
                retry_after_s=max(RETRY_S_MIN, wait_s - left_s),
            )

    def _lane(self, model: str) -> LaneStats | None:
        return next((lane for lane in self._stats().lanes if lane.model == model), None)

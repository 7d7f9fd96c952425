"""The fair line: waiting jobs go by tenant weight and by work already received (VTC, Sheng et al., OSDI 2024)."""

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from app.engine.jobs import Job


class Waiting:
    """Jobs by tenant, each tenant in order of arrival; bounded. Costs are in tokens.

    A tenant's counter holds the work it received divided by its weight; the smallest counter goes first. A tenant that
    returns from idleness is lifted to the smallest counter of those who wait, so that rest earns no credit.
    """

    def __init__(self, *, jobs_max: int) -> None:
        self._jobs_max = jobs_max
        self._lines: OrderedDict[str, deque[Job]] = OrderedDict()
        self._received: dict[str, float] = {}
        self._floor = 0.0
        self._count = 0
        self._earliest_s = math.inf
        """No deadline in the line is earlier: asked at every step, however many wait."""

    def __len__(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        """Whether the next job must be refused."""
        return self._count >= self._jobs_max

    def add(self, job: Job) -> None:
        """Append a job to its tenant's line. The caller has checked `is_full`."""
        assert not self.is_full, "the caller refuses jobs when the line is full. This is a bug."
        if job.tenant not in self._lines:
            self._lines[job.tenant] = deque()
            self._received[job.tenant] = max(self._received.get(job.tenant, 0.0), self._lowest())
        self._lines[job.tenant].append(job)
        self._count += 1
        if job.deadline_s is not None:
            self._earliest_s = min(self._earliest_s, job.deadline_s)

    def charge(self, tenant: str, weight: float, tokens: int) -> None:
        """Note that `tenant` received `tokens` of work."""
        self._received[tenant] = self._received.get(tenant, self._floor) + tokens / weight

    def take(self, fits: Callable[[Job], bool]) -> Job | None:
        """Remove and return the first job in fair order that `fits`; each tenant offers only its oldest job."""
        for tenant in sorted(self._lines, key=lambda name: self._received[name]):
            job = self._lines[tenant][0]
            if fits(job):
                self._floor = max(self._floor, self._received[tenant])
                self._remove(job)
                return job
        return None

    def remove(self, job_id: str) -> Job | None:
        """Take a cancelled job out of the line; None when it does not wait here."""
        found = next((job for job in self if job.id == job_id), None)
        if found is not None:
            self._remove(found)
        return found

    def take_expired(self, now_s: float) -> list[Job]:
        """Remove and return the jobs whose deadline has passed."""
        if now_s < self._earliest_s:
            return []
        expired = [job for job in self if job.deadline_s is not None and job.deadline_s <= now_s]
        for job in expired:
            self._remove(job)
        self._earliest_s = min((job.deadline_s for job in self if job.deadline_s is not None), default=math.inf)
        return expired

    def __iter__(self) -> Iterator[Job]:
        return iter([job for line in self._lines.values() for job in line])

    def _lowest(self) -> float:
        others = [self._received[name] for name, line in self._lines.items() if line]
        return min(others, default=self._floor)

    def _remove(self, job: Job) -> None:
        line = self._lines[job.tenant]
        line.remove(job)
        self._count -= 1
        if not line:
            del self._lines[job.tenant]
            if len(self._received) > 10 * max(1000, self._jobs_max):
                self._received = {name: self._received[name] for name in self._lines}

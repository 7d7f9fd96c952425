"""The encoders' steps: whatever waits is taken, packed by length, read once. A failing batch is retried row by row."""

import logging

import numpy as np
import torch

from app.engine.compute.decode import Decoder
from app.engine.compute.encoded import event_of, fetched
from app.engine.compute.plain import sent
from app.engine.events import FailedEvent, FinishedEvent, FinishReason, JobUsage
from app.engine.jobs import EncodeJob
from app.engine.lane import Lane
from app.engine.schedule.plan import pack_by_length
from app.errors import InternalError

DEFAULT_TOKENS = {"cpu": 512, "cuda": 8192}
"""Of a batch. Measured with 128 tokens a row and int8 on two cores: a row takes 33 ms in batches of 384, 36 in 2048."""
log = logging.getLogger(__name__)


class EncodeLane(Lane):
    """An encoder and its line."""

    def step(self) -> bool:
        """See Lane.step."""
        jobs: list[EncodeJob] = []
        of_batch = self._settings.encode_tokens or DEFAULT_TOKENS[torch.device(self.resident.loaded.device).type]
        left = of_batch
        while (job := self.waiting.take(lambda job: not jobs or len(job.ids) <= left)) is not None:  # noqa: B023
            assert isinstance(job, EncodeJob), "an encoder's line holds encode jobs. This is a bug."
            jobs.append(job)
            left -= len(job.ids)
            self.waiting.charge(job.tenant, job.weight, len(job.ids))
            self.tally.seat(job.id, self._clock.monotonic_s())
        for batch in pack_by_length([len(job.ids) for job in jobs], tokens_max=of_batch):
            self._encode([jobs[index] for index in batch])
        self.tally.pace.step(self._clock.monotonic_s(), is_backlogged=bool(self.waiting))
        return bool(jobs)

    def _encode(self, jobs: list[EncodeJob]) -> None:
        model = self.resident.model
        assert not isinstance(model, Decoder), "only encoders encode. This is a bug."
        device = torch.device(self.resident.loaded.device)
        ids = sent(np.array([i for job in jobs for i in job.ids], np.int64), device)
        types = sent(np.array([i for job in jobs for i in job.type_ids or (0,) * len(job.ids)], np.int64), device)
        began_s = self._clock.monotonic_s()
        try:
            scores = fetched(model.forward(ids, types, [len(job.ids) for job in jobs], [job.places for job in jobs]))
        except Exception:
            log.exception("a batch of %d rows failed on %s", len(jobs), self.resident.loaded.id)
            if len(jobs) > 1:
                for job in jobs:
                    self._encode([job])
            else:
                self._leave(FailedEvent(job_id=jobs[0].id, error=InternalError()))
            return
        self.tally.step(rows=len(jobs), tokens=len(ids), seconds=self._clock.monotonic_s() - began_s)
        for job, found in zip(jobs, scores, strict=True):
            if not bool(torch.isfinite(found).all()):
                self._leave(FailedEvent(job_id=job.id, error=InternalError()))
                continue
            self._emit(event_of(job, found))
            usage = JobUsage(input_tokens=len(job.ids))
            self._leave(FinishedEvent(job_id=job.id, reason=FinishReason.DONE, usage=usage))

"""What an encoder made of a job, as its event; and why a job cannot be read at all."""

from collections.abc import Sequence
from itertools import accumulate

import torch

from app.engine.compute.plain import floats, integers
from app.engine.events import EncodedEvent
from app.engine.jobs import EncodeJob
from app.errors import InvalidRequest


def fetched(found: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The rows' scores in the host's memory, by one copy."""
    if not found or found[0].device.type == "cpu":
        return list(found)
    together = torch.cat([row.flatten() for row in found]).cpu()
    ends = accumulate(row.numel() for row in found)
    return [together[end - row.numel() : end].view(row.shape) for row, end in zip(found, ends, strict=True)]


def event_of(job: EncodeJob, found: torch.Tensor) -> EncodedEvent:
    """A row's scores, or, for (places, vocabulary) scores of hidden tokens, the best guesses."""
    if not job.places:
        return EncodedEvent(job_id=job.id, scores=tuple(tuple(floats(row)) for row in found))
    logprobs = found.log_softmax(-1)
    targets = torch.tensor(job.targets, device=found.device, dtype=torch.long)
    if job.targets:
        logprobs = logprobs[:, targets]
    values, best = logprobs.topk(min(job.guesses, logprobs.shape[1]))
    ids = targets[best] if job.targets else best
    top = tuple(tuple(zip(integers(i), floats(v), strict=True)) for i, v in zip(ids, values, strict=True))
    return EncodedEvent(job_id=job.id, scores=(), top=top)


def refusal_of(job: EncodeJob, vocabulary: int) -> InvalidRequest | None:
    """What no encoder could read."""
    if job.type_ids and len(job.type_ids) != len(job.ids):
        return InvalidRequest("type_ids must be as many as ids")
    if not all(0 <= place < len(job.ids) for place in job.places):
        return InvalidRequest("a place lies outside the ids")
    if not all(0 <= token < vocabulary for token in job.targets):
        return InvalidRequest("a target lies outside the model's vocabulary")
    return None

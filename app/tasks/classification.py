"""Text classification: texts in, labels with scores out, over encode jobs."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from app.engine.jobs import EncodeJob
from app.engine.session import JobSession
from app.errors import ContextLengthExceeded
from app.registry.model import TaskName
from app.registry.residency import Resident
from app.tasks.task import Caller, Prepared, encoded, places, refuse_empty
from app.text.tokenizer import Encoding
from app.text.truncation import Truncate, cut


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationRequest:
    """Texts to label."""

    texts: tuple[str, ...]
    truncate: Truncate = Truncate.ERROR


@dataclass(slots=True, kw_only=True)
class PreparedClassification(Prepared):
    """Encode jobs, one a text."""

    labels: tuple[str, ...]
    is_truncated: tuple[bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A label's name and its probability, 0 to 1."""

    name: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """One text's labels, best first."""

    index: int
    labels: tuple[Label, ...]
    is_truncated: bool


class Classification:
    """See Task."""

    name = TaskName.CLASSIFICATION

    async def prepare(
        self, request: ClassificationRequest, resident: Resident, caller: Caller
    ) -> PreparedClassification:
        """See Task.prepare."""
        refuse_empty(request.texts, "input", texts_max=resident.model.limits.batch_inputs_max)
        tokenizer = resident.tokenizer
        encodings = await asyncio.to_thread(lambda: [tokenizer.encode(text) for text in request.texts])
        tokens_max = min(resident.loaded.positions_max, resident.model.limits.input_tokens_max or math.inf)
        kept: list[Encoding] = []
        for index, encoding in enumerate(encodings):
            if len(encoding.ids) > tokens_max and request.truncate is Truncate.ERROR:
                raise ContextLengthExceeded(
                    f"input {index} has {len(encoding.ids)} tokens and {resident.model.id} reads {tokens_max}; "
                    "shorten it, or set truncate to left or right",
                    field=f"input.{index}",
                )
            kept.append(cut_encoding(encoding, int(tokens_max), request.truncate))
        jobs = tuple(
            EncodeJob(
                id=f"{caller.request_id}-{index}", model=resident.model.id, ids=encoding.ids,
                type_ids=encoding.type_ids, tenant=caller.tenant, weight=caller.weight,
            )
            for index, encoding in enumerate(kept)
        )  # fmt: skip
        return PreparedClassification(
            jobs=jobs, input_tokens=sum(len(job.ids) for job in jobs), labels=resident.labels,
            characters=sum(map(len, request.texts)),
            is_truncated=tuple(a is not b for a, b in zip(encodings, kept, strict=True)),
        )  # fmt: skip

    async def events(self, prepared: PreparedClassification, session: JobSession) -> AsyncIterator[Classified]:
        """See Task.events."""
        place_of = places(prepared.jobs)
        async for event in encoded(session):
            index = place_of[event.job_id]
            labels = tuple(ranked(event.scores[0], prepared.labels))
            yield Classified(index=index, labels=labels, is_truncated=prepared.is_truncated[index])


def cut_encoding(encoding: Encoding, tokens_max: int, truncate: Truncate) -> Encoding:
    """The same when it fits, else without its last or first words. The special token at either end stays."""
    if len(encoding.ids) <= tokens_max:
        return encoding
    kept = cut(encoding.ids[1:-1], tokens_max - 2, truncate)
    return Encoding((encoding.ids[0], *kept, encoding.ids[-1]), encoding.type_ids[:tokens_max])


def ranked(logits: Sequence[float], labels: Sequence[str]) -> list[Label]:
    """Softmax of the logits, best first; equal scores in the labels' order."""
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    total = sum(powers)
    scored = [Label(name=name, score=power / total) for name, power in zip(labels, powers, strict=True)]
    return sorted(scored, key=lambda label: -label.score)

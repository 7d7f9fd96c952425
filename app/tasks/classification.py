"""Text classification: texts, or pairs of them, in, labels with scores out, over encode jobs."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from app.engine.session import JobSession
from app.registry.model import ScoreFunction, TaskName
from app.registry.residency import Resident
from app.tasks.task import Caller, Prepared, encode_jobs, encoded, places, readable_tokens, refuse_empty, too_long
from app.text.pairs import Fitted, pair, pair_length, single
from app.text.truncation import Truncate

Text = str | tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationRequest:
    """Texts to label."""

    texts: tuple[Text, ...]
    """Of a pair that is too long, the longer is cut."""
    function: ScoreFunction | None = None
    """What makes scores of the logits; None takes the model's."""
    truncate: Truncate = Truncate.ERROR


@dataclass(slots=True, kw_only=True)
class PreparedClassification(Prepared):
    """Encode jobs, one a text."""

    labels: tuple[str, ...]
    function: ScoreFunction


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A label's name and its score; a probability, 0 to 1, unless raw logits were asked for."""

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
        texts_max = resident.model.limits.batch_inputs_max
        refuse_empty(tuple("".join(text) for text in request.texts), "input", texts_max=texts_max)
        fitted = await asyncio.to_thread(
            lambda: [fit(text, index, request.truncate, resident) for index, text in enumerate(request.texts)]
        )
        jobs = encode_jobs([one.encoding for one in fitted], resident, caller)
        return PreparedClassification(
            jobs=jobs, input_tokens=sum(len(job.ids) for job in jobs), labels=resident.labels,
            characters=sum(len("".join(text)) for text in request.texts),
            function=request.function or resident.score_function,
            is_truncated=tuple(one.is_truncated for one in fitted),
        )  # fmt: skip

    async def events(self, prepared: PreparedClassification, session: JobSession) -> AsyncIterator[Classified]:
        """See Task.events."""
        place_of = places(prepared.jobs)
        async for event in encoded(session):
            index = place_of[event.job_id]
            labels = tuple(ranked(event.scores[0], prepared.labels, prepared.function))
            yield Classified(index=index, labels=labels, is_truncated=prepared.is_truncated[index])


def fit(text: Text, index: int, truncate: Truncate, resident: Resident) -> Fitted:
    """What will be read of one text or pair. Raises ContextLengthExceeded when it is too long and not to be cut."""
    tokenizer, tokens_max = resident.tokenizer, readable_tokens(resident)
    if isinstance(text, str):
        whole = tokenizer.encode(text)
        if len(whole.ids) > tokens_max and truncate is Truncate.ERROR:
            raise too_long("input", index, len(whole.ids), tokens_max, resident)
        kept = single(whole, tokens_max, truncate)
        return Fitted(kept, kept is not whole)
    first, second = (tokenizer.encode_plain(part)[0] for part in text)
    if pair_length(first, second) > tokens_max and truncate is Truncate.ERROR:
        raise too_long("input", index, pair_length(first, second), tokens_max, resident)
    return pair(
        first, second, cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id, tokens_max=tokens_max, truncate=truncate
    )


def ranked(
    logits: Sequence[float], labels: Sequence[str], function: ScoreFunction = ScoreFunction.SOFTMAX
) -> list[Label]:
    """The labels with their scores, best first; equal scores in the labels' order."""
    scores = {ScoreFunction.SOFTMAX: softmax, ScoreFunction.SIGMOID: sigmoids, ScoreFunction.NONE: list}[function](
        logits
    )
    scored = [Label(name=name, score=score) for name, score in zip(labels, scores, strict=True)]
    return sorted(scored, key=lambda label: -label.score)


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities that add to 1."""
    highest = max(logits)
    powers = [math.exp(logit - highest) for logit in logits]
    total = sum(powers)
    return [power / total for power in powers]


def sigmoid(logit: float) -> float:
    """A probability by itself."""
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else 1 - 1 / (1 + math.exp(logit))


def sigmoids(logits: Sequence[float]) -> list[float]:
    """Each label's probability by itself."""
    return [sigmoid(logit) for logit in logits]

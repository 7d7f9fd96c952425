"""Zero-shot classification: does a text entail "this is about LABEL"? One pair a label, read by an NLI model.

(Yin et al. 2019, "Benchmarking zero-shot text classification")
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from app.engine.session import JobSession
from app.errors import InvalidRequest, TaskMismatch
from app.registry.model import TaskName
from app.registry.residency import Resident
from app.tasks.classification import Label, softmax
from app.tasks.task import Caller, Prepared, encode_jobs, encoded, readable_tokens, refuse_empty, too_long
from app.text.pairs import Fitted, pair, pair_length
from app.text.truncation import Truncate

TEMPLATE = "This example is {}."
ENTAILMENT = "entail"
"""How the label's name begins, whatever its case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroShotRequest:
    """Texts, and the labels to choose from."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    is_multi_label: bool = False
    """Each label by itself (entailed or contradicted), instead of one of them."""
    template: str = TEMPLATE
    """The hypothesis; `{}` stands for the label."""
    truncate: Truncate = Truncate.RIGHT
    """What is done to a text that is too long beside its hypothesis, which stays whole."""


@dataclass(slots=True, kw_only=True)
class PreparedZeroShot(Prepared):
    """Encode jobs: text by text, label by label."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    entailment: int
    is_multi_label: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """One text's labels, best first."""

    index: int
    text: str
    labels: tuple[Label, ...]
    is_truncated: bool


class ZeroShot:
    """See Task."""

    name = TaskName.ZERO_SHOT

    async def prepare(self, request: ZeroShotRequest, resident: Resident, caller: Caller) -> PreparedZeroShot:
        """See Task.prepare."""
        rows_max = resident.model.limits.batch_inputs_max
        refuse_empty(request.texts, "input", texts_max=rows_max)
        refuse_empty(request.labels, "candidate_labels", texts_max=rows_max)
        if len(request.texts) * len(request.labels) > rows_max:
            raise InvalidRequest(f"texts times labels is at most {rows_max} a request", field="candidate_labels")
        entailment = entailment_of(resident)
        hypotheses = [formatted(request.template, label) for label in request.labels]
        fitted = await asyncio.to_thread(
            lambda: [
                fit(text, hypothesis, index, request.truncate, resident)
                for index, text in enumerate(request.texts)
                for hypothesis in hypotheses
            ]
        )
        jobs = encode_jobs([one.encoding for one in fitted], resident, caller)
        count = len(request.labels)
        return PreparedZeroShot(
            jobs=jobs, input_tokens=sum(len(job.ids) for job in jobs), texts=request.texts, labels=request.labels,
            characters=sum(map(len, request.texts)) + sum(map(len, request.labels)), entailment=entailment,
            is_multi_label=request.is_multi_label or count == 1,
            is_truncated=tuple(
                any(one.is_truncated for one in fitted[start : start + count]) for start in range(0, len(fitted), count)
            ),
        )  # fmt: skip

    async def events(self, prepared: PreparedZeroShot, session: JobSession) -> AsyncIterator[Chosen]:
        """See Task.events."""
        logits = {event.job_id: event.scores[0] async for event in encoded(session)}
        count = len(prepared.labels)
        for index, text in enumerate(prepared.texts):
            rows = [logits[job.id] for job in prepared.jobs[index * count : (index + 1) * count]]
            scores = scores_of(rows, prepared.entailment, is_multi_label=prepared.is_multi_label)
            found = [Label(name=name, score=score) for name, score in zip(prepared.labels, scores, strict=True)]
            labels = tuple(sorted(found, key=lambda label: -label.score))
            yield Chosen(index=index, text=text, labels=labels, is_truncated=prepared.is_truncated[index])


def entailment_of(resident: Resident) -> int:
    """Which logit says that the text entails the hypothesis. Raises TaskMismatch for a model without one."""
    for index, label in enumerate(resident.labels):
        if label.lower().startswith(ENTAILMENT):
            return index
    raise TaskMismatch(
        f"The model {resident.model.id} has no label that begins with {ENTAILMENT!r}, so it cannot choose among labels "
        "of yours; use a model that was trained on inference (NLI).",
        field="model",
    )


def formatted(template: str, label: str) -> str:
    """The hypothesis for a label. Raises InvalidRequest for a template that has no place for it."""
    if template.count("{}") != 1:
        raise InvalidRequest("hypothesis_template must hold {} once, where the label goes", field="hypothesis_template")
    return template.replace("{}", label)


def fit(text: str, hypothesis: str, index: int, truncate: Truncate, resident: Resident) -> Fitted:
    """Both, the text cut where the hypothesis leaves too little room. Raises ContextLengthExceeded."""
    tokenizer, tokens_max = resident.tokenizer, readable_tokens(resident)
    first, second = tokenizer.encode_plain(text)[0], tokenizer.encode_plain(hypothesis)[0]
    length = pair_length(first, second)
    if length > tokens_max and (truncate is Truncate.ERROR or len(second) + 3 >= tokens_max):
        raise too_long("input", index, length, tokens_max, resident)
    return pair(
        first, second, cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id, tokens_max=tokens_max, truncate=truncate,
        keeps_second=True,
    )  # fmt: skip


def scores_of(rows: Sequence[Sequence[float]], entailment: int, *, is_multi_label: bool) -> list[float]:
    """Of each label, from the (labels of the model,) logits of its pair.

    Several may hold: entailment against contradiction, which is the first label, or the last where entailment is first.
    One holds: entailment among all candidates.
    """
    if not is_multi_label:
        return softmax([row[entailment] for row in rows])
    contradiction = 0 if entailment else -1
    return [softmax((row[contradiction], row[entailment]))[1] for row in rows]

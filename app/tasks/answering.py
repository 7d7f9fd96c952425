"""Question answering: spans of a context, read through overlapping windows, or that it does not say."""

import asyncio
import heapq
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from app.engine.jobs import EncodeJob
from app.engine.session import JobSession
from app.errors import ContextLengthExceeded, InvalidRequest
from app.registry.model import TaskName
from app.registry.residency import Resident
from app.tasks.task import Caller, Prepared, encoded, refuse_empty, refuse_many
from app.text.truncation import Truncate, cut
from app.text.windows import Window, windows

CANDIDATES = 20
"""Best starts and ends that are paired, per window."""
ANSWER_TOKENS_MAX = 30
GOES_ON = "##"
"""How a piece begins that goes on with the word before it."""
CONTEXT_TOKENS_MAX = 8192
"""What one question may read in all its windows, unless the catalogue says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweringRequest:
    """Questions, each with its context."""

    questions: tuple[str, ...]
    contexts: tuple[str, ...]
    answers_max: int = 1
    no_answer_threshold: float | None = None
    """None takes the model's."""
    truncate: Truncate = Truncate.ERROR
    answer_tokens_max: int = ANSWER_TOKENS_MAX
    question_tokens_max: int | None = None
    """A longer question loses its end; None reads all of it."""
    window_tokens_max: int | None = None
    """Of a window, the question included; None takes the model's positions."""
    overlap_tokens: int | None = None
    """What neighbouring windows share; None takes a quarter."""
    aligns_words: bool = False
    """Answers begin and end with whole words, where the tokens are pieces of some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question's windows, and where the context's tokens came from."""

    context: str
    offsets: tuple[tuple[int, int], ...]
    windows: tuple[Window, ...]
    is_truncated: bool


@dataclass(slots=True, kw_only=True)
class PreparedAnswering(Prepared):
    """Encode jobs, one a window."""

    items: tuple[Item, ...]
    answers_max: int
    threshold: float
    answer_tokens_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """An answer: its text, where it stands in the context (characters), and its probability among all candidates."""

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One question's best answers. No spans: the context does not say."""

    index: int
    spans: tuple[Span, ...]
    no_answer_score: float
    is_truncated: bool


class Answering:
    """See Task."""

    name = TaskName.ANSWERING

    async def prepare(self, request: AnsweringRequest, resident: Resident, caller: Caller) -> PreparedAnswering:
        """See Task.prepare."""
        limits = resident.model.limits
        if len(request.questions) != len(request.contexts):
            raise InvalidRequest("question and context must be lists of one length, or one of each", field="context")
        refuse_empty(request.questions, "question", texts_max=limits.batch_inputs_max)
        refuse_empty(request.contexts, "context", texts_max=limits.batch_inputs_max)
        items = [
            await asyncio.to_thread(self._item, question, context, request, resident, index)
            for index, (question, context) in enumerate(zip(request.questions, request.contexts, strict=True))
        ]
        flat = [window for item in items for window in item.windows]
        if request.overlap_tokens is not None or request.window_tokens_max is not None:
            refuse_many(len(flat), "doc_stride")
        jobs = tuple(
            EncodeJob(
                id=f"{caller.request_id}-{number}", model=resident.model.id, ids=window.ids,
                type_ids=window.type_ids, tenant=caller.tenant, weight=caller.weight,
            )
            for number, window in enumerate(flat)
        )  # fmt: skip
        threshold = request.no_answer_threshold
        return PreparedAnswering(
            jobs=jobs, input_tokens=sum(len(job.ids) for job in jobs), items=tuple(items),
            is_truncated=tuple(item.is_truncated for item in items),
            characters=sum(map(len, request.questions)) + sum(map(len, request.contexts)),
            answers_max=request.answers_max, answer_tokens_max=request.answer_tokens_max,
            threshold=resident.model.no_answer_threshold if threshold is None else threshold,
        )  # fmt: skip

    def _item(self, question: str, context: str, request: AnsweringRequest, resident: Resident, index: int) -> Item:
        tokenizer = resident.tokenizer
        asked = tokenizer.encode_plain(question.strip())[0]
        is_asked_cut = request.question_tokens_max is not None and len(asked) > request.question_tokens_max
        asked = asked[: request.question_tokens_max]
        ids, offsets = tokenizer.encode_plain(context)
        if request.aligns_words:
            offsets = whole_words(offsets, [tokenizer.piece(token).startswith(GOES_ON) for token in ids])
        truncate = request.truncate
        tokens_max = resident.model.limits.input_tokens_max or CONTEXT_TOKENS_MAX
        is_truncated = len(ids) > tokens_max
        if is_truncated and truncate is Truncate.ERROR:
            raise ContextLengthExceeded(
                f"context {index} has {len(ids)} tokens and {resident.model.id} reads {tokens_max}; shorten it, "
                "or set truncate to left or right",
                field=f"context.{index}",
            )
        kept = cut(ids, tokens_max, truncate)
        if is_truncated:
            offsets = offsets[: len(kept)] if truncate is Truncate.RIGHT else offsets[len(ids) - len(kept) :]
        positions_max = resident.loaded.positions_max
        found = windows(
            asked, kept, cls_id=tokenizer.cls_id, sep_id=tokenizer.sep_id, overlap=request.overlap_tokens,
            positions_max=min(positions_max, request.window_tokens_max or positions_max),
        )  # fmt: skip
        return Item(context=context, offsets=offsets, windows=tuple(found), is_truncated=is_truncated or is_asked_cut)

    async def events(self, prepared: PreparedAnswering, session: JobSession) -> AsyncIterator[Answered]:
        """See Task.events."""
        scores: dict[str, tuple[tuple[float, ...], ...]] = {}
        async for event in encoded(session):
            scores[event.job_id] = event.scores
        jobs = iter(prepared.jobs)
        for index, item in enumerate(prepared.items):
            rows = [scores[next(jobs).id] for _ in item.windows]
            yield answer(
                index, item, rows, answers_max=prepared.answers_max, threshold=prepared.threshold,
                answer_tokens_max=prepared.answer_tokens_max,
            )  # fmt: skip


def answer(
    index: int, item: Item, rows: Sequence[Sequence[Sequence[float]]], *, answers_max: int, threshold: float,
    answer_tokens_max: int = ANSWER_TOKENS_MAX,
) -> Answered:  # fmt: skip
    """The best spans over all windows, scored on one scale, or none.

    As in SQuAD 2's evaluation of BERT: a span's score is the sum of its start's and end's logits; the empty answer's is
    that of [CLS], the lowest of the windows'; it wins when it exceeds the best span's by more than `threshold`.
    """
    none = min(start[0] + end[0] for start, end in rows)
    best: dict[tuple[int, int], float] = {}
    for window, (start, end) in zip(item.windows, rows, strict=True):
        for score, first, last in candidates(window, start, end, answer_tokens_max):
            key = (item.offsets[first][0], item.offsets[last][1])
            best[key] = max(score, best.get(key, -math.inf))
    ranked = sorted(best.items(), key=lambda found: (-found[1], found[0]))
    highest = max([none, *best.values()])
    total = math.exp(none - highest) + sum(math.exp(score - highest) for score in best.values())
    spans: list[Span] = []
    if ranked and none - ranked[0][1] <= threshold:
        for (start, end), score in ranked:
            if len(spans) < answers_max and not any(start < span.end and span.start < end for span in spans):
                share = math.exp(score - highest) / total
                spans.append(Span(text=item.context[start:end], start=start, end=end, score=share))
    return Answered(
        index=index, spans=tuple(spans), no_answer_score=math.exp(none - highest) / total,
        is_truncated=item.is_truncated,
    )  # fmt: skip


def candidates(
    window: Window, start: Sequence[float], end: Sequence[float], answer_tokens_max: int
) -> list[tuple[float, int, int]]:
    """(score, first, last) of plausible spans, as places among the context's tokens."""
    places = range(window.offset, window.offset + window.count)
    starts = heapq.nlargest(CANDIDATES, places, key=lambda place: start[place])
    ends = heapq.nlargest(CANDIDATES, places, key=lambda place: end[place])
    shift = window.start - window.offset
    return [
        (start[first] + end[last], first + shift, last + shift)
        for first in starts
        for last in ends
        if first <= last < first + answer_tokens_max
    ]


def whole_words(offsets: Sequence[tuple[int, int]], goes_on: Sequence[bool]) -> tuple[tuple[int, int], ...]:
    """Each token's place widened to that of its word."""
    words: list[list[int]] = []
    for index, is_more in enumerate(goes_on):
        if is_more and words:
            words[-1].append(index)
        else:
            words.append([index])
    return tuple((offsets[word[0]][0], offsets[word[-1]][1]) for word in words for _ in word)

"""Question answering: the spans of transformers' logits by SQuAD 2's rule, over one window or many."""

import itertools
from typing import Any

import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from app.engine.session import open_jobs
from app.errors import ContextLengthExceeded, InvalidRequest
from app.registry.residency import Residency
from app.tasks.answering import ANSWER_TOKENS_MAX, Answered, Answering, AnsweringRequest, Item, answer
from app.tasks.task import Caller
from app.text.truncation import Truncate
from app.text.windows import Window

MODEL = "tiny-bert-qa"
ALWAYS, NEVER = 1e9, -1e9


async def answered(residency: Residency, request: AnsweringRequest) -> list[Answered]:
    task = Answering()
    async with residency.lease(MODEL) as resident:
        prepared = await task.prepare(request, resident, Caller(request_id="r"))
        async with open_jobs(residency._engine, prepared.jobs) as session:
            return [event async for event in task.events(prepared, session)]


@pytest.mark.parametrize(
    ("question", "context"),
    [
        ("where do i live?", "my name is clara and i live in berkeley"),
        ("what is your name?", "good morning, how are you today? one two three"),
    ],
)
async def test_the_best_span_is_that_of_an_exhaustive_search(residency: Residency, question: str, context: str) -> None:
    request = AnsweringRequest(questions=(question,), contexts=(context,), no_answer_threshold=ALWAYS)
    [found] = await answered(residency, request)
    folder = (await residency.load(MODEL)).folder
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    theirs: Any = AutoModelForQuestionAnswering.from_pretrained(folder, dtype=torch.float32).eval()
    encoded: Any = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    scores: Any = theirs(**encoded)
    start, end = scores.start_logits[0].detach(), scores.end_logits[0].detach()
    places = [place for place, sequence in enumerate(encoded.sequence_ids(0)) if sequence == 1]
    pairs = [pair for pair in itertools.product(places, places) if pair[0] <= pair[1] < pair[0] + ANSWER_TOKENS_MAX]
    first, last = max(pairs, key=lambda pair: float(start[pair[0]] + end[pair[1]]))
    span = found.spans[0]
    assert (span.start, span.end) == (offsets[first][0], offsets[last][1])
    assert span.text == context[span.start : span.end]


async def test_the_threshold_decides_whether_the_context_says(residency: Residency) -> None:
    context = "my name is clara and i live in berkeley"
    for threshold, count in ((NEVER, 0), (ALWAYS, 3)):
        request = AnsweringRequest(
            questions=("what is your name?",), contexts=(context,), answers_max=3, no_answer_threshold=threshold
        )
        [found] = await answered(residency, request)
        assert len(found.spans) == count
        assert 0 <= found.no_answer_score <= 1
        scores = [span.score for span in found.spans]
        assert scores == sorted(scores, reverse=True)
        for one, two in itertools.combinations(found.spans, 2):
            assert one.end <= two.start or two.end <= one.start


async def test_a_long_context_is_read_in_windows_and_positions_hold(residency: Residency) -> None:
    context = " ".join(["one two three"] * 120)
    request = AnsweringRequest(questions=("where?",), contexts=(context,), no_answer_threshold=ALWAYS)
    async with residency.lease(MODEL) as resident:
        prepared = await Answering().prepare(request, resident, Caller(request_id="r"))
        assert len(prepared.jobs) > 3
        assert prepared.input_tokens == sum(len(job.ids) for job in prepared.jobs)
    [found] = await answered(residency, request)
    span = found.spans[0]
    assert span.text == context[span.start : span.end] != ""


def test_of_the_same_span_in_two_windows_the_better_score_counts() -> None:
    item = Item(
        context="abcd", offsets=((0, 1), (1, 2), (2, 3), (3, 4)), is_truncated=False,
        windows=(Window((9, 0, 1, 2, 9), (0, 1, 1, 1, 1), 1, 0, 3), Window((9, 1, 2, 3, 9), (0, 1, 1, 1, 1), 1, 1, 3)),
    )  # fmt: skip
    rows = [([0.0, 0, 0, 1, 0], [0.0, 0, 0, 1, 0]), ([0.0, 0, 4, 0, 0], [0.0, 0, 4, 0, 0])]
    found = answer(0, item, rows, answers_max=1, threshold=0)
    assert (found.spans[0].text, found.spans[0].start) == ("c", 2)
    none = answer(0, item, [([9.0, 0, 0, 0, 0], [9.0, 0, 0, 0, 0])] * 2, answers_max=1, threshold=0)
    assert none.spans == () and none.no_answer_score > 0.99


async def test_lists_of_two_lengths_and_a_huge_context_are_refused(residency: Residency) -> None:
    with pytest.raises(InvalidRequest, match="one length"):
        await answered(residency, AnsweringRequest(questions=("a", "b"), contexts=("c",)))
    long = "one " * 9000
    with pytest.raises(ContextLengthExceeded, match="context 0 has 9000 tokens"):
        await answered(residency, AnsweringRequest(questions=("one?",), contexts=(long,)))
    request = AnsweringRequest(questions=("one?",), contexts=(long,), truncate=Truncate.LEFT)
    [found] = await answered(residency, request)
    assert found.is_truncated

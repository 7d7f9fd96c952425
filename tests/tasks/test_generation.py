"""A row's text is the same however its tokens come: one by one, or many together."""

import pytest

from app.engine.events import TokenEvent
from app.engine.jobs import DecodeJob
from app.registry.residency import Residency
from app.tasks.generation import Choice, Generation, GenerationRequest
from app.tasks.task import Caller

TEXT = "naïve café — 🦊🦊 and a fox, for 12 € \N{HEAVY BLACK HEART}"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 200])
@pytest.mark.parametrize("stops", [(), ("never there",)])
async def test_a_text_does_not_depend_on_how_its_tokens_come(
    residency: Residency, size: int, stops: tuple[str, ...]
) -> None:
    request = GenerationRequest(prompts=("one",), stops=stops)
    async with residency.lease("tiny-gpt2") as resident:
        prepared = await Generation().prepare(request, resident, Caller(request_id="r"))
        eos = resident.tokenizer.eos_id
        assert eos is not None
        ids = (*resident.tokenizer.encode(TEXT).ids, eos)
    choice, told = Choice(0, prepared), list[int]()
    text = ""
    for start in range(0, len(ids), size):
        delta = choice.push(TokenEvent(job_id="r-0", ids=ids[start : start + size]), size)
        text += delta.text
        told += delta.ids
    assert text + choice.finish() == TEXT
    assert tuple(told) == ids and choice.tokens == len(ids)


@pytest.mark.parametrize(
    ("is_streaming", "stops", "is_whole"), [(True, (), False), (False, ("x",), False), (False, (), True)]
)
async def test_only_a_text_that_is_shown_whole_and_has_no_stop_string_may_come_late(
    residency: Residency, is_streaming: bool, stops: tuple[str, ...], is_whole: bool
) -> None:
    request = GenerationRequest(prompts=("one", (1, 2)), stops=stops)
    async with residency.lease("tiny-gpt2") as resident:
        prepared = await Generation().prepare(request, resident, Caller(request_id="r", is_streaming=is_streaming))
    assert [isinstance(job, DecodeJob) and job.is_whole for job in prepared.jobs] == [is_whole, is_whole]


async def test_of_tokens_that_come_together_no_more_are_shown_than_are_paid_for(residency: Residency) -> None:
    async with residency.lease("tiny-gpt2") as resident:
        prepared = await Generation().prepare(GenerationRequest(prompts=("one",)), resident, Caller(request_id="r"))
        ids = resident.tokenizer.encode("one two three four").ids
        shown = resident.tokenizer.decode(ids[:2])
    choice = Choice(0, prepared)
    delta = choice.push(TokenEvent(job_id="r-0", ids=ids), 2)
    assert (delta.text + choice.finish(), delta.ids, choice.tokens) == (shown, ids[:2], 2)
    assert choice.push(TokenEvent(job_id="r-0", ids=ids), 0).ids == ()

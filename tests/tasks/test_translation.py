"""Translation: each sentence is what transformers' beam search makes of it, and the text's shape stays."""

from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, MarianMTModel

from app.engine.session import open_jobs
from app.errors import ContextLengthExceeded, EmptyInput
from app.registry.residency import Residency
from app.tasks.task import Caller
from app.tasks.translation import Translated, Translation, TranslationRequest
from app.text.truncation import Truncate

MODEL = "tiny-marian"


async def translated(residency: Residency, request: TranslationRequest) -> list[Translated]:
    task = Translation()
    async with residency.lease(MODEL) as resident:
        prepared = await task.prepare(request, resident, Caller(request_id="r"))
        async with open_jobs(residency._engine, prepared.jobs) as session:
            found = [event async for event in task.events(prepared, session)]
    return sorted(found, key=lambda one: one.index)


@pytest.mark.parametrize("beams", [1, 4])
async def test_a_sentence_becomes_what_transformers_makes_of_it(residency: Residency, beams: int) -> None:
    texts = ("good morning, how are you today?", "my name is clara", "one two three four")
    found = await translated(residency, TranslationRequest(texts=texts, beams=beams))
    folder = (await residency.load(MODEL)).folder
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    theirs: Any = MarianMTModel.from_pretrained(folder, dtype=torch.float32).eval()
    for text, one in zip(texts, found, strict=True):
        encoded = tokenizer(text, return_tensors="pt")
        most = min(63, 2 * encoded["input_ids"].shape[1] + 16)
        made = theirs.generate(**encoded, num_beams=beams, do_sample=False, max_new_tokens=most)
        assert one.text == tokenizer.decode(made[0], skip_special_tokens=True)


async def test_alternatives_are_other_texts_each_counted_once(residency: Residency) -> None:
    request = TranslationRequest(texts=("one two. three four.", "my name is clara"), alternatives=3)
    task = Translation()
    async with residency.lease(MODEL) as resident:
        prepared = await task.prepare(request, resident, Caller(request_id="r"))
        async with open_jobs(residency._engine, prepared.jobs) as session:
            found = sorted([one async for one in task.events(prepared, session)], key=lambda one: one.index)
            made = session.total_usage.output_tokens
    [best, other] = await translated(residency, TranslationRequest(texts=request.texts))
    assert [one.text for one in found] == [best.text, other.text]
    for one in found:
        assert 0 < len(one.alternatives) <= 3 and len({one.text, *one.alternatives}) == 1 + len(one.alternatives)
    assert prepared.delivered_tokens <= made <= prepared.output_tokens_max
    if all(len(one.alternatives) == 3 for one in found):
        assert prepared.delivered_tokens == made


async def test_line_breaks_and_margins_stay(residency: Residency) -> None:
    text = "  one two.\n\n three four. Five six.\n"
    [whole] = await translated(residency, TranslationRequest(texts=(text,)))
    parts = await translated(residency, TranslationRequest(texts=("one two.", "three four.", "Five six.")))
    one, two, three = (part.text for part in parts)
    assert whole.text == f"  {one}\n\n {two} {three}\n"


async def test_a_sentence_that_is_too_long_is_refused_or_cut_by_policy(residency: Residency) -> None:
    long = "one two " * 60
    with pytest.raises(ContextLengthExceeded, match="sentence 0 of input 1") as refused:
        await translated(residency, TranslationRequest(texts=("one", long)))
    assert refused.value.field == "input.1"
    found = await translated(residency, TranslationRequest(texts=("one", long), truncate=Truncate.RIGHT))
    assert [one.is_truncated for one in found] == [False, True]


async def test_an_empty_text_is_refused_by_its_place(residency: Residency) -> None:
    with pytest.raises(EmptyInput, match="input 0"):
        await translated(residency, TranslationRequest(texts=("\n ", "one")))

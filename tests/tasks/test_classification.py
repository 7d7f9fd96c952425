"""Classification on real checkpoints: equal to transformers, and never cut in silence."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from app.engine.session import open_jobs
from app.errors import ContextLengthExceeded, EmptyInput
from app.registry.residency import Residency
from app.tasks.classification import Classification, ClassificationRequest, Classified
from app.tasks.task import Caller
from app.text.truncation import Truncate

MODEL = "tiny-bert-classifier"


async def classified(residency: Residency, *texts: str) -> list[Classified]:
    task = Classification()
    async with residency.lease(MODEL) as resident:
        prepared = await task.prepare(ClassificationRequest(texts=texts), resident, Caller(request_id="r"))
        async with open_jobs(residency._engine, prepared.jobs) as session:
            found = [event async for event in task.events(prepared, session)]
    return sorted(found, key=lambda one: one.index)


async def test_the_probabilities_are_those_of_transformers(residency: Residency) -> None:
    texts = ["hello world", "where do i live? what is your name?", "nine"]
    found = await classified(residency, *texts)
    folder = (await residency.load(MODEL)).folder
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    theirs: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    for text, one in zip(texts, found, strict=True):
        expected = theirs(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0].tolist()
        scores = {label.name: label.score for label in one.labels}
        assert [scores["NEGATIVE"], scores["POSITIVE"]] == pytest.approx(expected, abs=1e-5)
        assert list(scores.values()) == sorted(scores.values(), reverse=True)


@pytest.mark.parametrize("truncate", [Truncate.LEFT, Truncate.RIGHT])
async def test_a_long_text_is_refused_unless_a_cut_is_asked_for(residency: Residency, truncate: Truncate) -> None:
    words = ["one"] * 100 + ["ten"] * 100
    texts = ("one", " ".join(words))
    async with residency.lease(MODEL) as resident:
        with pytest.raises(
            ContextLengthExceeded, match="input 1 has 202 tokens and tiny-bert-classifier reads 128"
        ) as no:
            await Classification().prepare(ClassificationRequest(texts=texts), resident, Caller(request_id="r"))
        assert no.value.field == "input.1"
        request = ClassificationRequest(texts=texts, truncate=truncate)
        prepared = await Classification().prepare(request, resident, Caller(request_id="r"))
        assert prepared.is_truncated == (False, True)
        assert prepared.input_tokens == 3 + 128
        kept = " ".join(words[-126:] if truncate is Truncate.LEFT else words[:126])
        assert prepared.jobs[1].ids == resident.tokenizer.encode(kept).ids


async def test_an_empty_text_is_refused_by_its_place(residency: Residency) -> None:
    with pytest.raises(EmptyInput, match="input 1"):
        await classified(residency, "one", " \n")

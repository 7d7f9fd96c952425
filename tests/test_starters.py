"""The models that come with the catalogue: assembled out of their packages, loaded, and sensible on unseen inputs."""

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.clock import SystemClock
from app.engine.session import open_jobs
from app.engine.settings import EngineSettings
from app.engine.transports.inline import InlineEngine
from app.errors import SourceError
from app.registry.catalogue import SHIPPED, load_catalogue
from app.registry.model import LoadPolicy, TaskName
from app.registry.residency import Residency
from app.registry.settings import RegistrySettings
from app.tasks.answering import Answering, AnsweringRequest
from app.tasks.classification import Classification, ClassificationRequest
from app.tasks.generation import Generation, GenerationRequest, TextDelta
from app.tasks.ranking import Similarity, SimilarityRequest
from app.tasks.task import Caller, Task
from app.tasks.translation import Translation, TranslationRequest


@pytest.fixture
async def starters(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Residency, InlineEngine]]:
    engine = InlineEngine(settings=EngineSettings(), clock=SystemClock())
    home: Path = tmp_path_factory.getbasetemp() / "starters"
    yield (
        Residency(
            catalogue=load_catalogue(), engine=engine, settings=RegistrySettings(), home=home, clock=SystemClock()
        ),
        engine,
    )
    await engine.close()


async def results(
    starters: tuple[Residency, InlineEngine], model: str, task: Task[Any, Any, Any], asked: Any
) -> list[Any]:
    residency, engine = starters
    try:
        await residency.load(model)
    except SourceError as error:
        assert not os.environ.get("CI"), error.message
        pytest.skip(f"the starter extra is not installed: {error.message}")
    async with residency.lease(model) as resident:
        prepared = await task.prepare(asked, resident, Caller(request_id="r"))
        async with open_jobs(engine, prepared.jobs) as session:
            found = [event async for event in task.events(prepared, session)]
    return sorted(found, key=lambda one: one.index)


async def test_sentiment_knows_praise_from_blame(starters: tuple[Residency, InlineEngine]) -> None:
    texts = (
        "What a lovely evening, we will come back!",
        "I am not disappointed at all.",
        "The parcel arrived broken and nobody answers the phone.",
        "I am not happy with the service.",
    )
    found = await results(starters, "starter-sentiment", Classification(), ClassificationRequest(texts=texts))
    assert [one.labels[0].name for one in found] == ["POSITIVE"] * 2 + ["NEGATIVE"] * 2


async def test_vectors_of_one_meaning_lie_near_each_other(starters: tuple[Residency, InlineEngine]) -> None:
    texts = ("The harbour bridge is shut for repairs.", "Cyclists love mangoes.", "They are mending the closed bridge.")
    asked = SimilarityRequest(source=texts[0], texts=texts[1:])
    other, same = await results(starters, "starter-embeddings", Similarity(), asked)
    assert same.score > 0.5 > other.score + 0.2


async def test_english_becomes_portuguese(starters: tuple[Residency, InlineEngine]) -> None:
    texts = ("Good morning. My brother bought a new car.\nThe water is cold.", "Where is the train station?")
    first, second = await results(starters, "starter-en-pt", Translation(), TranslationRequest(texts=texts))
    assert first.text.count("\n") == 1
    assert "bom dia" in first.text.lower()
    assert "carro novo" in first.text.lower() or "novo carro" in first.text.lower()
    assert "água" in first.text.partition("\n")[2].lower()
    assert "estação" in second.text.lower()


async def test_portuguese_becomes_english(starters: tuple[Residency, InlineEngine]) -> None:
    texts = ("A água está fria.", "Onde fica a estação de trem?", "Meu irmão comprou um carro novo.")
    found = [
        one.text.lower()
        for one in await results(starters, "starter-pt-en", Translation(), TranslationRequest(texts=texts))
    ]
    assert found[0] == "the water is cold."
    assert "train station" in found[1] and "where" in found[1]
    assert "brother" in found[2] and "new car" in found[2]


async def test_answers_come_from_the_text_or_not_at_all(starters: tuple[Residency, InlineEngine]) -> None:
    text = (
        "Laura Stein founded the bakery in 1994. Her brother Jonas repairs clocks in Hamburg. "
        "The bakery opens at seven and closes at noon."
    )
    questions = (
        "Who founded the bakery?",
        "Who repairs clocks?",
        "When does the bakery close?",
        "Who painted the door?",
    )
    asked = AnsweringRequest(questions=questions, contexts=(text,) * len(questions))
    found = await results(starters, "starter-qa", Answering(), asked)
    said = [one.spans[0].text if one.spans else "" for one in found]
    assert said[0] == "Laura Stein"
    assert said[1].endswith("Jonas")
    assert said[2] == "noon"
    assert said[3] == ""


async def test_everyday_prompts_are_continued_with_names_and_goods(starters: tuple[Residency, InlineEngine]) -> None:
    prompts = ("Hello, my name is", "I went to the shop and bought", "My grandmother always said that")
    asked = GenerationRequest(prompts=prompts, output_tokens_max=24)
    found = await results(starters, "starter-stories", Generation(), asked)
    said = [
        "".join(one.text for one in found if isinstance(one, TextDelta) and one.index == index) for index in range(3)
    ]
    for text in said:
        assert len(re.findall(r"[a-z]{2,}", text)) >= 3, text
        assert "." in text, "a sentence comes to its end"
    assert re.match(r" [A-Z][a-z]+", said[0]), "a name"
    assert len(set(said)) == 3


SIZE_MAX_BYTES = 40_000_000


def starter_folders() -> list[Path]:
    return sorted(path for path in (SHIPPED.parent / "starter").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", starter_folders(), ids=lambda folder: folder.name)
def test_a_card_names_data_licence_recipe_quality_and_faults(folder: Path) -> None:
    card = (folder / "CARD.md").read_text(encoding="utf-8")
    for part in ("Data", "Licence", "Recipe", "Measured", "Known faults"):
        assert f"**{part}" in card, f"{folder.name}'s card says nothing of: {part}"
    assert "models/recipes/" in card
    assert "metrics.json" in card
    assert (folder / "metrics.json").is_file()


def test_all_starters_together_stay_small() -> None:
    sizes = [path.stat().st_size for path in (SHIPPED.parent / "starter").rglob("*") if path.is_file()]
    assert sum(sizes) <= SIZE_MAX_BYTES


EVERYDAY = (TaskName.GENERATION, TaskName.CLASSIFICATION, TaskName.TRANSLATION, TaskName.ANSWERING)
"""The tasks that `make serve` shows."""


def test_every_everyday_task_has_one_model_from_the_start() -> None:
    at_start = [model.tasks[0] for model in load_catalogue() if model.load is LoadPolicy.START and model.is_enabled]
    assert sorted(at_start) == sorted(EVERYDAY)


def test_every_starter_folder_is_in_the_catalogue() -> None:
    known = {model.id for model in load_catalogue()}
    assert {folder.name for folder in starter_folders()} <= known


def test_every_starter_is_free_so_that_the_first_call_works() -> None:
    assert [model.id for model in load_catalogue() if model.id.startswith("starter-") and not model.is_free] == []

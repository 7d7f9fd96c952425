"""Fill-mask equals transformers' pipeline: one place or several, all tokens or targets, alone or in company."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

from app.engine.session import open_jobs
from app.errors import InvalidRequest
from app.registry.residency import Residency
from app.tasks.task import Caller
from app.tasks.unmasking import Unmasked, Unmasking, UnmaskingRequest
from app.text.truncation import Truncate

MODEL = "tiny-bert-mask"
ONE = "hello [MASK], this is a tiny model"
TWO = "my [MASK] is clara and i [MASK] in berkeley"


async def unmasked(residency: Residency, *texts: str, **options: Any) -> list[Unmasked]:
    task = Unmasking()
    async with residency.lease(MODEL) as resident:
        prepared = await task.prepare(UnmaskingRequest(texts=texts, **options), resident, Caller(request_id="r"))
        async with open_jobs(residency._engine, prepared.jobs) as session:
            found = [event async for event in task.events(prepared, session)]
    return sorted(found, key=lambda one: one.index)


@pytest.mark.parametrize("options", [{}, {"guesses": 3}, {"targets": ("world", "dog", "world", "berkeleyish")}])
async def test_guesses_are_those_of_the_pipeline(residency: Residency, options: dict[str, Any]) -> None:
    folder = (await residency.load(MODEL)).folder
    model: Any = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    theirs: Any = pipeline("fill-mask", model=model, tokenizer=tokenizer, device="cpu")
    asked: dict[str, Any] = {}
    if "guesses" in options:
        asked["top_k"] = options["guesses"]
    if "targets" in options:
        asked["targets"] = list(options["targets"])
    found = await unmasked(residency, ONE, TWO, **options)
    for one, expected in ((found[0], [theirs(ONE, **asked)]), (found[1], theirs(TWO, **asked))):
        assert len(one.places) == len(expected)
        for guesses, others in zip(one.places, expected, strict=True):
            assert [(g.token_id, g.token, g.sequence) for g in guesses] == [
                (other["token"], other["token_str"], other["sequence"]) for other in others
            ]
            assert [g.score for g in guesses] == pytest.approx([other["score"] for other in others], abs=1e-5)
    assert (await unmasked(residency, ONE, **options))[0] == found[0]


async def test_a_target_that_is_no_token_is_told_with_what_stands_for_it(residency: Residency) -> None:
    async with residency.lease(MODEL) as resident:
        asked = UnmaskingRequest(texts=(ONE,), targets=("world", "berkeleyish"))
        prepared = await Unmasking().prepare(asked, resident, Caller(request_id="r"))
    assert [target for target, _ in prepared.replaced] == ["berkeleyish"]


async def test_a_text_without_a_mask_is_refused_also_when_a_cut_took_it(residency: Residency) -> None:
    with pytest.raises(InvalidRequest, match=r"input 1 has no mask token \(\[MASK\]\)"):
        await unmasked(residency, ONE, "hello world")
    with pytest.raises(InvalidRequest, match="what the model reads"):
        await unmasked(residency, "one " * 130 + "[MASK]", truncate=Truncate.RIGHT)
    assert (await unmasked(residency, "one " * 130 + "[MASK]", truncate=Truncate.LEFT))[0].is_truncated

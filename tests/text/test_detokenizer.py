"""Whatever the borders, the pieces are whole characters and their sum is the text."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from app.text.detokenizer import UNFINISHED, Detokenizer

CASES = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=["tiny-gpt2", "tiny-marian"])
def tokenizer(request: pytest.FixtureRequest, checkpoints: dict[str, Path]) -> Any:
    return AutoTokenizer.from_pretrained(checkpoints[request.param])


def streamed(tokenizer: Any, ids: list[int], chunk: int) -> tuple[list[str], str]:
    made = Detokenizer(lambda some: tokenizer.decode(list(some), skip_special_tokens=True))
    pieces = [made.push(ids[start : start + chunk]) for start in range(0, len(ids), chunk)]
    return pieces, made.finish()


@given(
    text=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters=UNFINISHED)),
    chunk=st.integers(1, 5),
)
@CASES
def test_the_pieces_are_whole_characters_and_sum_to_the_text(tokenizer: Any, text: str, chunk: int) -> None:
    ids = tokenizer(text + " hello world", add_special_tokens=False)["input_ids"]
    pieces, rest = streamed(tokenizer, ids, chunk)
    assert all(UNFINISHED not in piece for piece in pieces)
    assert "".join(pieces) + rest == tokenizer.decode(ids, skip_special_tokens=True)


def test_an_emoji_comes_whole_and_a_broken_one_at_the_end(tokenizer: Any) -> None:
    ids = tokenizer("a 🦊", add_special_tokens=False)["input_ids"]
    pieces, rest = streamed(tokenizer, ids, 1)
    assert "".join(pieces) + rest == tokenizer.decode(ids, skip_special_tokens=True)

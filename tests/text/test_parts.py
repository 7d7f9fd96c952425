"""Sentences, windows and cuts: nothing of a text is lost or doubled on the way."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ContextLengthExceeded
from app.text.sentences import join, split
from app.text.truncation import Truncate, cut
from app.text.windows import windows

PROSE = st.text(alphabet="aBé .!?\n\"'。(\t", max_size=60)


@given(PROSE)
def test_a_split_text_joins_to_itself(text: str) -> None:
    lead, found = split(text)
    assert join(lead, found) == text
    assert all(sentence.text.strip() == sentence.text != "" for sentence in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two? Three!", ["One.", "Two?", "Three!"]),
        ("Dr. Silva lives at No. 4. He is well.", ["Dr. Silva lives at No. 4.", "He is well."]),
        ("It costs 3.50 euros, e.g. here. Fine.", ["It costs 3.50 euros, e.g. here.", "Fine."]),
        ("a line\nanother\n\n- a point", ["a line", "another", "- a point"]),
        ('He said "Go." Then he left.', ['He said "Go."', "Then he left."]),
        ("¿Qué? ¡Nada! Éramos dois.", ["¿Qué?", "¡Nada!", "Éramos dois."]),
        ("J. R. Smith wrote it.", ["J. R. Smith wrote it."]),
        ("你好。再见。", ["你好。", "再见。"]),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, expected: list[str]) -> None:
    assert [sentence.text for sentence in split(text)[1]] == expected


@given(count=st.integers(1, 300), asked=st.integers(1, 12), positions=st.integers(40, 96))
def test_windows_cover_every_token_and_keep_the_question(count: int, asked: int, positions: int) -> None:
    question, context = tuple(range(1000, 1000 + asked)), tuple(range(count))
    found = windows(question, context, cls_id=-1, sep_id=-2, positions_max=positions)
    seen: set[int] = set()
    for window in found:
        assert len(window.ids) == len(window.type_ids) <= positions
        assert window.ids[: asked + 2] == (-1, *question, -2)
        part = window.ids[window.offset : window.offset + window.count]
        assert part == context[window.start : window.start + window.count]
        assert set(window.type_ids[: window.offset]) == {0}
        assert set(window.type_ids[window.offset :]) == {1}
        seen |= set(part)
    assert seen == set(context)
    for one, two in itertools.pairwise(found):
        assert two.start < one.start + one.count, "neighbours share text, so that no answer falls between them"


def test_a_question_without_room_for_a_context_is_refused_by_name() -> None:
    with pytest.raises(ContextLengthExceeded, match="fewer words") as refused:
        windows(tuple(range(30)), tuple(range(40)), cls_id=0, sep_id=0, positions_max=40)
    assert refused.value.field == "question"


@given(ids=st.lists(st.integers(0, 9), max_size=12), most=st.integers(1, 12))
def test_a_cut_keeps_the_asked_end(ids: list[int], most: int) -> None:
    assert cut(ids, most, Truncate.ERROR) == tuple(ids)
    assert cut(ids, most, Truncate.RIGHT) == tuple(ids)[:most]
    assert cut(ids, most, Truncate.LEFT) == tuple(ids)[-most:]

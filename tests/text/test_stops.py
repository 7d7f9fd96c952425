"""A stop string ends the text wherever the pieces break; without one, every character comes through."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.text.stops import StopStrings

TEXT = st.text(alphabet="abc\n", max_size=40)
STOPS = st.lists(st.text(alphabet="abc\n", min_size=1, max_size=4), max_size=4)


@given(text=TEXT, stops=STOPS, borders=st.lists(st.integers(0, 40), max_size=8))
def test_the_text_ends_before_the_stop_that_is_complete_first(text: str, stops: list[str], borders: list[int]) -> None:
    filtered = StopStrings(stops)
    places = sorted({0, len(text), *(min(border, len(text)) for border in borders)})
    shown = "".join(filtered.push(text[a:b]) for a, b in pairwise(places)) + filtered.finish()
    assert text.startswith(shown)
    if any(stop in text for stop in stops):
        assert filtered.found is not None
        assert text[len(shown) :].startswith(filtered.found)
        assert not any(stop in shown for stop in stops)
    else:
        assert filtered.found is None
        assert shown == text


def test_only_a_possible_beginning_is_held_back() -> None:
    filtered = StopStrings(["\n\n", "END"])
    assert filtered.push("one\n") == "one"
    assert filtered.push("two E") == "\ntwo "
    assert filtered.push("ND three") == ""
    assert filtered.found == "END"
    assert filtered.push("more") + filtered.finish() == ""

"""A slot's prompt is reused as far as it is the same, by its own tenant only, and never two rows have one slot."""

from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.schedule.slots import SlotPool, common

CASES = settings(max_examples=200, deadline=None)


def pool(slots: int = 3) -> SlotPool:
    return SlotPool(slots, shared_tokens_min=2)


def run(made: SlotPool, tenant: str, prompt: tuple[int, ...]) -> int:
    """A row that comes, reads its prompt and goes; how much of it was reused."""
    seat = made.take(1, tenant, prompt, reusable=len(prompt) - 1)
    made.note(seat.slots[0], len(prompt))
    made.give_back(seat.slots, keeps_prompt=True)
    return seat.reused


def test_a_finished_rows_prompt_is_taken_over_where_it_lies() -> None:
    made = pool()
    assert run(made, "a", (1, 2, 3, 4, 5)) == 0
    seat = made.take(1, "a", (1, 2, 3, 9, 9), reusable=4)
    assert (seat.reused, seat.source) == (3, None)


def test_of_a_running_row_what_it_has_read_is_copied() -> None:
    made = pool()
    first = made.take(1, "a", (1, 2, 3, 4, 5), reusable=4)
    assert made.take(1, "a", (1, 2, 3, 4, 5), reusable=4).reused == 0, "nothing is read yet"
    made.note(first.slots[0], 3)
    seat = made.take(1, "a", (1, 2, 3, 4, 5), reusable=4)
    assert (seat.reused, seat.source) == (3, first.slots[0])


def test_the_last_token_is_always_read_again_and_short_likenesses_are_left() -> None:
    made = pool()
    run(made, "a", (1, 2, 3))
    assert run(made, "a", (1, 2, 3)) == 2
    assert run(made, "a", (1, 7, 8, 9)) == 0


def test_another_tenants_prompt_is_never_reused() -> None:
    made = pool()
    run(made, "a", (1, 2, 3, 4))
    assert run(made, "b", (1, 2, 3, 4)) == 0
    assert run(made, "a", (1, 2, 3, 4)) == 3


def test_the_slot_that_was_given_back_first_is_taken_first() -> None:
    made = pool()
    for start in (10, 20, 30):
        run(made, "a", (start, 2, 3, 4))
    assert run(made, "a", (40, 2, 3, 4)) == 0
    assert run(made, "a", (20, 2, 3, 4)) == 3
    assert run(made, "a", (10, 2, 3, 4)) == 0, "its slot went to the fourth"


def test_nothing_is_reused_when_it_is_off_or_the_row_failed() -> None:
    off = SlotPool(2, shared_tokens_min=0)
    assert [run(off, "a", (1, 2, 3, 4)) for _ in range(2)] == [0, 0]
    made = pool()
    seat = made.take(1, "a", (1, 2, 3, 4), reusable=3)
    made.note(seat.slots[0], 4)
    made.give_back(seat.slots, keeps_prompt=False)
    assert run(made, "a", (1, 2, 3, 4)) == 0


TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple)


@given(events=st.lists(st.tuples(st.sampled_from("ab"), TOKENS, st.integers(1, 3), st.booleans()), max_size=40))
@CASES
def test_what_is_reused_is_what_the_slot_holds(
    events: list[tuple[str, tuple[int, ...], int, bool]],
) -> None:
    made = pool(5)
    cache: dict[int, tuple[str, tuple[int, ...]]] = {}
    running: list[tuple[int, ...]] = []
    for tenant, prompt, count, ends in events:
        while made.free_count < count or (ends and running):
            made.give_back(running.pop(0), keeps_prompt=True)
        seat = made.take(count, tenant, prompt, reusable=len(prompt) - 1)
        taken = [slot for slots in running for slot in slots]
        assert not set(seat.slots) & set(taken)
        assert len(set(seat.slots)) == count
        if seat.reused:
            owner, held = cache[seat.slots[0] if seat.source is None else seat.source]
            assert owner == tenant
            assert held[: seat.reused] == prompt[: seat.reused]
            assert seat.reused < len(prompt)
        for slot in seat.slots:
            cache.pop(slot, None)
        cache[seat.slots[0]] = tenant, prompt
        made.note(seat.slots[0], len(prompt))
        running.append(seat.slots)
        assert made.free_count == 5 - sum(map(len, running))


@given(one=TOKENS, other=TOKENS)
@CASES
def test_the_common_start_is_the_longest(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    length = common(one, other)
    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]

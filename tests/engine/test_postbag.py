"""When events leave the engine's process: at once after a pause, else a few milliseconds apart; whole rows' later."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.events import Event, FinishedEvent, FinishReason, JobUsage, PromptEvent, TokenEvent
from app.engine.jobs import DecodeJob
from app.engine.transports.postbag import TELL_S, WHOLE_S, Postbag


def token(job: str, *ids: int) -> TokenEvent:
    return TokenEvent(job_id=job, ids=ids)


def end(job: str) -> FinishedEvent:
    return FinishedEvent(job_id=job, reason=FinishReason.LENGTH, usage=JobUsage())


def postbag(*whole: str, tokens_max: int = 128) -> Postbag:
    made = Postbag(tokens_max=tokens_max)
    for job in whole:
        made.expect(DecodeJob(id=job, model="m", ids=(1,), max_new_tokens=9, is_whole=True))
    made.expect(DecodeJob(id="stream", model="m", ids=(1,), max_new_tokens=9))
    return made


def test_after_a_pause_a_token_leaves_at_once_and_the_next_ones_leave_together() -> None:
    made = postbag()
    assert made.put([token("stream", 1)], 10.0) == 10.0
    assert made.take(10.0) == ([token("stream", 1)], None)
    assert made.put([token("stream", 2)], 10.0005) == 10.0 + TELL_S
    assert made.put([token("stream", 3)], 10.0010) is None, "it was said when to take"
    assert made.take(10.002) == ([token("stream", 2, 3)], None)
    assert made.put([token("stream", 4)], 10.1) == 10.1


def test_of_a_whole_row_the_beginning_leaves_at_once_and_its_end_takes_the_rest_along() -> None:
    made = postbag("whole")
    assert made.put([token("whole", 1)], 5.0) == 5.0
    assert made.take(5.0) == ([token("whole", 1)], None)
    assert made.put([token("whole", 2)], 5.01) == 5.01 + WHOLE_S
    assert made.put([token("whole", 3)], 5.02) is None
    assert made.put([token("whole", 4), end("whole")], 5.03) == 5.03
    assert made.take(5.03) == ([token("whole", 2, 3, 4), end("whole")], None)


def test_tokens_of_a_whole_row_wait_no_longer_than_they_may_and_streams_do_not_take_them_along() -> None:
    made = postbag("whole")
    made.put([token("whole", 1)], 5.0)
    made.take(5.0)
    made.put([token("whole", 2)], 5.01)
    assert made.put([token("stream", 7)], 5.02) == 5.02
    assert made.take(5.02) == ([token("stream", 7)], 5.01 + WHOLE_S)
    assert made.take(5.01 + WHOLE_S) == ([token("whole", 2)], None)


@pytest.mark.parametrize(("tokens_max", "left_s"), [(2, 5.02), (0, 5.01)])
def test_no_more_is_held_than_the_reader_may_be_behind(tokens_max: int, left_s: float) -> None:
    made = postbag("whole", tokens_max=tokens_max)
    made.put([token("whole", 1)], 5.0)
    made.take(5.0)
    due = [made.put([token("whole", number)], 5.0 + number / 100) for number in (1, 2)]
    assert left_s in due


def test_what_is_held_is_counted_in_tokens_however_many_come_at_a_time() -> None:
    made = postbag("whole", tokens_max=4)
    made.put([token("whole", 1)], 5.0)
    made.take(5.0)
    assert made.put([token("whole", 2, 3, 4)], 5.01) == 5.01 + WHOLE_S
    assert made.put([token("whole", 5, 6)], 5.02) == 5.02
    assert made.take(5.02) == ([token("whole", 2, 3, 4, 5, 6)], None)


STEPS = st.lists(
    st.tuples(st.floats(0, 0.06), st.lists(st.sampled_from(["a", "b", "stream"]), max_size=4), st.booleans()),
    max_size=30,
)


@given(steps=STEPS, tokens_max=st.integers(0, 5))
def test_whatever_comes_leaves_once_in_each_jobs_order_and_in_time(
    steps: list[tuple[float, list[str], bool]], tokens_max: int
) -> None:
    made, now_s, due_s, number = postbag("a", "b", tokens_max=tokens_max), 0.0, None, 0
    put: list[tuple[float, Event]] = []
    told: list[Event] = []
    for pause_s, jobs, is_prompt in steps:
        while due_s is not None and due_s <= now_s + pause_s:
            found, again_s = made.take(due_s)
            told += found
            due_s = again_s
        now_s += pause_s
        events: list[Event] = []
        for job in jobs:
            number += 1
            events.append(
                PromptEvent(job_id=job, logprobs=(float(number),), top=()) if is_prompt else token(job, number)
            )
        put += [(now_s, event) for event in events]
        sooner_s = made.put(events, now_s)
        due_s = due_s if sooner_s is None else sooner_s
        assert sooner_s is None or sooner_s <= now_s + WHOLE_S
    now_s += WHOLE_S
    told += made.take(now_s)[0]
    for job in ("a", "b", "stream"):
        assert said(told, job) == said([event for _, event in put], job)


def said(events: list[Event], job: str) -> list[float]:
    """The numbers that a job's events bear, in their order."""
    found: list[float] = []
    for event in events:
        if event.job_id == job:
            assert isinstance(event, TokenEvent | PromptEvent)
            found += event.ids if isinstance(event, TokenEvent) else event.logprobs
    return found

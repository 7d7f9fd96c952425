"""The plan never passes its budget, never starves a row, and always makes progress."""

from hypothesis import given
from hypothesis import strategies as st

from app.engine.jobs import DecodeJob
from app.engine.schedule.plan import pack_by_length, plan_step
from app.engine.schedule.row import Phase, Row


def row(length: int, *, is_decoding: bool) -> Row:
    prompt = tuple(range(length))
    made = Row(job=DecodeJob(id="x", model="m", ids=prompt, max_new_tokens=8), prompt=prompt, slots=(0,))
    made.phase = Phase.DECODING if is_decoding else Phase.PREFILLING
    if is_decoding:
        made.produced, made.fed = [1], length
    return made


ROWS = st.lists(st.builds(row, st.integers(1, 900), is_decoding=st.booleans()), max_size=40)


@given(rows=ROWS, step_tokens=st.integers(1, 1024))
def test_decoding_rows_all_run_and_prompts_share_what_is_left(rows: list[Row], step_tokens: int) -> None:
    plan = plan_step(rows, step_tokens=step_tokens)
    decoding = [r for r in rows if r.phase is Phase.DECODING]
    assert [step.row for step in plan][: len(decoding)] == decoding
    assert sum(step.count for step in plan) <= max(step_tokens, len(decoding), 1)
    assert bool(plan) == bool(rows)
    assert all(1 <= step.count <= step.row.unfed for step in plan)


@given(prompt=st.integers(1, 900), others=st.integers(0, 30), step_tokens=st.integers(32, 128))
def test_a_long_prompt_ends_after_as_many_steps_as_its_share_needs(prompt: int, others: int, step_tokens: int) -> None:
    long = row(prompt, is_decoding=False)
    rows = [long, *(row(3, is_decoding=True) for _ in range(others))]
    steps = 0
    while long.unfed:
        (step,) = (s for s in plan_step(rows, step_tokens=step_tokens) if s.row is long)
        long.fed += step.count
        steps += 1
    assert steps == -(-prompt // (step_tokens - others))


@given(lengths=st.lists(st.integers(1, 600), max_size=60), tokens_max=st.integers(16, 1024))
def test_packing_holds_every_row_once_and_only_a_lone_row_may_pass_the_bound(
    lengths: list[int], tokens_max: int
) -> None:
    batches = pack_by_length(lengths, tokens_max=tokens_max)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[index] for index in batch) <= tokens_max

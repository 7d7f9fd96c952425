"""Which tokens of which rows the next step feeds: a pure function of the rows and the budget."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.engine.schedule.row import Phase, Row


@dataclass(frozen=True, slots=True)
class RowStep:
    """Feed `count` more tokens of `row`."""

    row: Row
    count: int

    @property
    def completes(self) -> bool:
        """Whether a new token can be drawn after this step."""
        return self.count == self.row.unfed


StepPlan = tuple[RowStep, ...]


def plan_step(rows: Sequence[Row], *, step_tokens: int) -> StepPlan:
    """Every decoding row its one token, then prompts in order of arrival, in chunks, up to `step_tokens` in all.

    Decoding rows come first and always fit (a beam row feeds one token a beam), so a long prompt delays a running
    stream by no more than one budgeted step; and when rows wait for their prompt, at least one token of it is fed.
    """
    steps = [RowStep(row, 1) for row in rows if row.phase is Phase.DECODING]
    left = step_tokens - sum(len(step.row.slots) for step in steps)
    for row in rows:
        if row.phase is not Phase.PREFILLING:
            continue
        count = min(row.unfed, left)
        if count <= 0:
            if steps:
                break
            count = 1
        steps.append(RowStep(row, count))
        left -= count
    return tuple(steps)


def pack_by_length(lengths: Sequence[int], *, tokens_max: int) -> list[list[int]]:
    """Group indices of encoder rows into batches of at most `tokens_max` tokens, equal lengths side by side.

    A row longer than `tokens_max` is a batch by itself: a limit never makes a row impossible.
    """
    batches: list[list[int]] = []
    held = tokens_max
    for index in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if not batches or held + lengths[index] > tokens_max:
            batches.append([])
            held = 0
        batches[-1].append(index)
        held += lengths[index]
    return batches

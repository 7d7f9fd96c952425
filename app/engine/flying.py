"""What a step feeds of each row, and which rows a device can go on with by itself."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.engine.compute.beams import Beams
from app.engine.compute.decode import Feed
from app.engine.compute.sampling import Sampler
from app.engine.schedule.plan import RowStep, StepPlan
from app.engine.schedule.row import Phase, Row

Choosers = Mapping[str, Sampler | Beams]
"""By job."""


@dataclass(frozen=True, slots=True)
class Party:
    """The rows of a plan that fly."""

    rows: list[Row]
    """Those that decode, then those that join: their prompts are read first, and their first tokens fly on."""
    samplers: list[Sampler]
    joining: list[RowStep]
    steps: int
    """For which at least one of them has tokens to come."""

    @property
    def feeds(self) -> list[Feed]:
        """What each feeds first; of those that join only the device knows the token."""
        running = self.rows[: len(self.rows) - len(self.joining)]
        feeds = [Feed(row.slots[0], row.fed, (row.produced[-1],)) for row in running]
        return feeds + [Feed(step.row.slots[0], len(step.row.prompt), (0,)) for step in self.joining]


def party_of(plan: StepPlan, choosers: Choosers) -> Party | None:
    """Who flies; nobody where a row that decodes needs a look at each of its tokens."""
    running = [step.row for step in plan if step.row.phase is Phase.DECODING]
    joining = [step for step in plan if step.row.phase is Phase.PREFILLING and _joins(step, choosers)]
    rows = running + [step.row for step in joining]
    found = [choosers[row.job.id] for row in rows]
    samplers = [one for one in found if isinstance(one, Sampler) and one.is_blind]
    steps = max([*(row.left for row in running), *(step.row.left - 1 for step in joining)], default=0)
    if len(samplers) < len(rows) or steps < (1 if joining else 2):
        return None
    return Party(rows, samplers, joining, steps)


def _joins(step: RowStep, choosers: Choosers) -> bool:
    job, chooser = step.row.job, choosers[step.row.job.id]
    is_blind = isinstance(chooser, Sampler) and chooser.is_blind and job.prompt_logprobs is None
    return is_blind and step.completes and job.max_new_tokens > 1


def feeds_of(row: Row, count: int, choosers: Choosers) -> list[Feed]:
    """What a planned step feeds: the next `count` tokens of the row, or the last token of each of its beams."""
    chooser = choosers[row.job.id]
    if isinstance(chooser, Beams) and row.phase is Phase.DECODING:
        return [Feed(s, row.fed, (tokens[-1],)) for s, tokens in zip(row.slots, chooser.sequences, strict=True)]
    if row.fed < len(row.prompt):
        ids = (*row.prompt[row.fed : row.fed + count], *row.produced[: max(0, row.fed + count - len(row.prompt))])
    else:
        ids = tuple(row.produced[row.fed - len(row.prompt) : row.fed - len(row.prompt) + count])
    is_prompt = row.phase is not Phase.DECODING
    is_scored = is_prompt and row.job.prompt_logprobs is not None
    return [Feed(row.slots[0], row.fed, ids, is_prompt=is_prompt, is_scored=is_scored)]

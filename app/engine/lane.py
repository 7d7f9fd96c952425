"""A loaded model with the jobs that run or wait on it. Owned by the loop."""

from dataclasses import dataclass, field

from app.engine.client import LaneStats
from app.engine.compute.beams import Beams
from app.engine.compute.decode import Decoder
from app.engine.compute.models import Resident
from app.engine.compute.sampling import Sampler
from app.engine.schedule.row import Row
from app.engine.schedule.waiting import Waiting
from app.engine.tally import Tally


@dataclass(slots=True, kw_only=True)
class Lane:
    """See the module."""

    resident: Resident
    waiting: Waiting
    rows: list[Row] = field(default_factory=list[Row])
    choosers: dict[str, Sampler | Beams] = field(default_factory=dict[str, Sampler | Beams])
    tally: Tally = field(default_factory=Tally)

    @property
    def stats(self) -> LaneStats:
        """A snapshot; may be taken on another thread than the loop's."""
        model = self.resident.model
        return LaneStats(
            model=self.resident.loaded.id, running=len(self.rows), waiting=len(self.waiting),
            kv_usage=1 - len(model.slots_free) / model.slots if isinstance(model, Decoder) else 0.0,
            step_seconds=self.tally.seconds.snapshot, step_rows=self.tally.rows.snapshot,
            step_tokens=self.tally.tokens.snapshot,
        )  # fmt: skip

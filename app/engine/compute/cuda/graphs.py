"""Decode steps of fixed sizes, each captured once as a CUDA graph: a step is one launch instead of some hundreds.

A step of n rows runs in the smallest size that holds it; the rows that are too many write to a slot that nobody has.
Ids, slots and positions go to the device in one pinned copy. A step leaves the input of the next one behind, each row's
best token and position, so that several can be started at once (flights).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from app.engine.compute.cache import Layout, SingleTokens, StepTokens
from app.engine.compute.choice import Scores, best_tokens
from app.engine.compute.cuda import HAS_KERNELS
from app.engine.compute.cuda.flights import NOTHING, Flight, Picks, Ring
from app.engine.compute.plain import sent
from app.engine.compute.sampling import Sampler

if TYPE_CHECKING or HAS_KERNELS:
    from app.engine.compute.cuda import draws

SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
"""Rows of the captured steps, as far as there are slots; and one that holds all slots."""
WARM_UPS = 2
"""Runs before a capture: libraries choose and allocate in the first ones."""
LINES = 5
"""Of a step's input: ids, slots, positions, and for a decoder with sources their slots and last positions."""

Run = Callable[[torch.Tensor, StepTokens, StepTokens], torch.Tensor]
"""Ids (rows,), their places and their sources' → hidden states (rows, width)."""
Single = Callable[[], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""A whole step of one row, which leaves the next one's input behind → hidden states, scores and best token of it."""
Place = tuple[int, int, int, int, int]
"""Of a row: id, slot, position, slot of its source, last position of its source."""


def sizes_for(slots: int) -> list[int]:
    """The sizes that are captured for a decoder of so many slots."""
    return [*(size for size in SIZES if size < slots), slots]


class StepInputs:
    """The input of a step of up to `rows` rows, in memory that stays where it is."""

    def __init__(self, rows: int, spare_slot: int, position_max: int, device: torch.device) -> None:
        self._host = torch.zeros(LINES, rows, dtype=torch.long, pin_memory=device.type == "cuda")
        self._array = self._host.numpy()
        self._spare = [[0], [spare_slot], [0], [spare_slot], [0]]
        self._position_max = position_max
        self.held = torch.zeros_like(self._host, device=device)

    def write(self, places: Sequence[Place], size: int) -> None:
        """Send the rows' `places`, filled up to `size` rows with ones that hurt nobody."""
        self._array[:, : len(places)] = list(zip(*places, strict=True))
        self._array[:, len(places) : size] = self._spare
        self.held.copy_(self._host, non_blocking=True)

    def views(self, size: int) -> tuple[torch.Tensor, StepTokens, StepTokens]:
        """Ids, places and sources of the first `size` rows, which every later write changes."""
        ids, slots, positions, source_slots, source_ends = (line[:size] for line in self.held)
        return ids, SingleTokens(slots, positions), SingleTokens(source_slots, source_ends)

    def advance(self, scores: torch.Tensor) -> torch.Tensor:
        """The best tokens (rows,) of scores (rows, vocabulary), which become the input of these rows, a position on."""
        ids, _, positions, *_ = (line[: len(scores)] for line in self.held)
        if HAS_KERNELS:
            return draws.best_tokens(scores.contiguous(), ids, positions, self._position_max)
        best = best_tokens(scores)
        self.feed(best)
        positions.add_(1).clamp_(max=self._position_max)
        return best

    def feed(self, ids: torch.Tensor, place: int = 0) -> None:
        """Let the rows from `place` on feed these ids instead, (rows,); 0 for a row that failed."""
        torch.clamp(ids, min=0, out=self.held[0, place : place + len(ids)])


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: "torch.cuda.CUDAGraph | Rerun"
    views: tuple[torch.Tensor, StepTokens, StepTokens]
    """What the graph reads must live as long as it does."""
    hidden: torch.Tensor
    scores: torch.Tensor
    best: torch.Tensor

    def run(self, rows: int) -> tuple[torch.Tensor, Scores]:
        self.graph.replay()
        return self.hidden[:rows], Scores(self.scores[:rows], self.best[:rows])


class StepGraphs:
    """The captured steps of one decoder. Their results hold until the next step."""

    def __init__(
        self, run: Run, logits: Callable[[torch.Tensor], torch.Tensor], *, slots: int, positions: int,
        device: torch.device, single: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Single] | None = None,
    ) -> None:  # fmt: skip
        """`single` makes the step of one row, of its id, slot and position (1,), where that is more than a `run`."""
        self._run = run
        self._logits = logits
        self._device = device
        self._inputs = StepInputs(slots, slots, positions - 1, device)
        self._ring = Ring(slots, device)
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._single = single(*(line[:1] for line in self._inputs.held[:3])) if single else None
        self._captured: dict[int, _Captured] = {}
        for size in reversed(sizes_for(slots)):
            self._captured[size] = self._capture(size)
        self._sizes = sorted(self._captured)

    def step(self, places: Sequence[Place]) -> tuple[torch.Tensor, Scores]:
        """Start a step → the rows' hidden states (rows, width) and scores."""
        return self._written(places).run(len(places))

    def fly(
        self, places: Sequence[Place], samplers: Sequence[Sampler], banned: Sequence[int], steps: int,
        first: Scores | None,
    ) -> Flight:  # fmt: skip
        """Start a flight; see Decoder.fly. No other step meanwhile."""
        told: torch.Tensor | None = None
        running = len(places) - (0 if first is None else len(first.values))
        if first is not None:
            ids = Picks(samplers[running:], banned, self._device).first(first)
            told = torch.cat([torch.full((running,), NOTHING, device=self._device), ids])
        found = self._written(places)
        if told is not None:
            self._inputs.feed(told[running:], running)
        picks = Picks(samplers, banned, self._device)
        return Flight(lambda: found.run(len(places))[1], self._inputs.feed, picks, self._ring, steps, told)

    def _written(self, places: Sequence[Place]) -> _Captured:
        size = next(size for size in self._sizes if size >= len(places))
        self._inputs.write(places, size)
        return self._captured[size]

    def _capture(self, size: int) -> _Captured:
        self._inputs.write([], size)
        views = self._inputs.views(size)

        def run() -> tuple[torch.Tensor, ...]:
            hidden = self._run(*views)
            scores = self._logits(hidden)
            return hidden, scores, self._inputs.advance(scores)

        whole = self._single if size == 1 and self._single else run
        graph, (hidden, scores, best) = captured(whole, self._pool, self._device)
        return _Captured(graph, views, hidden, scores, best)


class Rerun:
    """In place of a graph on a device that captures none: runs it again, into what it gave the first time."""

    def __init__(self, run: Callable[[], tuple[torch.Tensor, ...]], found: tuple[torch.Tensor, ...]) -> None:
        self._run = run
        self._found = found

    def replay(self) -> None:
        """See torch.cuda.CUDAGraph."""
        for held, new in zip(self._found, self._run(), strict=True):
            held.copy_(new)


Trunk = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Layout], torch.Tensor]
"""Packed ids, segment ids and positions (tokens,), and where rows end → (tokens, width)."""
TOKENS = (64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
"""Sizes of captured passes."""
PASSES_MAX = 64
"""Captured at most; other batches run as they are."""


@dataclass(frozen=True, slots=True)
class _Pass:
    graph: torch.cuda.CUDAGraph | Rerun
    ids: torch.Tensor
    types: torch.Tensor
    places: torch.Tensor
    layout: Layout
    out: torch.Tensor


class TrunkGraphs:
    """Captured passes of an encoder, by number of tokens, of rows and of the longest row's tokens, each rounded up.

    A size is captured when it comes for the second time. A pass's result holds until the next one.
    """

    def __init__(self, trunk: Trunk, device: torch.device) -> None:
        self._trunk = trunk
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._passes: dict[tuple[int, int, int], _Pass | None] = {}

    def run(self, ids: torch.Tensor, types: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor | None:
        """The encoder's outputs (tokens, width); None where no captured pass fits."""
        tokens = len(ids)
        if tokens > TOKENS[-1]:
            return None
        rows, longest = 1 << (len(lengths) - 1).bit_length(), max(32, 1 << (max(lengths) - 1).bit_length())
        key = next(size for size in TOKENS if size >= tokens), rows, longest
        if key not in self._passes:
            if len(self._passes) < PASSES_MAX:
                self._passes[key] = None
            return None
        found = self._passes[key] or self._capture(*key)
        self._passes[key] = found
        found.ids[:tokens].copy_(ids)
        found.types[:tokens].copy_(types)
        bounds = np.full(rows + 1, tokens, np.int32)
        bounds[: len(lengths)] = np.cumsum(lengths) - np.array(lengths)
        found.layout.queries.copy_(sent(bounds, self._device))
        found.graph.replay()
        return found.out[:tokens]

    def _capture(self, tokens: int, rows: int, longest: int) -> _Pass:
        ids, types, places = (torch.zeros(tokens, dtype=torch.long, device=self._device) for _ in range(3))
        torch.arange(tokens, out=places)
        bounds = torch.zeros(rows + 1, dtype=torch.int32, device=self._device)
        layout = Layout(bounds, bounds, longest, longest)

        def run() -> tuple[torch.Tensor]:
            row = torch.searchsorted(bounds, places, right=True) - 1
            positions = torch.where(places < bounds[-1], places - bounds[row], 0)
            return (self._trunk(ids, types, positions, layout),)

        graph, (out,) = captured(run, self._pool, self._device)
        return _Pass(graph, ids, types, places, layout, out)


def captured(
    run: Callable[[], tuple[torch.Tensor, ...]], pool: Any, device: torch.device
) -> tuple[torch.cuda.CUDAGraph | Rerun, tuple[torch.Tensor, ...]]:
    """A graph of `run` and what it returns, whose memory each replay fills. What `run` reads must outlive the graph."""
    if device.type != "cuda":
        found = run()
        return Rerun(run, found), found
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        found = run()
    return graph, found

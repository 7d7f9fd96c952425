"""Decode steps of fixed sizes, each captured once as a CUDA graph: a step is one launch instead of some hundreds.

A step of n rows runs in the smallest size that holds it; the rows that are too many write to a slot that nobody has.
Ids, slots and positions go to the device in one pinned copy, and the best token of each row comes back in another.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch

from app.engine.compute.cache import SingleTokens, StepTokens
from app.engine.compute.choice import Scores, best_tokens
from app.engine.compute.cuda.attention import Layout
from app.engine.compute.plain import sent

SIZES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768)
"""Rows of the captured steps, as far as there are slots; and one that holds all slots."""
WARM_UPS = 2
"""Runs before a capture: libraries choose and allocate in the first ones."""
LINES = 5
"""Of a step's input: ids, slots, positions, and for a decoder with sources their slots and last positions."""

Run = Callable[[torch.Tensor, StepTokens, StepTokens], torch.Tensor]
"""Ids (rows,), their places and their sources' → hidden states (rows, width)."""
Place = tuple[int, int, int, int, int]
"""Of a row: id, slot, position, slot of its source, last position of its source."""


def sizes_for(slots: int) -> list[int]:
    """The sizes that are captured for a decoder of so many slots."""
    return [*(size for size in SIZES if size < slots), slots]


class StepInputs:
    """The input of a step of up to `rows` rows, in memory that stays where it is."""

    def __init__(self, rows: int, spare_slot: int, device: torch.device) -> None:
        self._host = torch.zeros(LINES, rows, dtype=torch.long, pin_memory=device.type == "cuda")
        self._array = self._host.numpy()
        self._spare = [[0], [spare_slot], [0], [spare_slot], [0]]
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


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    views: tuple[torch.Tensor, StepTokens, StepTokens]
    """What the graph reads must live as long as it does."""
    hidden: torch.Tensor
    scores: torch.Tensor
    best: torch.Tensor


class StepGraphs:
    """The captured steps of one decoder. Their results hold until the next step."""

    def __init__(
        self, run: Run, logits: Callable[[torch.Tensor], torch.Tensor], *, slots: int, device: torch.device
    ) -> None:
        self._run = run
        self._logits = logits
        self._inputs = StepInputs(slots, slots, device)
        self._pool = torch.cuda.graph_pool_handle()
        self._captured: dict[int, _Captured] = {}
        for size in reversed(sizes_for(slots)):
            self._captured[size] = self._capture(size)
        self._sizes = sorted(self._captured)

    def step(self, places: Sequence[Place]) -> tuple[torch.Tensor, Scores]:
        """Start a step → the rows' hidden states (rows, width) and scores."""
        size, rows = next(size for size in self._sizes if size >= len(places)), len(places)
        self._inputs.write(places, size)
        found = self._captured[size]
        found.graph.replay()
        return found.hidden[:rows], Scores(found.scores[:rows], found.best[:rows])

    def _capture(self, size: int) -> _Captured:
        self._inputs.write([], size)
        views = self._inputs.views(size)
        best = torch.zeros(size, dtype=torch.long, pin_memory=True)

        def run() -> tuple[torch.Tensor, torch.Tensor]:
            hidden = self._run(*views)
            scores = self._logits(hidden)
            best.copy_(best_tokens(scores), non_blocking=True)
            return hidden, scores

        graph, (hidden, scores) = captured(run, self._pool)
        return _Captured(graph, views, hidden, scores, best)


Result = TypeVar("Result")
Trunk = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Layout], torch.Tensor]
"""Packed ids, segment ids and positions (tokens,), and where rows end → (tokens, width)."""
TOKENS = (64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
"""Sizes of captured passes."""
PASSES_MAX = 64
"""Captured at most; other batches run as they are."""


@dataclass(frozen=True, slots=True)
class _Pass:
    graph: torch.cuda.CUDAGraph
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

        def run() -> torch.Tensor:
            row = torch.searchsorted(bounds, places, right=True) - 1
            positions = torch.where(places < bounds[-1], places - bounds[row], 0)
            return self._trunk(ids, types, positions, layout)

        graph, out = captured(run, self._pool)
        return _Pass(graph, ids, types, places, layout, out)


def captured(run: Callable[[], Result], pool: Any) -> tuple[torch.cuda.CUDAGraph, Result]:
    """A graph of `run` and what it returns, whose memory each replay fills. What `run` reads must outlive the graph."""
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

"""Prompts read in passes of fixed sizes, each captured once as a CUDA graph: reading one costs the host one launch.

Prompts lie packed; what a size has too much goes to a slot that nobody has. Sizes with room for keys read prompts of
which a part is in the cache already.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import torch

from app.engine.compute.cache import Array, Layout, PromptTokens, Span
from app.engine.compute.choice import Scores, best_tokens
from app.engine.compute.cuda.graphs import captured

TOKENS = (16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
SIZES = (*((tokens, 0) for tokens in TOKENS), (32, 1024), (128, 2048), (1024, 8192))
"""Tokens to read, and keys that these and those before them have; 0 where there are none before."""
ROWS_MAX = 64
"""Prompts of a pass."""

Run = Callable[[torch.Tensor, PromptTokens], torch.Tensor]
"""Ids (tokens,) and their places → hidden states (tokens, width)."""


class PromptInputs:
    """The input of a pass of up to `tokens` tokens of up to `rows` prompts, in memory that stays where it is."""

    def __init__(
        self, *, tokens: int, keys: int, rows: int, spare_slot: int, positions: int, device: torch.device
    ) -> None:
        is_cuda = device.type == "cuda"
        sizes = [tokens, tokens, tokens, rows, keys, keys]
        self._host = torch.zeros(sum(sizes), dtype=torch.long, pin_memory=is_cuda)
        self._host_bounds = torch.zeros(2, rows + 1, dtype=torch.int32, pin_memory=is_cuda)
        self._held = torch.zeros_like(self._host, device=device)
        self._bounds = torch.zeros_like(self._host_bounds, device=device)
        self._copied = torch.cuda.Event() if is_cuda else None
        self._spare = spare_slot
        self._parts = [part.numpy() for part in parts_of(self._host, sizes)]
        self.ids, slots, places, self.last, key_slots, key_places = parts_of(self._held, sizes)
        layout = Layout(
            self._bounds[0], self._bounds[1], min(tokens, positions), positions if keys else min(tokens, positions),
            (key_slots, key_places) if keys else None,
        )  # fmt: skip
        self.tokens = PromptTokens(slots, places, layout)

    def write(self, spans: Sequence[Span], ids: Sequence[Sequence[int]]) -> None:
        """Send the prompts' tokens and where they belong."""
        if self._copied is not None:
            self._copied.synchronize()  # what was written last may still be on its way
        counts = np.array([span.count for span in spans], np.int64)
        starts = np.array([span.start for span in spans], np.int64)
        slots = np.array([span.slot for span in spans], np.int64)
        of_ids, of_slots, of_places, of_last, of_key_slots, of_key_places = self._parts
        total = int(counts.sum())
        of_ids[:total] = np.fromiter(chain.from_iterable(ids), np.int64, total)
        of_slots[:total] = np.repeat(slots, counts)
        of_places[:total] = counted(starts, counts)
        of_ids[total:], of_slots[total:], of_places[total:] = 0, self._spare, 0
        of_last[: len(spans)] = np.cumsum(counts) - 1
        of_last[len(spans) :] = 0
        ends = starts + counts
        if len(of_key_slots):
            held = int(ends.sum())
            of_key_slots[:held] = np.repeat(slots, ends)
            of_key_places[:held] = counted(np.zeros_like(ends), ends)
            of_key_slots[held:], of_key_places[held:] = self._spare, 0
        bounds = self._host_bounds.numpy()
        for line, sizes in zip(bounds, (counts, ends), strict=True):
            line[1 : len(spans) + 1] = np.cumsum(sizes)
            line[len(spans) + 1 :] = line[len(spans)]
        self._held.copy_(self._host, non_blocking=True)
        self._bounds.copy_(self._host_bounds, non_blocking=True)
        if self._copied is not None:
            self._copied.record()
        self.tokens.prompts = list(zip((np.cumsum(counts) - counts).tolist(), spans, strict=True))


def parts_of(whole: torch.Tensor, sizes: Sequence[int]) -> list[torch.Tensor]:
    """Views of `whole` (sum of sizes,), one after the other."""
    found: list[torch.Tensor] = []
    for end, size in zip(accumulate(sizes), sizes, strict=True):
        found.append(whole[end - size : end])
    return found


def counted(starts: Array, counts: Array) -> Array:
    """For each row its start, the number after that, … `counts` of them, one row after the other."""
    firsts: Array = np.cumsum(counts) - counts
    order: Array = np.arange(int(counts.sum()))
    return order - np.repeat(firsts - starts, counts)


class PromptGraphs:
    """The captured passes of one decoder. A pass's results hold until the next one."""

    def __init__(
        self, run: Run, logits: Callable[[torch.Tensor], torch.Tensor], *, slots: int, positions: int,
        vocabulary: int, device: torch.device,
    ) -> None:  # fmt: skip
        self._run = run
        self._logits = logits
        self._rows = min(slots, ROWS_MAX)
        self._device = device
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._scores = torch.zeros(self._rows, vocabulary, device=device)
        self._best = torch.zeros(self._rows, dtype=torch.long, device=device)
        self._inputs = {
            size: PromptInputs(
                tokens=size[0], keys=size[1], rows=self._rows, spare_slot=slots, positions=positions, device=device
            )
            for size in SIZES
        }
        self._captured = {size: self._capture(size) for size in reversed(SIZES)}

    def read(self, spans: Sequence[Span], ids: Sequence[Sequence[int]]) -> tuple[torch.Tensor, Scores] | None:
        """Start to read prompts → hidden states (tokens, width) and the rows' scores; None where no size fits."""
        total, keys = sum(span.count for span in spans), 0
        if any(span.start for span in spans):
            keys = sum(span.start + span.count for span in spans)
        fitting = (size for size in SIZES if size[0] >= total and size[1] >= keys and bool(size[1]) == bool(keys))
        size = next(fitting, None)
        if size is None or len(spans) > self._rows:
            return None
        self._inputs[size].write(spans, ids)
        graph, hidden = self._captured[size]
        graph.replay()
        return hidden[:total], Scores(self._scores[: len(spans)], self._best[: len(spans)])

    def _capture(self, size: tuple[int, int]) -> tuple[Any, torch.Tensor]:
        inputs = self._inputs[size]
        inputs.write([], [])

        def run() -> tuple[torch.Tensor]:
            hidden = self._run(inputs.ids, inputs.tokens)
            self._scores.copy_(self._logits(hidden[inputs.last]))
            self._best.copy_(best_tokens(self._scores))
            return (hidden,)

        graph, (hidden,) = captured(run, self._pool, self._device)
        return graph, hidden

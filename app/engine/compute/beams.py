"""Beam search over one row's beams, step by step as transformers' generate does it (`_beam_search`, release 5)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from app.engine.compute.plain import floats, integers
from app.engine.jobs import BeamSearch


@dataclass(slots=True, kw_only=True)
class Beams:
    """The running hypotheses and the finished ones; scores are sums of log-probabilities in fp32."""

    search: BeamSearch
    tokens_max: int
    stop_ids: frozenset[int]
    banned: tuple[int, ...] = ()
    forced_last_id: int | None = None
    scores: torch.Tensor = field(default_factory=lambda: torch.zeros(1))
    sequences: list[list[int]] = field(default_factory=lambda: [list[int]()])
    finished: list[tuple[float, list[int]]] = field(default_factory=list[tuple[float, list[int]]])
    is_done: bool = False

    def advance(self, logits: torch.Tensor) -> list[int]:
        """Scores (beams, vocabulary) of the running hypotheses, or (1, vocabulary) at first → each new one's parent.

        Afterwards `sequences` ends in the tokens to feed next, `is_done` says whether `best` is final.
        """
        count, vocabulary = self.search.beams, logits.shape[-1]
        known = logits.log_softmax(-1)
        length = len(self.sequences[0]) + 1
        known[:, list(self.banned)] = -torch.inf
        if length == self.tokens_max and self.forced_last_id is not None:
            kept = torch.full_like(known, -torch.inf)
            kept[:, self.forced_last_id] = 0.0
            known = kept
        total = (known + self.scores[:, None].to(known)).flatten()
        wanted = min(len(total), max(2, 1 + len(self.stop_ids)) * count)
        best = total.topk(wanted)
        candidates = [
            (score, place // vocabulary, place % vocabulary)
            for score, place in zip(floats(best.values), integers(best.indices), strict=True)
        ]
        ends = [token in self.stop_ids or length == self.tokens_max for _, _, token in candidates]
        running = [c for c, is_end in zip(candidates, ends, strict=True) if not is_end][:count]
        self._finish(candidates[:count], ends[:count], length)
        if not running or (self.search.early_stopping and len(self.finished) >= count):
            self.is_done = True
            return []
        while len(running) < count:
            running.append((-1e9, running[0][1], running[0][2]))
        self.sequences = [[*self.sequences[parent], token] for _, parent, token in running]
        self.scores = torch.tensor([score for score, _, _ in running])
        if len(self.finished) >= count:
            reachable = running[0][0] / length**self.search.length_penalty
            self.is_done = reachable <= min(score for score, _ in self.finished)
        return [parent for _, parent, _ in running]

    @property
    def best(self) -> list[int]:
        """The finished hypothesis of the highest score, or the running one when none has finished."""
        if self.finished:
            return max(self.finished, key=lambda found: found[0])[1]
        return self.sequences[0]

    def _finish(self, candidates: Sequence[tuple[float, int, int]], ends: Sequence[bool], length: int) -> None:
        for (score, parent, token), is_end in zip(candidates, ends, strict=True):
            if is_end and score > -torch.inf:
                ended = [*self.sequences[parent], token]
                self.finished.append((score / length**self.search.length_penalty, ended))
        self.finished = sorted(self.finished, key=lambda found: -found[0])[: self.search.beams]

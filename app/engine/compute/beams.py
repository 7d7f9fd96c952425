"""Beam search as transformers' generate does it (`_beam_search`, release 5), over all rows of a step at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from app.engine.compute.kernels import hypotheses
from app.engine.compute.plain import floats, integers
from app.engine.jobs import BeamSearch

Candidate = tuple[float, int, int]
"""A hypothesis that might come next: its score, its parent among the running ones, its last token."""


@dataclass(slots=True, kw_only=True)
class Beams:
    """The running hypotheses of one row and the finished ones; scores are sums of log-probabilities in fp32."""

    search: BeamSearch
    tokens_max: int
    stop_ids: frozenset[int]
    banned: tuple[int, ...] = ()
    forced_last_id: int | None = None
    scores: list[float] = field(default_factory=lambda: [0.0])
    sequences: list[list[int]] = field(default_factory=lambda: [list[int]()])
    finished: list[tuple[float, list[int]]] = field(default_factory=list[tuple[float, list[int]]])
    is_done: bool = False

    @property
    def wanted(self) -> int:
        """How many candidates a step looks at, best first: enough to go on with when some of them end."""
        return max(2, 1 + len(self.stop_ids)) * self.search.beams

    @property
    def forced_id(self) -> int | None:
        """The token that every hypothesis must take now."""
        return self.forced_last_id if len(self.sequences[0]) + 1 == self.tokens_max else None

    def advance(self, candidates: Sequence[Candidate]) -> list[int]:
        """The best `wanted` candidates, best first → each new hypothesis' parent.

        Afterwards `sequences` ends in the tokens to feed next, `is_done` says whether `found` is final.
        """
        count, length = self.search.beams, len(self.sequences[0]) + 1
        ends = [token in self.stop_ids or length == self.tokens_max for _, _, token in candidates]
        running = [c for c, is_end in zip(candidates, ends, strict=True) if not is_end][:count]
        self._finish(candidates[:count], ends[:count], length)
        if not running or (self.search.early_stopping and len(self.finished) >= count):
            self.is_done = True
            return []
        while len(running) < count:
            running.append((-1e9, running[0][1], running[0][2]))
        self.sequences = [[*self.sequences[parent], token] for _, parent, token in running]
        self.scores = [score for score, _, _ in running]
        if len(self.finished) >= count:
            reachable = running[0][0] / length**self.search.length_penalty
            self.is_done = reachable <= min(score for score, _ in self.finished)
        return [parent for _, parent, _ in running]

    @property
    def found(self) -> list[list[int]]:
        """The finished hypotheses, best first, or the best running one when none has finished."""
        return [tokens for _, tokens in self.finished] or self.sequences[:1]

    def _finish(self, candidates: Sequence[Candidate], ends: Sequence[bool], length: int) -> None:
        for (score, parent, token), is_end in zip(candidates, ends, strict=True):
            if is_end:
                ended = [*self.sequences[parent], token]
                self.finished.append((score / length**self.search.length_penalty, ended))
        self.finished = sorted(self.finished, key=lambda found: -found[0])[: self.search.beams]


def search(beams: Sequence[Beams], logits: torch.Tensor) -> list[list[Candidate] | None]:
    """Each row's best candidates, best first, from the scores (hypotheses of all rows, vocabulary) in fp32.

    None for a row one of whose scores is not finite; a row that may take no token at all fails likewise.
    """
    wanted = min(max(one.wanted for one in beams), logits.shape[1])
    ids, values = best_tokens(logits, beams[0].banned, wanted)
    found: list[list[Candidate] | None] = []
    place = 0
    for one in beams:
        count = len(one.scores)
        found.append(_candidates(one, ids[place : place + count], values[place : place + count]))
        place += count
    return found


def inherit(slots: Sequence[int], parents: Sequence[int]) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """The slot of each new hypothesis, and what must be copied before it is fed: (from slot, to slot).

    One child of each parent takes over its slot; the others take those that nobody took over.
    """
    unclaimed = {parent: slots[parent] for parent in parents}
    left = [slot for place, slot in enumerate(slots) if place not in unclaimed]
    found: list[int] = []
    copies: list[tuple[int, int]] = []
    for parent in parents:
        slot = unclaimed.pop(parent, None)
        if slot is None:
            slot = left.pop()
            copies.append((slots[parent], slot))
        found.append(slot)
    return tuple(found), copies


def best_tokens(logits: torch.Tensor, banned: Sequence[int], wanted: int) -> tuple[list[list[int]], list[list[float]]]:
    """The best tokens of each of logits (rows, vocabulary) and their log-probabilities, best first: (rows, wanted).

    Ids are -1 where there is no token, and in a row that holds NaN or +infinity.
    """
    if logits.device.type == "cpu":
        ids, values = np.empty((len(logits), wanted), np.int64), np.zeros((len(logits), wanted), np.float32)
        hypotheses.best_of_hypotheses(logits.contiguous().numpy(), np.array(banned, np.int64), ids, values)
        return ids.tolist(), values.tolist()
    known = logits.log_softmax(-1)
    known[:, list(banned)] = -torch.inf
    best = known.topk(wanted)
    places = best.indices.masked_fill(~best.values.isfinite(), -1)
    return [integers(row) for row in places.cpu()], [floats(row) for row in best.values.cpu()]


def _candidates(one: Beams, ids: list[list[int]], values: list[list[float]]) -> list[Candidate] | None:
    if any(row[0] < 0 for row in ids):
        return None
    if one.forced_id is not None:
        forced = [(score, parent, one.forced_id) for parent, score in enumerate(one.scores)]
        return sorted(forced, key=lambda candidate: -candidate[0])
    together = [
        (float(np.float32(score) + np.float32(value)), parent, token)
        for parent, score in enumerate(one.scores)
        for token, value in zip(ids[parent], values[parent], strict=True)
        if token >= 0
    ]
    return sorted(together, key=lambda candidate: -candidate[0])[: one.wanted]

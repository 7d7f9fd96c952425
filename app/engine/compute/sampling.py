"""Draws the next token of each row, with its own parameters and its own generator; company never changes a draw."""

import logging
import math
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from app.engine.compute.kernels import draws, rows
from app.engine.compute.plain import floats, integers
from app.engine.jobs import Sampling

POISONED = -1
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token and, when asked for, what the unmodified model thought of it and of the most probable ones."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """One row's parameters, generator and history."""

    def __init__(
        self, search: Sampling, prompt: Sequence[int], *, logprobs: int | None, banned: Sequence[int] = (),
        stop_ids: Iterable[int] = (),
    ) -> None:  # fmt: skip
        self.search = search
        self.logprobs = logprobs
        self.is_changing = bool(
            search.repetition_penalty != 1 or search.presence_penalty or search.frequency_penalty
            or search.logit_bias or search.allowed_ids or search.banned_runs or search.min_tokens or banned
        )  # fmt: skip
        """Whether scores are changed before the choice."""
        self._banned = list(banned)
        self._stop_ids = list(stop_ids)
        self._prompt = frozenset(prompt)
        self._counts: Counter[int] = Counter()
        self._produced = 0
        self._tail: deque[int] = deque(maxlen=max((len(run) - 1 for run in search.banned_runs), default=0))
        """The last tokens drawn, as many as a banned run needs to be recognised."""
        self._generator = torch.Generator()
        if search.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(search.seed % 2**63)

    def uniform(self) -> float:
        """The next number of the row's own generator, in [0, 1)."""
        return float(torch.rand((), generator=self._generator, dtype=torch.float64))

    def note(self, token: int) -> None:
        """Remember what was drawn."""
        self._counts[token] += 1
        self._produced += 1
        self._tail.append(token)

    def change(self, scores: torch.Tensor) -> None:
        """Apply penalties, biases and bans to scores (vocabulary,), in place."""
        search = self.search
        if search.repetition_penalty != 1:
            seen = torch.tensor(sorted(self._prompt | self._counts.keys()), dtype=torch.long, device=scores.device)
            old = scores[seen]
            scores[seen] = torch.where(old < 0, old * search.repetition_penalty, old / search.repetition_penalty)
        if self._counts and (search.presence_penalty or search.frequency_penalty):
            ids = torch.tensor(list(self._counts), device=scores.device)
            times = torch.tensor(list(self._counts.values()), dtype=scores.dtype, device=scores.device)
            scores[ids] -= search.presence_penalty + search.frequency_penalty * times
        for token, bias in search.logit_bias:
            scores[token] += bias
        banned = self._banned_now()
        if search.allowed_ids:
            kept = list(search.allowed_ids)
            allowed = scores[kept]
            scores.fill_(-math.inf)
            scores[kept] = allowed
            if set(kept) <= set(banned):
                return  # what is banned may be drawn where nothing else may
        scores[banned] = -math.inf

    def _banned_now(self) -> list[int]:
        banned = list(self._banned)
        if self._produced < self.search.min_tokens:
            banned += self._stop_ids
        tail = tuple(self._tail)
        for run in self.search.banned_runs:
            if len(run) - 1 <= len(tail) and tail[len(tail) - len(run) + 1 :] == run[:-1]:
                banned.append(run[-1])
        return banned


def draw(samplers: Sequence[Sampler], scores: torch.Tensor, forced: Sequence[int | None]) -> list[Drawn | None]:
    """One token a row of scores (rows, vocabulary) in fp32, which are changed in place; None for a row that failed.

    A row fails by itself: when its scores are not finite, or when nothing may be drawn. `forced` tokens are taken
    whatever the scores say.
    """
    reports = [_report(sampler, row) for sampler, row in zip(samplers, scores, strict=True)]
    for sampler, row in zip(samplers, scores, strict=True):
        if not sampler.is_changing:
            continue
        try:
            sampler.change(row)
        except Exception:
            log.exception("a row's scores could not be changed as it asked")
            row.fill_(math.nan)
    held = scores.cpu().contiguous()
    found = np.empty(len(samplers), np.int64)
    rows.best_of_rows(held.numpy(), found)
    sampled = [
        place for place, sampler in enumerate(samplers)
        if sampler.search.temperature > 0 and forced[place] is None and found[place] != POISONED
    ]  # fmt: skip
    if sampled:
        chosen = [samplers[place].search for place in sampled]
        draws.draw_rows(
            held.numpy(), np.array(sampled, np.int64), np.array([one.temperature for one in chosen], np.float32),
            np.array([one.top_k for one in chosen], np.int64), np.array([one.top_p for one in chosen], np.float64),
            np.array([one.min_p for one in chosen], np.float32),
            np.array([samplers[place].uniform() for place in sampled], np.float64), found,
        )  # fmt: skip
    drawn: list[Drawn | None] = []
    for place, (sampler, report) in enumerate(zip(samplers, reports, strict=True)):
        if found[place] == POISONED:
            drawn.append(None)
            continue
        must = forced[place]
        token = int(found[place]) if must is None else must
        sampler.note(token)
        drawn.append(Drawn(token) if report is None else report.of(token))
    return drawn


@dataclass(frozen=True, slots=True)
class _Report:
    """What the unmodified model thought."""

    known: torch.Tensor
    top: tuple[tuple[int, float], ...]

    def of(self, token: int) -> Drawn:
        return Drawn(token, float(self.known[token]), self.top)


def _report(sampler: Sampler, scores: torch.Tensor) -> _Report | None:
    if sampler.logprobs is None:
        return None
    known = scores.log_softmax(-1)
    best = known.topk(min(sampler.logprobs, len(known)))
    return _Report(known, tuple(zip(integers(best.indices), floats(best.values), strict=True)))

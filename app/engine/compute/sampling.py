"""Draws the next token of each row, with its own parameters and its own generator; company never changes a draw."""

import logging
import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from app.engine.compute.choice import POISONED, Draws, Scores, best_tokens
from app.engine.compute.kernels import rows
from app.engine.compute.kernels.draws import draw_rows
from app.engine.compute.plain import floats, integers, sent
from app.engine.jobs import Sampling

NOTHING_TOLD: tuple[None, tuple[tuple[int, float], ...]] = (None, ())
"""Of a row that asks for no log-probabilities."""
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
        is_steered = bool(
            search.repetition_penalty != 1 or search.presence_penalty or search.frequency_penalty
            or search.logit_bias or search.allowed_ids or search.banned_runs or search.min_tokens
        )  # fmt: skip
        self.is_steered = is_steered
        """Whether scores are changed before the choice, beyond the banned tokens."""
        self.is_blind = not is_steered and logprobs is None
        """Whether it tells tokens only, and none depends on those before: a device may draw many in a row by itself."""
        self.banned = tuple(banned)
        """Never drawn, unless nothing else may be."""
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

    def uniforms(self, count: int) -> list[float]:
        """The next numbers of the row's own generator, in [0, 1)."""
        return floats(torch.rand(count, generator=self._generator, dtype=torch.float64))

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
        banned = list(self.banned)
        if self._produced < self.search.min_tokens:
            banned += self._stop_ids
        tail = tuple(self._tail)
        for run in self.search.banned_runs:
            if len(run) - 1 <= len(tail) and tail[len(tail) - len(run) + 1 :] == run[:-1]:
                banned.append(run[-1])
        return banned


def draw(samplers: Sequence[Sampler], scores: Scores, forced: Sequence[int | None]) -> list[Drawn | None]:
    """One token a row of scores, which may be changed in place; None for a row that failed.

    A row fails by itself: when its scores are not finite, or when nothing may be drawn. `forced` tokens are taken
    whatever the scores say.
    """
    found, reports = _best(samplers, scores, forced), None
    if found is None:
        values = scores.values
        reports = _Reports(samplers, values)
        is_changed = _change(samplers, values)
        found = _choose(samplers, Scores(values, None if is_changed else scores.best), forced)
    taken = [chosen if must is None or chosen == POISONED else must for chosen, must in zip(found, forced, strict=True)]
    told = reports.of(taken) if reports else [NOTHING_TOLD] * len(taken)
    drawn: list[Drawn | None] = []
    for sampler, token, (logprob, top) in zip(samplers, taken, told, strict=True):
        if token == POISONED:
            drawn.append(None)
        else:
            sampler.note(token)
            drawn.append(Drawn(token, logprob, top))
    return drawn


def _best(samplers: Sequence[Sampler], scores: Scores, forced: Sequence[int | None]) -> list[int] | None:
    """The rows' best tokens, where that is all they ask for and it is found without their scores; else None."""
    banned = samplers[0].banned
    for sampler, must in zip(samplers, forced, strict=True):
        is_drawn = sampler.search.temperature > 0 and must is None
        if is_drawn or not sampler.is_blind or sampler.banned != banned:
            return None
    return scores.best_but(banned)


def _change(samplers: Sequence[Sampler], values: torch.Tensor) -> bool:
    """What each row does to its scores before the choice, in place; returns whether any was changed.

    Rows that only have banned tokens, which a model's rows share, are changed together.
    """
    banning: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    is_changed = False
    for place, sampler in enumerate(samplers):
        if not sampler.is_steered:
            banning[sampler.banned].append(place)
            continue
        is_changed = True
        try:
            sampler.change(values[place])
        except Exception:
            log.exception("a row's scores could not be changed as it asked")
            values[place].fill_(math.nan)
    for banned, places in banning.items():
        if banned:
            is_changed = True
            which = slice(None) if len(places) == len(samplers) else sent(np.array(places)[:, None], values.device)
            values[which, list(banned)] = -math.inf
    return is_changed


def _choose(samplers: Sequence[Sampler], scores: Scores, forced: Sequence[int | None]) -> list[int]:
    """What each row would draw; POISONED for a row that failed."""
    values = scores.values
    is_sampled = [one.search.temperature > 0 and must is None for one, must in zip(samplers, forced, strict=True)]
    if values.device.type == "cpu":
        return _choose_here(samplers, values, is_sampled)
    best = integers(best_tokens(values) if scores.best is None else scores.best)
    places = [place for place, sampled in enumerate(is_sampled) if sampled and best[place] != POISONED]
    if places:
        rows = values if len(places) == len(values) else values[places]
        draws = Draws([samplers[place].search for place in places], values.shape[1], values.device)
        uniforms = np.array([samplers[place].uniforms(1)[0] for place in places])
        drawn = draws.of(rows, sent(uniforms, values.device))
        for place, token in zip(places, integers(drawn), strict=True):
            best[place] = token
    return best


def _choose_here(samplers: Sequence[Sampler], values: torch.Tensor, is_sampled: Sequence[bool]) -> list[int]:
    held, found = values.contiguous().numpy(), np.empty(len(samplers), np.int64)
    rows.best_of_rows(held, found)
    sampled = [place for place, wanted in enumerate(is_sampled) if wanted and found[place] != POISONED]
    if sampled:
        chosen = [samplers[place].search for place in sampled]
        draw_rows(
            held, np.array(sampled, np.int64), np.array([one.temperature for one in chosen], np.float32),
            np.array([one.top_k for one in chosen], np.int64), np.array([one.top_p for one in chosen], np.float64),
            np.array([one.min_p for one in chosen], np.float32),
            np.array([samplers[place].uniforms(1)[0] for place in sampled], np.float64), found,
        )  # fmt: skip
    return found.tolist()


class _Reports:
    """What the unmodified model thought, for the rows that ask: one product of the device, whoever they are."""

    def __init__(self, samplers: Sequence[Sampler], scores: torch.Tensor) -> None:
        self._rows = len(samplers)
        self._asking = [place for place, sampler in enumerate(samplers) if sampler.logprobs is not None]
        if not self._asking:
            return
        self._wanted = [samplers[place].logprobs or 0 for place in self._asking]
        self._known = scores[self._asking].log_softmax(-1)
        self._best = self._known.topk(min(max(self._wanted), scores.shape[1]))

    def of(self, tokens: Sequence[int]) -> list[tuple[float | None, tuple[tuple[int, float], ...]]]:
        """Each row's log-probability of its token, and of its most probable ones, best first."""
        told: list[tuple[float | None, tuple[tuple[int, float], ...]]] = [NOTHING_TOLD] * self._rows
        if not self._asking:
            return told
        chosen = torch.tensor([max(0, tokens[place]) for place in self._asking], device=self._known.device)
        logprobs = floats(self._known.gather(1, chosen[:, None])[:, 0])
        ids, values = self._best.indices.cpu(), self._best.values.cpu()
        for row, (place, wanted) in enumerate(zip(self._asking, self._wanted, strict=True)):
            top = zip(integers(ids[row, :wanted]), floats(values[row, :wanted]), strict=True)
            told[place] = logprobs[row], tuple(top)
        return told

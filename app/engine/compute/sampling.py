"""Draws the next token of each row, with its own parameters and its own generator; company never changes a draw."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from app.engine.compute.plain import floats, integers
from app.engine.jobs import Sampling


@dataclass(frozen=True, slots=True)
class Drawn:
    """A token and, when asked for, what the unmodified model thought of it and of the most probable ones."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """One row's parameters, generator and history."""

    def __init__(
        self, search: Sampling, prompt: Sequence[int], *, logprobs: int | None, banned: Sequence[int] = ()
    ) -> None:
        self.search = search
        self.logprobs = logprobs
        self._banned = list(banned)
        self._prompt = frozenset(prompt)
        self._counts: Counter[int] = Counter()
        self._generator = torch.Generator()
        if search.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(search.seed % 2**63)

    def draw(self, logits: torch.Tensor, *, forced: int | None = None) -> Drawn:
        """Scores (vocabulary,) in fp32 → a token. `forced` is taken whatever the scores say.

        Raises FloatingPointError when the scores are not finite, before anything is drawn.
        """
        if not bool(torch.isfinite(logits.max())):
            raise FloatingPointError("the model's scores are not finite")
        chosen = forced if forced is not None else self._choose(logits)
        self._counts[chosen] += 1
        if self.logprobs is None:
            return Drawn(chosen)
        known = logits.log_softmax(-1)
        best = known.topk(min(self.logprobs, len(known)))
        top = tuple(zip(integers(best.indices), floats(best.values), strict=True))
        return Drawn(chosen, float(known[chosen]), top)

    def _choose(self, logits: torch.Tensor) -> int:
        search = self.search
        scores = self._penalised(logits.clone())
        if search.temperature <= 0:
            return int(scores.argmax())
        scores = (scores / search.temperature).cpu()
        if 0 < search.top_k < len(scores):
            scores[scores < scores.topk(search.top_k).values[-1]] = -math.inf
        if search.top_p < 1:
            ordered, order = scores.sort(descending=True)
            before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
            scores[order[before >= search.top_p]] = -math.inf
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self._generator))

    def _penalised(self, scores: torch.Tensor) -> torch.Tensor:
        search = self.search
        if search.repetition_penalty != 1:
            seen = torch.tensor(sorted(self._prompt | self._counts.keys()), device=scores.device)
            old = scores[seen]
            scores[seen] = torch.where(old < 0, old * search.repetition_penalty, old / search.repetition_penalty)
        if self._counts and (search.presence_penalty or search.frequency_penalty):
            ids = torch.tensor(list(self._counts), device=scores.device)
            times = torch.tensor(list(self._counts.values()), dtype=scores.dtype, device=scores.device)
            scores[ids] -= search.presence_penalty + search.frequency_penalty * times
        for token, bias in search.logit_bias:
            scores[token] += bias
        scores[self._banned] = -math.inf
        return scores

"""What a step thinks of every token, and draws from it by torch alone, so that only the drawn ids leave the device."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from app.engine.compute.cuda import HAS_KERNELS
from app.engine.compute.plain import sent
from app.engine.jobs import Sampling

if TYPE_CHECKING or HAS_KERNELS:
    from app.engine.compute.cuda import draws

POISONED = -1
"""In place of a token, where scores are not finite."""


class Scorer(Protocol):
    """What makes scores of hidden states: a decoder's family."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states (rows, width) → scores (rows, vocabulary) in fp32."""
        ...

    def best(self, hidden: torch.Tensor, banned: Sequence[int]) -> list[int] | None:
        """See Scores.best_but."""
        ...


class Scores:
    """What a step thinks of every token."""

    def __init__(self, values: torch.Tensor, best: torch.Tensor | None = None) -> None:
        self._values: torch.Tensor | None = values
        self._hidden = values
        self._scorer: Scorer | None = None
        self.best = best
        """(rows,) best_tokens of them, where the step has looked."""

    @classmethod
    def of(cls, hidden: torch.Tensor, scorer: Scorer) -> "Scores":
        """Those of hidden states (rows, width), worked out when somebody asks: to find the best, nobody needs all."""
        scores = cls(hidden)
        scores._values, scores._scorer = None, scorer
        return scores

    @property
    def values(self) -> torch.Tensor:
        """(rows, vocabulary) in fp32, on the device."""
        if self._values is None:
            assert self._scorer is not None, "what has no values can make them. This is a bug."
            self._values = self._scorer.logits(self._hidden)
        return self._values

    def __len__(self) -> int:
        return len(self._hidden)

    def some(self, places: Sequence[int]) -> "Scores":
        """Those of the rows `places`; the very same when these are all of them."""
        held = list(places)
        if held == list(range(len(self))):
            return self
        if self._values is None and self._scorer is not None:
            return Scores.of(self._hidden[held], self._scorer)
        return Scores(self.values[held], None if self.best is None else self.best[held])

    def best_but(self, banned: Sequence[int]) -> list[int] | None:
        """best_tokens, none of `banned`, where they are found without the values; None elsewhere."""
        return self._scorer.best(self._hidden, banned) if self._values is None and self._scorer is not None else None


def best_tokens(scores: torch.Tensor) -> torch.Tensor:
    """(rows, vocabulary) → each row's best token, (rows,); POISONED where the best score is not finite."""
    if scores.is_cuda and HAS_KERNELS:
        return draws.best_tokens(scores.contiguous())
    found = scores.max(-1)
    return torch.where(found.values.isfinite(), found.indices, POISONED)


class Draws:
    """Draws one token a row, as kernels/draws.py does, by what each row's search says. The parameters stay on the
    device, for any number of draws."""

    def __init__(self, searches: Sequence[Sampling], vocabulary: int, device: torch.device) -> None:
        numbers = np.array([(one.temperature, one.top_k or vocabulary, one.top_p, one.min_p) for one in searches])
        temperature, top_k, self._top_p, min_p = sent(numbers.T.copy(), device)[..., None]
        self._temperature, self._top_k, self._min_p = temperature.float(), top_k.long(), min_p.float()
        self._cuts = any(one.top_k or one.top_p < 1 for one in searches)
        self._places = torch.arange(vocabulary, device=device)

    def of(self, scores: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
        """Scores (rows, vocabulary) and numbers (rows,) in [0, 1) → ids (rows,).

        A row's scores must be finite or -infinity, and the best of them finite; else its id means nothing.
        """
        if scores.is_cuda and HAS_KERNELS and not self._cuts:
            return draws.draw(scores.contiguous(), self._temperature, self._min_p, uniforms.contiguous())
        weights = ((scores - scores.amax(-1, keepdim=True)) / self._temperature).exp()
        if self._cuts:
            weights = _cut(weights, self._top_k, self._top_p)
        weights = weights.where(weights >= self._min_p, 0.0)
        sums = weights.double().cumsum(-1)
        reached = (sums > uniforms[:, None] * sums[:, -1:]) & (weights > 0)
        last = self._places.where(weights > 0, 0).amax(-1)
        return torch.where(reached.any(-1), reached.int().argmax(-1), last)


def _cut(weights: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Zeros for all but each row's `top_k` largest weights, with those that tie with the last of them; and of these
    all but the fewest whose sum reaches `top_p` of the whole, the lower id first among equals."""
    order = torch.argsort(weights, dim=-1, descending=True, stable=True)
    ordered = weights.gather(-1, order)
    kth = ordered.gather(-1, top_k.clamp(max=weights.shape[1]) - 1)
    ordered = ordered.where(ordered >= kth, 0.0)
    sums = ordered.double().cumsum(-1)
    before = sums - ordered.double()
    is_kept = (before < top_p * sums[:, -1:]) | (top_p >= 1)
    is_kept[:, 0] = True
    return torch.zeros_like(weights).scatter(-1, order, ordered.where(is_kept, 0.0))

"""What a step thinks of every token, and draws from it by torch alone, so that only the drawn ids leave the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from app.engine.compute.cuda import HAS_KERNELS
from app.engine.compute.plain import integers
from app.engine.jobs import Sampling

if TYPE_CHECKING or HAS_KERNELS:
    from app.engine.compute.cuda import kernels

POISONED = -1
"""In place of a token, where scores are not finite."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What a step thinks of every token."""

    values: torch.Tensor
    """(rows, vocabulary) in fp32, on the device."""
    best: torch.Tensor | None = None
    """(rows,) in pinned memory, once the device is through: best_tokens of the rows."""

    def best_ids(self) -> list[int] | None:
        """Waits for the device. None where the step did not look."""
        if self.best is None:
            return None
        torch.cuda.current_stream().synchronize()
        return integers(self.best)


def best_tokens(scores: torch.Tensor) -> torch.Tensor:
    """(rows, vocabulary) → each row's best token, (rows,); POISONED where the best score is not finite."""
    if scores.is_cuda and HAS_KERNELS:
        return kernels.best_tokens(scores.contiguous())
    found = scores.max(-1)
    return torch.where(found.values.isfinite(), found.indices, POISONED)


def draw_rows(scores: torch.Tensor, searches: Sequence[Sampling], uniforms: Sequence[float]) -> list[int]:
    """One token a row of scores (rows, vocabulary), as kernels/draws.py draws it; `uniforms` lie in [0, 1).

    The scores must be finite or -infinity, and the best of a row finite.
    """
    device = scores.device
    numbers = torch.tensor(
        [(one.temperature, one.top_k or scores.shape[1], one.top_p, one.min_p, uniform)
         for one, uniform in zip(searches, uniforms, strict=True)], dtype=torch.float64,
    ).to(device)  # fmt: skip
    temperature, top_k, top_p, min_p, uniform = numbers.T[..., None]
    weights = ((scores - scores.amax(-1, keepdim=True)) / temperature.float()).exp()
    if any(one.top_k or one.top_p < 1 for one in searches):
        weights = _cut(weights, top_k.long(), top_p)
    weights = weights.where(weights >= min_p.float(), 0.0)
    sums = weights.double().cumsum(-1)
    reached = (sums > uniform * sums[:, -1:]) & (weights > 0)
    last = torch.arange(scores.shape[1], device=device).where(weights > 0, -1).amax(-1)
    return integers(torch.where(reached.any(-1), reached.int().argmax(-1), last))


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

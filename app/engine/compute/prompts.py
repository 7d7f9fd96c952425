"""Log-probabilities of a prompt's own tokens, in chunks of rows: never (positions, vocabulary) at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from app.engine.compute.decode import Decoder
from app.engine.compute.plain import floats, integers

ROWS_MAX = 64
"""Positions scored at a time: 13 MB of GPT-2's vocabulary."""


@dataclass(frozen=True, slots=True)
class PromptScores:
    """What the unmodified model thought of each token, and of the most probable ones in its place, best first."""

    logprobs: tuple[float, ...]
    top: tuple[tuple[tuple[int, float], ...], ...]


def score_prompt(decoder: Decoder, hidden: torch.Tensor, targets: Sequence[int], *, top: int) -> PromptScores:
    """Hidden states (tokens, width) and the token that follows each → their scores.

    A token that is among its `top` has the very same number there. Raises ArithmeticError when one is not finite.
    """
    logprobs: list[float] = []
    best: list[tuple[tuple[int, float], ...]] = []
    for start in range(0, len(targets), ROWS_MAX):
        chunk = targets[start : start + ROWS_MAX]
        known = decoder.family.logits(hidden[start : start + len(chunk)]).log_softmax(-1)
        chosen = known.gather(1, torch.tensor(chunk, device=known.device)[:, None])[:, 0]
        if not bool(torch.isfinite(chosen).all()):
            raise ArithmeticError("the scores of a prompt are not finite")
        found = known.topk(min(top, known.shape[1]))
        logprobs += floats(chosen)
        best += [
            tuple(zip(integers(ids), floats(values), strict=True))
            for ids, values in zip(found.indices, found.values, strict=True)
        ]
    return PromptScores(tuple(logprobs), tuple(best))

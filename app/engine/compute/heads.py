"""What stands on an encoder: transformers' heads for labels, spans, tags and hidden tokens, and pooling for vectors.

A head says which tokens of packed rows it wants (None: all), takes the encoder's outputs of these (tokens, width), and
gives each row's scores in fp32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from app.engine.compute.activations import TANH, activation
from app.engine.compute.plain import sent
from app.engine.compute.weights import Vocabulary, Weights
from app.engine.jobs import Pooling

Array = np.ndarray[Any, Any]
TABLE = "embeddings.word_embeddings.weight"
UNTIED = "cls.predictions.decoder.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """The sizes that heads must fit."""

    width: int
    vocabulary: int
    labels: int


def starts_of(lengths: Sequence[int]) -> list[int]:
    """Where each packed row begins."""
    return [0, *accumulate(lengths[:-1])]


def parted(x: torch.Tensor, lengths: Sequence[int]) -> list[torch.Tensor]:
    """(sum of lengths, …) → one piece a length."""
    return [x[start : start + length] for start, length in zip(starts_of(lengths), lengths, strict=True)]


class WholeHead:
    """A head that reads every token."""

    def wanted(self, lengths: Sequence[int], places: Sequence[Sequence[int]]) -> Array | None:
        """Indices of the tokens that are read, in order."""
        return None


class LabelHead:
    """BertForSequenceClassification: labels of the whole row, from its first token."""

    def __init__(self, weights: Weights, trunk: Trunk) -> None:
        self.pooler = weights.linear("pooler.dense", trunk.width, trunk.width, is_exact=True)
        self.output = weights.linear("classifier", trunk.width, trunk.labels, is_exact=True)

    def wanted(self, lengths: Sequence[int], places: Sequence[Sequence[int]]) -> Array | None:
        """Each row's first token."""
        return np.array(starts_of(lengths))

    def __call__(self, x: torch.Tensor, lengths: Sequence[int], _: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        scores = self.output(self.pooler(x, act=TANH)).float()
        return [scores[row : row + 1] for row in range(len(lengths))]


class SpanHead(WholeHead):
    """BertForQuestionAnswering: how well a span starts and ends at each position."""

    def __init__(self, weights: Weights, trunk: Trunk) -> None:
        self.output = weights.linear("qa_outputs", trunk.width, 2, is_exact=True)

    def __call__(self, x: torch.Tensor, lengths: Sequence[int], _: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        return [row.T for row in parted(self.output(x).float(), lengths)]


class TagHead(WholeHead):
    """BertForTokenClassification: labels of every token."""

    def __init__(self, weights: Weights, trunk: Trunk) -> None:
        self.output = weights.linear("classifier", trunk.width, trunk.labels, is_exact=True)

    def __call__(self, x: torch.Tensor, lengths: Sequence[int], _: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        return parted(self.output(x).float(), lengths)


class MaskHead:
    """BertForMaskedLM: which token stands at a place. Its table is the encoder's own, unless the checkpoint has two."""

    def __init__(self, weights: Weights, trunk: Trunk, config: dict[str, Any]) -> None:
        name, width, size = "cls.predictions.transform", trunk.width, trunk.vocabulary
        self.vocabulary = size
        self.dense = weights.linear(f"{name}.dense", width, width, is_exact=True)
        self.act = activation(config.get("hidden_act", "gelu"))
        self.norm = weights.norm(f"{name}.LayerNorm", width, config.get("layer_norm_eps", 1e-12))
        bias = weights.take("cls.predictions.bias", size)
        is_tied = config.get("tie_word_embeddings", True) or not weights.has(UNTIED)
        self.table: Vocabulary = weights.vocabulary(TABLE, size, width, bias=bias if is_tied else None)
        self.scores = self.table if is_tied else weights.vocabulary(UNTIED, size, width, bias=bias)

    def wanted(self, lengths: Sequence[int], places: Sequence[Sequence[int]]) -> Array | None:
        """The places asked for, if any."""
        asked = np.unique(_places_of(lengths, places))
        return asked if len(asked) else None

    def __call__(self, x: torch.Tensor, lengths: Sequence[int], places: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        asked = _places_of(lengths, places)
        if not len(asked):
            return [x.new_zeros(0, self.vocabulary) for _ in lengths]
        rows = sent(np.unique(asked, return_inverse=True)[1], x.device)
        scores = self.scores.scores(self.norm(self.dense(x[rows], act=self.act)))
        return parted(scores, [len(found) for found in places])


def _places_of(lengths: Sequence[int], places: Sequence[Sequence[int]]) -> Array:
    """The places of packed rows as indices of tokens; rows may come without any."""
    starts = starts_of(lengths)
    return np.array([start + place for start, row in zip(starts, places, strict=False) for place in row], np.int64)


class PooledHead:
    """sentence-transformers' Pooling: a row's tokens as one vector, or several one after another."""

    def __init__(self, pooling: tuple[Pooling, ...]) -> None:
        self.pooling = pooling
        self._reads_first = set(pooling) == {Pooling.CLS}

    def wanted(self, lengths: Sequence[int], places: Sequence[Sequence[int]]) -> Array | None:
        """Each row's first token, where no kind of pooling reads another."""
        return np.array(starts_of(lengths)) if self._reads_first else None

    def __call__(self, x: torch.Tensor, lengths: Sequence[int], _: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        rows = parted(x.float(), [1] * len(lengths) if self._reads_first else lengths)
        return [torch.cat([pooled(row, kind) for kind in self.pooling])[None] for row in rows]


def pooled(row: torch.Tensor, kind: Pooling) -> torch.Tensor:
    """(positions, width) → (width,)."""
    match kind:
        case Pooling.CLS:
            return row[0]
        case Pooling.LAST:
            return row[-1]
        case Pooling.MAX:
            return row.amax(0)
        case Pooling.MEAN:
            return row.mean(0)
        case Pooling.MEAN_SQRT_LEN:
            return row.sum(0) / len(row) ** 0.5
        case Pooling.WEIGHTED_MEAN:
            weights = torch.arange(1, len(row) + 1, device=row.device, dtype=row.dtype)
            return (weights[:, None] * row).sum(0) / weights.sum()

"""From labels of tokens to entities, by the strategies of transformers' token classification. Pure functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import fmean


class Aggregation(StrEnum):
    """How tokens become entities."""

    NONE = "none"
    """Every token by itself."""
    SIMPLE = "simple"
    """Neighbours of one kind together, whatever the borders of words."""
    FIRST = "first"
    """Words first, each with its first token's label; then as simple."""
    AVERAGE = "average"
    """The label of a word is the best of its tokens' mean."""
    MAX = "max"
    """The label of a word is its surest token's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A token of the text."""

    word: str
    start: int
    end: int
    index: int
    """Its place among the tokens that were read, [CLS] being 0."""
    scores: Sequence[float]
    """Probabilities of the labels."""
    is_continued: bool
    """Whether it goes on with the word before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A labelled stretch of the text, in characters."""

    label: str
    score: float
    word: str
    start: int
    end: int
    index: int | None = None
    """Of a single token; a group has none."""


Join = Callable[[Sequence[str]], str]


def entities_of(pieces: Sequence[Piece], aggregation: Aggregation, labels: Sequence[str], joined: Join) -> list[Entity]:
    """Every stretch with its label, also those that say nothing. Without aggregation labels keep their B- and I-."""
    if aggregation in (Aggregation.NONE, Aggregation.SIMPLE):
        found = [entity_of([piece], piece.scores, labels, piece.word, index=piece.index) for piece in pieces]
    else:
        found = [
            entity_of(word, scores_of(word, aggregation), labels, joined([piece.word for piece in word]))
            for word in words_of(pieces)
        ]
    if aggregation is Aggregation.NONE:
        return found
    return [grouped(group, joined) for group in groups_of(found)]


def words_of(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Pieces that make a word together."""
    words: list[list[Piece]] = []
    for piece in pieces:
        if words and piece.is_continued:
            words[-1].append(piece)
        else:
            words.append([piece])
    return words


def scores_of(word: Sequence[Piece], aggregation: Aggregation) -> Sequence[float]:
    """The probabilities that a word's label is chosen by."""
    match aggregation:
        case Aggregation.AVERAGE:
            return [fmean(column) for column in zip(*(piece.scores for piece in word), strict=True)]
        case Aggregation.MAX:
            return max(word, key=lambda piece: max(piece.scores)).scores
        case _:
            return word[0].scores


def entity_of(
    pieces: Sequence[Piece], scores: Sequence[float], labels: Sequence[str], word: str, index: int | None = None
) -> Entity:
    """The stretch of `pieces` with its most probable label."""
    best = max(range(len(scores)), key=lambda place: scores[place])
    return Entity(
        label=labels[best], score=scores[best], word=word, start=pieces[0].start, end=pieces[-1].end, index=index
    )


def groups_of(entities: Sequence[Entity]) -> list[list[Entity]]:
    """Neighbours of one kind together; a label with B- begins a new group."""
    groups = [[entity] for entity in entities[:1]]
    for before, entity in pairwise(entities):
        begins, kind = tag_of(entity.label)
        if kind == tag_of(before.label)[1] and not begins:
            groups[-1].append(entity)
        else:
            groups.append([entity])
    return groups


def tag_of(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity, and of which kind it is."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def grouped(group: Sequence[Entity], joined: Join) -> Entity:
    """A group as one entity: the mean of the scores."""
    return Entity(
        label=group[0].label.split("-", 1)[-1], score=fmean(entity.score for entity in group),
        word=joined([entity.word for entity in group]), start=group[0].start, end=group[-1].end,
    )  # fmt: skip


def without_overlaps(entities: Sequence[Entity]) -> list[Entity]:
    """Of entities that windows found twice, the longer, or the surer of two as long."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda entity: entity.start):
        if kept and kept[-1].start <= entity.start < kept[-1].end:
            kept[-1] = max(kept[-1], entity, key=lambda one: (one.end - one.start, one.score))
        else:
            kept.append(entity)
    return kept

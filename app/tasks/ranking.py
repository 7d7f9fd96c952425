"""Ranking and similarity: how well texts fit a query, or each other, by a cross-encoder or by vectors."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from app.engine.session import JobSession
from app.errors import TaskMismatch
from app.registry.model import ScoreFunction, TaskName
from app.registry.residency import Resident
from app.tasks.classification import Classification, ClassificationRequest, PreparedClassification
from app.tasks.embedding import Embedding, EmbeddingRequest, PreparedEmbedding, cosine
from app.tasks.task import Caller, refuse_empty
from app.text.truncation import Truncate


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarityRequest:
    """A text, and those that it is compared with."""

    source: str
    texts: tuple[str, ...]
    prompt_name: str | None = None
    truncate: Truncate = Truncate.ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingRequest:
    """A query, and the texts that may answer it."""

    query: str
    texts: tuple[str, ...]
    is_raw: bool = False
    """A cross-encoder's logits as they are. Vectors know only the cosine."""
    truncate: Truncate = Truncate.ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """How well one text fits; in the order of the texts."""

    index: int
    score: float
    is_truncated: bool


class Similarity:
    """The cosine between the texts' vectors. See Task."""

    name = TaskName.SIMILARITY

    async def prepare(self, request: SimilarityRequest, resident: Resident, caller: Caller) -> PreparedEmbedding:
        """See Task.prepare."""
        refuse_empty((request.source,), "source_sentence", texts_max=1)
        refuse_empty(request.texts, "sentences", texts_max=resident.model.limits.batch_inputs_max - 1)
        asked = EmbeddingRequest(
            texts=(request.source, *request.texts), prompt_name=request.prompt_name, truncate=request.truncate
        )
        return await Embedding().prepare(asked, resident, caller)

    async def events(self, prepared: PreparedEmbedding, session: JobSession) -> AsyncIterator[Scored]:
        """See Task.events."""
        found = {one.index: one async for one in Embedding().events(prepared, session)}
        source = found.pop(0)
        for index, one in sorted(found.items()):
            is_truncated = source.is_truncated or one.is_truncated
            yield Scored(index=index - 1, score=cosine(source.vector, one.vector), is_truncated=is_truncated)


class Ranking:
    """A cross-encoder's score of (query, text), or the cosine of their vectors. See Task."""

    name = TaskName.RANKING

    async def prepare(
        self, request: RankingRequest, resident: Resident, caller: Caller
    ) -> PreparedClassification | PreparedEmbedding:
        """See Task.prepare."""
        refuse_empty((request.query,), "query", texts_max=1)
        refuse_empty(request.texts, "texts", texts_max=resident.model.limits.batch_inputs_max - 1)
        if resident.vectors is not None:
            asked = SimilarityRequest(source=request.query, texts=request.texts, truncate=request.truncate)
            return await Similarity().prepare(asked, resident, caller)
        if len(resident.labels) != 1:
            raise TaskMismatch(
                f"The model {resident.model.id} gives {len(resident.labels)} labels; a ranking needs one score. Use a "
                "cross-encoder, or a model for feature-extraction.",
                field="model",
            )
        pairs = ClassificationRequest(
            texts=tuple((request.query, text) for text in request.texts), truncate=request.truncate,
            function=ScoreFunction.NONE if request.is_raw else ScoreFunction.SIGMOID,
        )  # fmt: skip
        return await Classification().prepare(pairs, resident, caller)

    async def events(
        self, prepared: PreparedClassification | PreparedEmbedding, session: JobSession
    ) -> AsyncIterator[Scored]:
        """See Task.events."""
        if isinstance(prepared, PreparedEmbedding):
            async for scored in Similarity().events(prepared, session):
                yield scored
            return
        async for one in Classification().events(prepared, session):
            yield Scored(index=one.index, score=one.labels[0].score, is_truncated=one.is_truncated)

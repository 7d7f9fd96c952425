"""POST /v1/estimate: how many tokens a request has, what it may cost, whether the budgets cover it. Nothing runs."""

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.body import read_body
from app.api.context import Caller, RequestId, Rooms
from app.api.document import body_schema
from app.api.native import TRUNCATE, Texts, as_texts
from app.errors import InvalidRequest
from app.metering.money import decimal_text
from app.registry.model import TaskName
from app.tasks.answering import Answering, AnsweringRequest
from app.tasks.classification import Classification, ClassificationRequest
from app.tasks.embedding import Embedding, EmbeddingRequest
from app.tasks.generation import Generation, GenerationRequest
from app.tasks.ranking import Ranking, RankingRequest, Similarity, SimilarityRequest
from app.tasks.tagging import Tagging, TaggingRequest
from app.tasks.task import Task
from app.tasks.translation import Translation, TranslationRequest
from app.tasks.unmasking import Unmasking, UnmaskingRequest
from app.tasks.zero_shot import ZeroShot, ZeroShotRequest
from app.text.truncation import Truncate

V = TypeVar("V")


class EstimateBody(BaseModel):
    """What would be sent; the model decides the task."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"model": "starter-en-pt", "input": "Where is the station?"}]}
    )

    model: str = Field(description="Which model; GET /v1/models lists them.")
    input: Texts = Field(description="The prompts, the texts, or the questions.")
    context: Texts | None = Field(default=None, description="For questions: the text that answers.")
    labels: Annotated[list[str], Field(min_length=1)] | None = Field(
        default=None, description="For zero-shot classification: what would be chosen from."
    )
    query: str | None = Field(default=None, description="For ranking and similarity: what the texts are held against.")
    max_tokens: int | None = Field(default=16, ge=1, le=10**6, description="For prompts; null takes all that fits.")
    truncate: Truncate = TRUNCATE


def needed(value: V | None, what: str) -> V:
    """The field. Raises InvalidRequest when the model's task cannot do without it."""
    if value is None:
        raise InvalidRequest(f"the model needs {what}", field=what.partition(":")[0])
    return value


def asked_of(body: EstimateBody, task: TaskName) -> tuple[Task[Any, Any, Any], Any]:
    """The task and the request that the body stands for. Raises InvalidRequest."""
    texts = as_texts(body.input)
    match task:
        case TaskName.GENERATION:
            request = GenerationRequest(prompts=texts, output_tokens_max=body.max_tokens, truncate=body.truncate)
            return Generation(), request
        case TaskName.CLASSIFICATION:
            return Classification(), ClassificationRequest(texts=texts, truncate=body.truncate)
        case TaskName.TRANSLATION:
            return Translation(), TranslationRequest(texts=texts, truncate=body.truncate)
        case TaskName.ANSWERING:
            contexts = as_texts(needed(body.context, "context: the text that answers"))
            contexts = contexts * len(texts) if len(contexts) == 1 else contexts
            return Answering(), AnsweringRequest(questions=texts, contexts=contexts, truncate=body.truncate)
        case TaskName.EMBEDDING:
            return Embedding(), EmbeddingRequest(texts=texts, truncate=body.truncate)
        case TaskName.UNMASKING:
            return Unmasking(), UnmaskingRequest(texts=texts, truncate=body.truncate)
        case TaskName.TAGGING:
            return Tagging(), TaggingRequest(texts=texts, truncate=body.truncate)
        case TaskName.ZERO_SHOT:
            labels = as_texts(needed(body.labels, "labels: what would be chosen from"))
            return ZeroShot(), ZeroShotRequest(texts=texts, labels=labels, truncate=body.truncate)
        case TaskName.RANKING:
            query = needed(body.query, "query: what the texts are ranked by")
            return Ranking(), RankingRequest(query=query, texts=texts, truncate=body.truncate)
        case TaskName.SIMILARITY:
            query = needed(body.query, "query: what the texts are compared with")
            return Similarity(), SimilarityRequest(source=query, texts=texts, truncate=body.truncate)


router = APIRouter(prefix="/v1", tags=["usage"])


@router.post("/estimate", openapi_extra=body_schema(EstimateBody), summary="What would it cost")
async def estimate(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> dict[str, Any]:
    """Exact input tokens, the most output there can be, and the least and the most that it costs now."""
    body = await read_body(request, EstimateBody)
    model = serving.residency.find(body.model).model
    task, asked = asked_of(body, model.tasks[0])
    prepared, priced, left = await serving.estimate(
        task, asked, model=model.id, principal=principal, request_id=request_id
    )
    least, most = priced.cost_nano(0), priced.cost_nano(priced.output_tokens_max)
    return {
        "object": "estimate", "model": model.id, "task": task.name.value,
        "input_tokens": priced.input_tokens, "output_tokens_max": priced.output_tokens_max,
        "characters": priced.characters, "truncated": any(prepared.is_truncated),
        "prices": dict(priced.prices), "currency": "USD", "cost_nano_min": least, "cost_nano_max": most,
        "cost_min": decimal_text(least), "cost_max": decimal_text(most), "balance_nano": left,
        "is_covered": left is None or most <= left,
    }  # fmt: skip

"""Tollgate's own routes for the tasks that have no widely used wire format: classifications, translations, answers."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.body import read_body
from app.api.context import Caller, RequestId, Rooms
from app.api.disconnect import unless_hung_up
from app.api.document import body_schema
from app.api.folding import folded
from app.api.receipts import cost_headers
from app.errors import InvalidRequest
from app.metering.ledger import Receipt
from app.tasks.answering import Answering, AnsweringRequest
from app.tasks.classification import Classification, ClassificationRequest
from app.tasks.translation import Translation, TranslationRequest
from app.text.truncation import Truncate

T = TypeVar("T")
Texts = str | Annotated[list[str], Field(min_length=1)]
TRUNCATE = Field(
    default=Truncate.ERROR, description="A text that is too long is refused (error), or cut at its left or right end."
)


class Body(BaseModel):
    """What every request has."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="Which model; GET /v1/models lists them.")
    truncate: Truncate = TRUNCATE


class ClassificationBody(Body):
    """Texts to label."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "starter-sentiment", "input": "What a lovely evening!"}]}
    )

    input: Texts = Field(description="A text, or a list of texts.")
    top_k: int | None = Field(default=None, ge=1, le=1000, description="So many labels, best first; null for all.")


class TranslationBody(Body):
    """Texts to translate."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "starter-en-pt", "input": "Where is the train station?"}]}
    )

    input: Texts = Field(description="A text of any number of sentences, or a list of texts.")
    source: str | None = Field(default=None, description="If given, must be the language that the model reads.")
    target: str | None = Field(default=None, description="If given, must be the language that the model writes.")
    num_beams: int = Field(default=4, ge=1, le=8, description="Width of the beam search.")
    length_penalty: float = Field(default=1.0, ge=-5, le=5, description="Above 1 favours longer translations.")


class AnswerBody(Body):
    """Questions about texts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "starter-qa",
                    "question": "Where are results cached?",
                    "context": "The server batches requests and caches results in Redis.",
                }
            ]
        }
    )

    question: Texts = Field(description="A question, or a list of questions.")
    context: Texts = Field(description="The text that answers: one for all questions, or one for each.")
    top_k: int = Field(default=1, ge=1, le=20, description="At most so many answers, which do not overlap.")
    no_answer_threshold: float | None = Field(
        default=None, ge=-100, le=100, description="How much better than the best span 'no answer' must score; "
        "null takes the model's, a high number always answers."
    )  # fmt: skip


class UsageBody(BaseModel):
    """What was counted and charged."""

    input_tokens: int
    output_tokens: int
    cost_nano: int = Field(description="In billionths of the currency.")
    currency: str


class LabelBody(BaseModel):
    label: str
    score: float = Field(description="Probability, 0 to 1.")


class ClassifiedBody(BaseModel):
    index: int
    labels: list[LabelBody]
    truncated: bool


class TranslatedBody(BaseModel):
    index: int
    text: str
    truncated: bool


class SpanBody(BaseModel):
    text: str
    start: int = Field(description="First character in the context.")
    end: int = Field(description="One past the last character.")
    score: float = Field(description="Probability among all candidates, 0 to 1.")


class AnsweredBody(BaseModel):
    index: int
    answers: list[SpanBody] = Field(description="Best first; empty when the context does not say.")
    no_answer_score: float
    truncated: bool


D = TypeVar("D")


class Answers(BaseModel, Generic[D]):
    """Results in the order of the inputs."""

    id: str = Field(description="Names this request in the ledger.")
    object: Literal["list"] = "list"
    model: str
    data: list[D]
    usage: UsageBody


def as_texts(value: str | list[str]) -> tuple[str, ...]:
    """One text or several, as several."""
    return (value,) if isinstance(value, str) else tuple(value)


def usage_of(receipt: Receipt) -> UsageBody:
    """A receipt as the wire shows it."""
    return UsageBody(
        input_tokens=receipt.input_tokens, output_tokens=receipt.output_tokens, cost_nano=receipt.cost_nano,
        currency=receipt.currency,
    )  # fmt: skip


def reply(request_id: str, model: str, data: list[Any], receipt: Receipt) -> JSONResponse:
    """The envelope."""
    answers = Answers[Any](id=request_id, model=model, data=data, usage=usage_of(receipt))
    return JSONResponse(answers.model_dump(mode="json"), headers=cost_headers(receipt))


router = APIRouter(prefix="/v1", tags=["tasks"])


@router.post(
    "/classifications", response_model=Answers[ClassifiedBody], openapi_extra=body_schema(ClassificationBody),
    summary="Label texts",
)  # fmt: skip
async def classifications(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> JSONResponse:
    """Labels with their probabilities, best first, for each text."""
    body = await read_body(request, ClassificationBody)
    asked = ClassificationRequest(texts=as_texts(body.input), truncate=body.truncate)
    work = folded(
        serving, Classification(), asked, model=body.model, principal=principal, request_id=request_id,
        route="/v1/classifications",
    )  # fmt: skip
    found, receipt = await unless_hung_up(request, work)
    data = [
        ClassifiedBody(
            index=one.index, truncated=one.is_truncated,
            labels=[LabelBody(label=label.name, score=label.score) for label in one.labels[: body.top_k]],
        )
        for one in found
    ]  # fmt: skip
    return reply(request_id, body.model, data, receipt)


@router.post(
    "/translations", response_model=Answers[TranslatedBody], openapi_extra=body_schema(TranslationBody),
    summary="Translate texts",
)  # fmt: skip
async def translations(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> JSONResponse:
    """Each text's translation; line breaks stay where they were."""
    body = await read_body(request, TranslationBody)
    languages = serving.residency.find(body.model).model.languages
    for name, wanted in (("source", body.source), ("target", body.target)):
        if languages is not None and wanted is not None and wanted.lower() != getattr(languages, name):
            raise InvalidRequest(
                f"{body.model} translates from {languages.source} to {languages.target}, {name} is {wanted!r}",
                field=name,
            )
    asked = TranslationRequest(
        texts=as_texts(body.input), beams=body.num_beams, length_penalty=body.length_penalty, truncate=body.truncate
    )
    work = folded(
        serving, Translation(), asked, model=body.model, principal=principal, request_id=request_id,
        route="/v1/translations",
    )  # fmt: skip
    found, receipt = await unless_hung_up(request, work)
    data = [TranslatedBody(index=one.index, text=one.text, truncated=one.is_truncated) for one in found]
    return reply(request_id, body.model, data, receipt)


@router.post(
    "/answers", response_model=Answers[AnsweredBody], openapi_extra=body_schema(AnswerBody),
    summary="Answer questions about texts",
)  # fmt: skip
async def answers(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> JSONResponse:
    """The spans of the context that answer, or none when it does not say."""
    body = await read_body(request, AnswerBody)
    questions, contexts = as_texts(body.question), as_texts(body.context)
    if len(contexts) == 1:
        contexts *= len(questions)
    asked = AnsweringRequest(
        questions=questions, contexts=contexts, answers_max=body.top_k, truncate=body.truncate,
        no_answer_threshold=body.no_answer_threshold,
    )  # fmt: skip
    work = folded(
        serving, Answering(), asked, model=body.model, principal=principal, request_id=request_id, route="/v1/answers"
    )
    found, receipt = await unless_hung_up(request, work)
    data = [
        AnsweredBody(
            index=one.index, no_answer_score=one.no_answer_score, truncated=one.is_truncated,
            answers=[SpanBody(text=s.text, start=s.start, end=s.end, score=s.score) for s in one.spans],
        )
        for one in found
    ]  # fmt: skip
    return reply(request_id, body.model, data, receipt)

"""POST /v1/decisions: predicates, choices and scores about a text, answered with probabilities by a classifier.

A model of natural language inference answers any question: each possibility is a statement, and its probability is how
far the text entails it. Another classifier answers in its own labels only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.body import read_body
from app.api.context import Caller, RequestId, Rooms
from app.api.disconnect import unless_hung_up
from app.api.document import body_schema
from app.api.folding import folded
from app.api.native import TRUNCATE
from app.api.openai.envelope import cost_json, model_of
from app.api.receipts import cost_headers
from app.errors import InvalidRequest, UnsupportedParameter
from app.metering.ledger import Receipt
from app.registry.model import ScoreFunction, TaskName
from app.tasks.classification import Classification, ClassificationRequest, Classified, softmax
from app.tasks.zero_shot import ENTAILMENT, entailment_of
from app.text.truncation import Truncate

ROUTE = "/v1/decisions"


class Part(BaseModel):
    """A piece of a message or of instructions; only text can be read."""

    model_config = ConfigDict(extra="ignore")

    type: str = "input_text"
    text: str | None = None


class Message(BaseModel):
    """One message of a conversation; all of them are read as one text."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer", "assistant"]
    content: str | list[Part]


class Question(BaseModel):
    """What every question has."""

    model_config = ConfigDict(extra="ignore")

    name: str | None = Field(default=None, max_length=200)
    instructions: str | list[Part]


class Predicate(Question):
    """A statement about the input: how likely is it true?"""

    type: Literal["predicate"]


class Option(BaseModel):
    """One of the possibilities."""

    model_config = ConfigDict(extra="ignore")

    value: Annotated[str | bool, Field(union_mode="left_to_right")]
    description: str | None = None


class OneOf(Question):
    """Which of the choices fits the input?"""

    type: Literal["choice"]
    choices: list[Option] = Field(min_length=2, max_length=255)


class Level(BaseModel):
    """One step of a scale, the lowest first."""

    model_config = ConfigDict(extra="ignore")

    label: str
    description: str | None = None


class Score(Question):
    """Where on the scale of levels is the input?"""

    type: Literal["score"]
    levels: list[Level] = Field(min_length=2, max_length=255)


class DecisionBody(BaseModel):
    """A text, and questions about it."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "model": "starter-sentiment",
                    "input": "What a lovely evening!",
                    "questions": [{"type": "predicate", "name": "is_positive", "instructions": "POSITIVE"}],
                }
            ]
        },
    )

    model: str = Field(description="A classifier, or a model of natural language inference.")
    input: str | Annotated[list[Message], Field(min_length=1)] = Field(description="A text, or messages.")
    questions: list[Annotated[Predicate | OneOf | Score, Field(discriminator="type")]] = Field(
        min_length=1, max_length=400, description="Answered in their order."
    )
    truncate: Truncate = TRUNCATE


def text_of(value: str | Sequence[Part], field: str) -> str:
    """Texts and parts as one text. Raises UnsupportedParameter for a part that is no text."""
    if isinstance(value, str):
        return value
    for place, part in enumerate(value):
        if part.text is None:
            raise UnsupportedParameter(
                f"{field}.{place} is of the type {part.type[:40]!r}; these models read text only",
                field=f"{field}.{place}",
            )
    return "\n".join(part.text or "" for part in value)


def input_of(body: DecisionBody) -> str:
    """The text that the questions are about."""
    if isinstance(body.input, str):
        return body.input
    texts = [text_of(one.content, f"input.{place}.content") for place, one in enumerate(body.input)]
    return "\n".join(text for text in texts if text)


@dataclass(frozen=True, slots=True)
class Possibility:
    """A value that an answer may have, the statement that says so, and the words by which a label is known."""

    value: str | bool
    statement: str
    words: tuple[str, ...]


def possibilities(question: Question, place: int) -> list[Possibility]:
    """What may be answered: one possibility of a predicate, the choices, or the levels."""
    asked = text_of(question.instructions, f"questions.{place}.instructions").strip()
    if isinstance(question, Predicate):
        return [Possibility(True, asked, (asked, question.name or ""))]
    options: list[tuple[str | bool, str | None]] = []
    if isinstance(question, OneOf):
        options = [(one.value, one.description) for one in question.choices]
    elif isinstance(question, Score):
        options = [(one.label, one.description) for one in question.levels]
    if len(set((type(value), value) for value, _ in options)) < len(options):
        raise InvalidRequest(f"questions.{place} has the same possibility twice", field=f"questions.{place}")
    return [
        Possibility(value, f"{asked} {description or value}", (str(value), description or ""))
        for value, description in options
    ]


def answer_json(question: Question, found: Sequence[Possibility], shares: Sequence[float]) -> dict[str, Any]:
    """An answer on the wire, from the probability of each possibility."""
    if isinstance(question, Predicate):
        return {"type": "predicate", "name": question.name, "probability": shares[0]}
    best = max(range(len(shares)), key=shares.__getitem__)
    if isinstance(question, OneOf):
        listed: list[dict[str, Any]] = [
            {"value": one.value, "probability": share} for one, share in zip(found, shares, strict=True)
        ]
        return {
            "type": "choice", "name": question.name, "choice": found[best].value, "confidence": shares[best],
            "probabilities": listed,
        }  # fmt: skip
    levels: list[dict[str, Any]] = [
        {"value": level, "label": one.value, "probability": share}
        for level, (one, share) in enumerate(zip(found, shares, strict=True))
    ]
    expected = sum(level * share for level, share in enumerate(shares))
    return {
        "type": "score", "name": question.name, "score": expected, "confidence": shares[best], "probabilities": levels,
    }  # fmt: skip


def by_entailment(question: Question, rows: Sequence[dict[str, float]]) -> list[float]:
    """Probabilities from the logits (by label) of the text with each statement.

    A predicate weighs entailment against contradiction; of several possibilities, one holds.
    """
    entailments = [row[next(name for name in row if name.lower().startswith(ENTAILMENT))] for row in rows]
    if not isinstance(question, Predicate):
        return softmax(entailments)
    against = [value for name, value in rows[0].items() if name.lower().startswith(("contra", "not_"))]
    others = against or [value for name, value in rows[0].items() if not name.lower().startswith(ENTAILMENT)]
    return [softmax([entailments[0], *others])[0]]


def refuse_strangers(asked: Sequence[Sequence[Possibility]], labels: Sequence[str]) -> None:
    """Raises InvalidRequest for a question that a classifier with these labels cannot answer."""
    known = {label.casefold() for label in labels}
    for place, found in enumerate(asked):
        for one in found:
            if not any(word.casefold() in known for word in one.words):
                raise InvalidRequest(
                    f"questions.{place} asks for {one.words[0][:80]!r}, and this classifier only knows its labels: "
                    f"{', '.join(labels)}. Name them, or use a model of natural language inference",
                    field=f"questions.{place}",
                )


def by_label(question: Question, found: Sequence[Possibility], scores: dict[str, float]) -> list[float]:
    """Probabilities from a classifier's own labels; of several possibilities, one holds."""
    known = {name.casefold(): score for name, score in scores.items()}
    shares = [next(known[word.casefold()] for word in one.words if word.casefold() in known) for one in found]
    total = sum(shares) or 1.0
    return shares if isinstance(question, Predicate) else [share / total for share in shares]


def usage_json(receipt: Receipt) -> dict[str, Any]:
    """OpenAI's usage of decisions."""
    return {
        "input_tokens": receipt.input_tokens,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": receipt.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": receipt.input_tokens + receipt.output_tokens,
    } | cost_json(receipt)


router = APIRouter(prefix="/v1", tags=["openai"])


@router.post("/decisions", openapi_extra=body_schema(DecisionBody), summary="Answer questions with probabilities")
async def decisions(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> JSONResponse:
    """Each question's answer, in their order."""
    body = await read_body(request, DecisionBody)
    model = model_of(request, body.model, TaskName.CLASSIFICATION, serving=serving, principal=principal)
    text = input_of(body)
    asked = [possibilities(question, place) for place, question in enumerate(body.questions)]
    infers = TaskName.ZERO_SHOT in serving.residency.find(model).model.tasks
    principal.require(task=TaskName.CLASSIFICATION.value, model=model)
    async with serving.residency.lease(model) as resident:  # refused before anything runs or is charged
        if infers:
            entailment_of(resident)
        else:
            refuse_strangers(asked, resident.labels)
    pairs = [(text, one.statement) for found in asked for one in found]
    job = ClassificationRequest(
        texts=tuple(pairs) if infers else (text,), truncate=body.truncate,
        function=ScoreFunction.NONE if infers else None,
    )  # fmt: skip
    work = folded(
        serving, Classification(), job, model=model, principal=principal, request_id=request_id, route=ROUTE
    )  # fmt: skip
    found, receipt = await unless_hung_up(request, work)
    classified: list[Classified] = found
    rows = [{label.name: label.score for label in one.labels} for one in classified]
    answers: list[dict[str, Any]] = []
    start = 0
    for question, ways in zip(body.questions, asked, strict=True):
        mine = rows[start : start + len(ways)]
        shares = by_entailment(question, mine) if infers else by_label(question, ways, rows[0])
        answers.append(answer_json(question, ways, shares))
        start += len(ways)
    return JSONResponse(
        {"model": model, "answers": answers, "usage": usage_json(receipt)}, headers=cost_headers(receipt)
    )

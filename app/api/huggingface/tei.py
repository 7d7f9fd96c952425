"""text-embeddings-inference's routes: POST /embed, /predict, /rerank, /similarity, /tokenize, /decode.

Types of errors have a capital here. A text that is too long is cut unless `truncate` is false, and the answer says so.
"""

from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.api.body import model_of, read_body, read_object
from app.api.context import Caller, RequestId, Rooms
from app.api.dialect import route_in
from app.api.document import body_schema
from app.api.huggingface.envelope import LISTED_MAX, Call, refusal
from app.api.huggingface.tokenize import TokenizeBody, tokens_json
from app.api.openai import tokenizer
from app.errors import InvalidRequest
from app.registry.model import ScoreFunction, TaskName
from app.tasks.classification import Classification, ClassificationRequest, Classified
from app.tasks.classification import Text as Pair
from app.tasks.embedding import Embedding, EmbeddingRequest
from app.tasks.ranking import Ranking, RankingRequest, Similarity, SimilarityRequest
from app.text.truncation import Truncate

Side = Literal["left", "right", "Left", "Right"]
MODEL = Field(None, description="Which model; the catalogue's first that does the task if it is left out.")


def refused(error: Exception) -> Response:
    """TEI's types have a capital."""
    return refusal(error, is_capital=True)


class Body(BaseModel):
    """What every body has."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = MODEL
    truncate: bool | None = Field(None, description="false refuses a text that is too long; else it is cut.")
    truncation_direction: Side = Field("right", description="Which end is cut.")

    @property
    def cut(self) -> Truncate:
        """The policy in our words."""
        return Truncate.ERROR if self.truncate is False else Truncate(self.truncation_direction.lower())


class EmbedBody(Body):
    """Texts, or token ids, to turn into vectors."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"inputs": "a red bicycle"}]})

    inputs: (
        str
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[str | Annotated[list[int], Field(min_length=1)]], Field(min_length=1, max_length=LISTED_MAX)]
    )
    normalize: bool = Field(True, description="Bring each vector to length 1.")
    prompt_name: str | None = None
    dimensions: int | None = Field(None, ge=1)


class PredictBody(Body):
    """A text, a pair ["a", "b"], or a list of [text] and [text, text]."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"inputs": "What a lovely evening!"}]})

    inputs: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=2)]
        | Annotated[
            list[Annotated[list[str], Field(min_length=1, max_length=2)]], Field(min_length=1, max_length=LISTED_MAX)
        ]
    )
    raw_scores: bool = Field(False, description="Logits as they are.")


class RerankBody(Body):
    """A query, and texts that may answer it."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"examples": [{"query": "bicycles", "texts": ["a red bicycle", "a cake"]}]}
    )

    query: str
    texts: Annotated[list[str], Field(min_length=1, max_length=LISTED_MAX)]
    raw_scores: bool = False
    return_text: bool = False


class SimilarityInputs(BaseModel):
    """A text and those it is compared with."""

    model_config = ConfigDict(extra="ignore")

    source_sentence: str
    sentences: Annotated[list[str], Field(min_length=1, max_length=LISTED_MAX)]


class SimilarityParameters(BaseModel):
    """TEI puts these apart."""

    model_config = ConfigDict(extra="ignore")

    truncate: bool | None = None
    truncation_direction: Side = "right"
    prompt_name: str | None = None


class SimilarityBody(BaseModel):
    """Texts to compare."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"inputs": {"source_sentence": "a bike", "sentences": ["a red bicycle"]}}]},
    )

    model: str | None = MODEL
    inputs: SimilarityInputs
    parameters: SimilarityParameters = Field(default_factory=lambda: SimilarityParameters.model_validate({}))


class DecodeBody(BaseModel):
    """Token ids, or a list of lists of them."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"ids": [101, 7592, 102]}]})

    model: str | None = MODEL
    ids: (
        Annotated[list[int], Field(min_length=1, max_length=100_000)]
        | Annotated[list[Annotated[list[int], Field(max_length=100_000)]], Field(min_length=1, max_length=LISTED_MAX)]
    )
    skip_special_tokens: bool = True


def texts_of(value: str | list[Any]) -> tuple[str | tuple[int, ...], ...]:
    """One text or several, or ids."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value[0], int):
        return (tuple(cast("list[int]", value)),)
    return tuple(one if isinstance(one, str) else tuple(one) for one in value)


def pairs_of(value: str | list[str] | list[list[str]]) -> tuple[Pair, ...]:
    """A list of two texts is a pair, as TEI reads it; a batch is a list of lists."""
    if isinstance(value, str):
        return (value,)
    rows = value if isinstance(value[0], list) else [value]
    return tuple(row[0] if len(row) == 1 else (row[0], row[1]) for row in cast("list[list[str]]", rows))


def prediction_json(found: Classified) -> list[dict[str, Any]]:
    """Labels, best first, under TEI's names."""
    return [{"score": label.score, "label": label.name} for label in found.labels]


router = APIRouter(tags=["huggingface"], route_class=route_in(refused))


@router.post("/embed", openapi_extra=body_schema(EmbedBody), summary="Turn texts into vectors (TEI)")
async def embed(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> Response:
    """A vector for each text."""
    call = Call(request=request, principal=principal, serving=serving, request_id=request_id, route="/embed")
    body = await read_body(request, EmbedBody)
    asked = EmbeddingRequest(
        texts=texts_of(body.inputs), is_normalised=body.normalize, prompt_name=body.prompt_name,
        dimensions=body.dimensions, truncate=body.cut,
    )  # fmt: skip
    ran = await call.run(Embedding(), asked, call.default_model(body.model, TaskName.EMBEDDING))
    return ran.answer([one.vector for one in ran.results])


@router.post("/predict", openapi_extra=body_schema(PredictBody), summary="Label texts or pairs (TEI)")
async def predict(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> Response:
    """Labels of one text or pair; a list of them for a batch."""
    call = Call(request=request, principal=principal, serving=serving, request_id=request_id, route="/predict")
    body = await read_body(request, PredictBody)
    asked = ClassificationRequest(
        texts=pairs_of(body.inputs), function=ScoreFunction.NONE if body.raw_scores else None, truncate=body.cut
    )
    ran = await call.run(Classification(), asked, call.default_model(body.model, TaskName.CLASSIFICATION))
    shown = [prediction_json(one) for one in ran.results]
    return ran.answer(shown if isinstance(body.inputs[0], list) else shown[0])


@router.post("/rerank", openapi_extra=body_schema(RerankBody), summary="Rank texts by a query (TEI)")
async def rerank(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> Response:
    """The texts' places and scores, best first."""
    call = Call(request=request, principal=principal, serving=serving, request_id=request_id, route="/rerank")
    body = await read_body(request, RerankBody)
    asked = RankingRequest(query=body.query, texts=tuple(body.texts), is_raw=body.raw_scores, truncate=body.cut)
    ran = await call.run(Ranking(), asked, call.default_model(body.model, TaskName.RANKING))
    shown: list[dict[str, Any]] = [
        {"index": one.index, "score": one.score} | ({"text": body.texts[one.index]} if body.return_text else {})
        for one in sorted(ran.results, key=lambda one: -one.score)
    ]
    return ran.answer(shown)


@router.post("/similarity", openapi_extra=body_schema(SimilarityBody), summary="Compare texts (TEI)")
async def similarity(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> Response:
    """The cosine of each sentence with the source."""
    call = Call(request=request, principal=principal, serving=serving, request_id=request_id, route="/similarity")
    body = await read_body(request, SimilarityBody)
    asked, found = body.parameters, body.inputs
    cut = Truncate.ERROR if asked.truncate is False else Truncate(asked.truncation_direction.lower())
    compared = SimilarityRequest(
        source=found.source_sentence, texts=tuple(found.sentences), prompt_name=asked.prompt_name, truncate=cut
    )
    ran = await call.run(Similarity(), compared, call.default_model(body.model, TaskName.SIMILARITY))
    return ran.answer([one.score for one in ran.results])


@router.post("/tokenize", openapi_extra=body_schema(TokenizeBody), summary="Token ids of texts (TEI, TGI; vLLM)")
async def tokenize(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> Any:
    """Tokens with their places; nothing runs and nothing is charged. With `prompt` or `messages`, as vLLM has it."""
    found = await read_object(request)
    if "inputs" not in found and ("prompt" in found or "messages" in found):
        return await tokenizer.tokenized(request, model_of(request, found, tokenizer.TokenizeBody), serving, principal)
    call = Call(request=request, principal=principal, serving=serving, request_id=request_id, route="/tokenize")
    return await tokens_json(call, model_of(request, found, TokenizeBody))


@router.post("/decode", openapi_extra=body_schema(DecodeBody), summary="Token ids as text (TEI)")
async def decode(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> list[str]:
    """Texts; nothing runs and nothing is charged."""
    call = Call(request=request, principal=principal, serving=serving, request_id=request_id, route="/decode")
    body = await read_body(request, DecodeBody)
    rows = cast("list[list[int]]", body.ids if isinstance(body.ids[0], list) else [body.ids])
    model = call.default_model(body.model, TaskName.EMBEDDING, TaskName.CLASSIFICATION)
    principal.require(task=serving.residency.find(model).model.tasks[0].value, model=model)
    async with serving.residency.lease(model) as resident:
        for row in rows:
            if row and not (min(row) >= 0 and max(row) < resident.tokenizer.size):
                raise InvalidRequest(f"ids go from 0 to {resident.tokenizer.size - 1}", field="ids")
        return [resident.tokenizer.decode(row, keeps_special=not body.skip_special_tokens) for row in rows]

"""POST /v1/embeddings: texts or token ids in, vectors out, as numbers or as base64 of little-endian fp32."""

import base64
import struct
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.api.body import read_body
from app.api.context import Caller, RequestId, Rooms
from app.api.disconnect import unless_hung_up
from app.api.document import body_schema
from app.api.folding import folded
from app.api.native import TRUNCATE
from app.api.numbers import numbers_response
from app.api.openai.envelope import cost_json, model_of
from app.api.receipts import cost_headers
from app.registry.model import TaskName
from app.tasks.embedding import Embedded, Embedding, EmbeddingRequest, Text
from app.text.truncation import Truncate

ROUTE = "/v1/embeddings"
INPUTS_MAX = 2048
Ids = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Many = Annotated[list[str] | list[Ids], Field(min_length=1, max_length=INPUTS_MAX)]


class EmbeddingBody(BaseModel):
    """Texts to turn into vectors. Fields that are not named here are ignored, as OpenAI's clients expect."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"examples": [{"model": "starter-vectors", "input": "a red bicycle"}]}
    )

    model: str = Field(description="Which model; GET /v1/models lists them.")
    input: str | Ids | Many = Field(description="A text, token ids of this model's tokenizer, or a list of either.")
    encoding_format: Literal["float", "base64"] | None = Field(
        default="float", description="base64 is that of little-endian fp32 numbers."
    )
    dimensions: int | None = Field(default=None, ge=1, description="Keep so many of each vector's first numbers.")
    user: str | None = Field(default=None, description="Accepted and not kept.")
    truncate: Truncate = TRUNCATE


def texts_of(value: str | list[Any]) -> tuple[Text, ...]:
    """The four forms of an input as one."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value[0], int):
        return (tuple(value),)
    return tuple(one if isinstance(one, str) else tuple(one) for one in value)


def vector_json(vector: tuple[float, ...], encoding_format: str | None) -> list[float] | str:
    """A vector on the wire."""
    if encoding_format != "base64":
        return list(vector)
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


router = APIRouter(prefix="/v1", tags=["openai"])


@router.post("/embeddings", openapi_extra=body_schema(EmbeddingBody), summary="Turn texts into vectors")
async def embeddings(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> Response:
    """One vector a text, in the order of the inputs."""
    body = await read_body(request, EmbeddingBody)
    model = model_of(request, body.model, TaskName.EMBEDDING, serving=serving, principal=principal)
    asked = EmbeddingRequest(texts=texts_of(body.input), dimensions=body.dimensions, truncate=body.truncate)
    work = folded(
        serving, Embedding(), asked, model=model, principal=principal, request_id=request_id, route=ROUTE
    )  # fmt: skip
    found, receipt = await unless_hung_up(request, work)
    results: list[Embedded] = found
    data = [
        {"object": "embedding", "index": one.index, "embedding": vector_json(one.vector, body.encoding_format)}
        for one in results
    ]
    usage = {"prompt_tokens": receipt.input_tokens, "total_tokens": receipt.input_tokens} | cost_json(receipt)
    answer = {"object": "list", "model": model, "data": data, "usage": usage}
    return numbers_response(answer, cost_headers(receipt))

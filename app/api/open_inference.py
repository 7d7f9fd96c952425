"""The Open Inference Protocol, version 2 (KServe, Triton), as tritonclient speaks it over HTTP.

Texts go in as BYTES; what comes out follows the model's task. /v2/translate, /usage and /languages are DeepL's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from app import __version__
from app.api.body import model_of
from app.api.context import Caller, RequestId, Rooms
from app.api.dialect import route_in
from app.api.disconnect import unless_hung_up
from app.api.document import body_schema
from app.api.errors import answer_of
from app.api.folding import folded
from app.api.models import may_use
from app.api.receipts import cost_headers
from app.api.tensors import InferBody, Tensor, answer_with, read_parts, texts_of, wanted_of
from app.engine.jobs import Sampling
from app.errors import InvalidRequest, ModelLoading, ModelNotFound, TaskMismatch, TollgateError
from app.registry.model import Model, TaskName
from app.registry.residency import Place, State
from app.serving import Serving
from app.tasks.answering import Answering, AnsweringRequest
from app.tasks.classification import Classification, ClassificationRequest
from app.tasks.embedding import Embedding, EmbeddingRequest
from app.tasks.generation import Generation, GenerationRequest, TextDelta
from app.tasks.task import Task
from app.tasks.translation import Translation, TranslationRequest
from app.text.truncation import Truncate

Texts = dict[str, tuple[str, ...]]
VERSION = "1"


class Parameters(BaseModel):
    """What a request may set; what is not named here is ignored."""

    model_config = ConfigDict(extra="ignore")

    truncate: Truncate = Truncate.ERROR
    timeout: int | None = Field(default=None, ge=1, le=10**12, description="Microseconds.")
    binary_data_output: bool = False
    max_tokens: int = Field(default=16, ge=1, le=10**6)
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, le=10**6)
    seed: int | None = Field(default=None, ge=0, lt=2**63)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A task as tensors: the names and types of what goes in and comes out, and the way between."""

    task: Task[Any, Any, Any]
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, str], ...]
    ask: Callable[[Texts, Parameters], Any]
    tell: Callable[[Sequence[Any]], list[Tensor]]


def column(name: str, datatype: str, values: Sequence[Any]) -> Tensor:
    """One element a row."""
    return Tensor(name=name, datatype=datatype, shape=(len(values),), values=values)


def table(name: str, datatype: str, rows: Sequence[Sequence[Any]]) -> Tensor:
    """Several elements a row, as many in each."""
    values = [value for row in rows for value in row]
    return Tensor(name=name, datatype=datatype, shape=(len(rows), len(rows[0])), values=values)


def tell_labels(found: Sequence[Any]) -> list[Tensor]:
    """The best label of each text, and all of them, best first."""
    return [
        column("label", "BYTES", [one.labels[0].name for one in found]),
        column("score", "FP32", [one.labels[0].score for one in found]),
        table("labels", "BYTES", [[label.name for label in one.labels] for one in found]),
        table("scores", "FP32", [[label.score for label in one.labels] for one in found]),
    ]


def tell_answers(found: Sequence[Any]) -> list[Tensor]:
    """The best span of each question; an empty one, with the score of that, when the context does not say."""
    spans = [one.spans[0] if one.spans else None for one in found]
    scores = [one.no_answer_score if span is None else span.score for one, span in zip(found, spans, strict=True)]
    return [
        column("answer", "BYTES", ["" if span is None else span.text for span in spans]),
        column("score", "FP32", scores),
        column("start", "INT64", [0 if span is None else span.start for span in spans]),
        column("end", "INT64", [0 if span is None else span.end for span in spans]),
    ]


def tell_texts(found: Sequence[Any]) -> list[Tensor]:
    """The new text of each prompt, and why it ends."""
    count = 1 + max(one.index for one in found)
    texts, reasons = [""] * count, [""] * count
    for one in found:
        if isinstance(one, TextDelta):
            texts[one.index] += one.text
        else:
            reasons[one.index] = one.reason.value
    return [column("text", "BYTES", texts), column("finish_reason", "BYTES", reasons)]


def ask_generation(texts: Texts, asked: Parameters) -> GenerationRequest:
    """Prompts."""
    sampling = Sampling(temperature=asked.temperature, top_p=asked.top_p, top_k=asked.top_k, seed=asked.seed)
    return GenerationRequest(
        prompts=texts["text"], output_tokens_max=asked.max_tokens, sampling=sampling, truncate=asked.truncate
    )


FORMS = {
    TaskName.GENERATION: Form(
        task=Generation(), inputs=("text",), outputs=(("text", "BYTES"), ("finish_reason", "BYTES")),
        ask=ask_generation, tell=tell_texts,
    ),
    TaskName.CLASSIFICATION: Form(
        task=Classification(), inputs=("text",),
        outputs=(("label", "BYTES"), ("score", "FP32"), ("labels", "BYTES"), ("scores", "FP32")),
        ask=lambda texts, asked: ClassificationRequest(texts=texts["text"], truncate=asked.truncate), tell=tell_labels,
    ),
    TaskName.TRANSLATION: Form(
        task=Translation(), inputs=("text",), outputs=(("text", "BYTES"),),
        ask=lambda texts, asked: TranslationRequest(texts=texts["text"], truncate=asked.truncate),
        tell=lambda found: [column("text", "BYTES", [one.text for one in found])],
    ),
    TaskName.ANSWERING: Form(
        task=Answering(), inputs=("question", "context"),
        outputs=(("answer", "BYTES"), ("score", "FP32"), ("start", "INT64"), ("end", "INT64")),
        ask=lambda texts, asked: AnsweringRequest(
            questions=texts["question"], contexts=texts["context"], truncate=asked.truncate
        ),
        tell=tell_answers,
    ),
    TaskName.EMBEDDING: Form(
        task=Embedding(), inputs=("text",), outputs=(("embedding", "FP32"),),
        ask=lambda texts, asked: EmbeddingRequest(texts=texts["text"], truncate=asked.truncate),
        tell=lambda found: [table("embedding", "FP32", [one.vector for one in found])],
    ),
}  # fmt: skip
ROWS_OF_SEVERAL = frozenset({"labels", "scores", "embedding"})


def refusal(error: TollgateError) -> JSONResponse:
    """The protocol's envelope."""
    answer = answer_of(error)
    found = answer.body["error"]
    return JSONResponse({"error": found["message"], "code": found["code"]}, answer.status, answer.headers)


def form_of(model: Model) -> Form:
    """How the model's task is told in tensors. Raises TaskMismatch."""
    for task in model.tasks:
        if task in FORMS:
            return FORMS[task]
    raise TaskMismatch(
        f"{model.tasks[0].value} has no form in tensors here; GET /docs lists its routes.", field="model"
    )


def place_of(serving: Serving, principal: Any, model_id: str) -> Place:
    """A model that this key may use. Raises ModelNotFound."""
    place = serving.residency.find(model_id)
    if not may_use(principal, place):
        raise ModelNotFound(f"There is no model {model_id[:200]!r}; GET /v1/models lists them.", field="model")
    return place


def metadata(place: Place) -> dict[str, Any]:
    """What goes in and comes out."""
    form = form_of(place.model)
    return {
        "name": place.model.id,
        "versions": [VERSION],
        "platform": f"tollgate_{place.model.family}",
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in form.inputs],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1, -1] if name in ROWS_OF_SEVERAL else [-1]}
            for name, datatype in form.outputs
        ],
    }


router = APIRouter(prefix="/v2", tags=["open inference"], route_class=route_in(refusal))


@router.get("", summary="Open Inference: the server")
async def server_metadata() -> dict[str, Any]:
    """Name, version and extensions of the protocol; no key is needed."""
    return {"name": "tollgate", "version": __version__, "extensions": ["binary_tensor_data", "model_repository"]}


@router.get("/health/live", summary="Open Inference: alive")
async def live() -> dict[str, bool]:
    """As /livez; no key is needed."""
    return {"live": True}


@router.get("/health/ready", summary="Open Inference: ready", responses={503: {"description": "Not now."}})
async def ready(serving: Rooms) -> JSONResponse:
    """As /readyz; no key is needed."""
    reason = serving.reason_unready
    return JSONResponse({"ready": reason is None}, 200 if reason is None else 503)


@router.post("/repository/index", summary="Open Inference: models")
async def index(principal: Caller, serving: Rooms) -> list[dict[str, str]]:
    """Every model that this key may use, and whether it is in memory."""
    return [
        {"name": place.model.id, "version": VERSION, "state": state_of(place), "reason": ""}
        for place in serving.residency.places
        if may_use(principal, place)
    ]


def state_of(place: Place) -> str:
    """Triton's word. A model that is not in memory is loaded by its first request."""
    return "READY" if place.state is State.RESIDENT else "UNAVAILABLE"


@router.get("/models/{model_id:path}", summary="Open Inference: a model, or whether it is ready")
async def show(model_id: str, principal: Caller, serving: Rooms) -> JSONResponse:
    """`/v2/models/{id}` tells its inputs and outputs; `/v2/models/{id}/ready` whether it is in memory."""
    bare = model_id.removesuffix("/ready")
    place = place_of(serving, principal, unversioned(bare))
    if bare == model_id:
        return JSONResponse(metadata(place))
    if place.state is not State.RESIDENT:
        raise ModelLoading(f"The model {place.model.id} is not in memory; its first request loads it.")
    return JSONResponse({"name": place.model.id, "ready": True})


def unversioned(model_id: str) -> str:
    """Without `/versions/1`. Raises ModelNotFound for another version."""
    name, mark, version = model_id.rpartition("/versions/")
    if mark and version != VERSION:
        raise ModelNotFound(f"There is only version {VERSION} of a model.", field="model")
    return name if mark else model_id


@router.post(
    "/models/{model_id:path}/infer", openapi_extra=body_schema(InferBody),
    responses={200: {"content": {"application/octet-stream": {}}}}, summary="Open Inference: infer",
)  # fmt: skip
async def infer(request: Request, model_id: str, principal: Caller, serving: Rooms, request_id: RequestId) -> Response:
    """Texts through the model: outputs as JSON, or as bytes behind it where they are asked for so."""
    place = place_of(serving, principal, unversioned(model_id))
    form = form_of(place.model)
    sent, behind = await read_parts(request)
    body = model_of(request, sent, InferBody)
    ignored: tuple[str, ...] = request.state.ignored_fields
    asked = model_of(request, body.parameters, Parameters)
    request.state.ignored_fields = (*ignored, *(f"parameters.{name}" for name in request.state.ignored_fields))
    if asked.timeout is not None and (run := serving.runs.find(request_id)) is not None:
        run.timeout_s = min(asked.timeout / 1e6, run.timeout_s or float("inf"))
    names = {name for name, _ in form.outputs}
    if any(one.name not in names for one in body.outputs):
        raise InvalidRequest(f"this model's outputs are {', '.join(sorted(names))}", field="outputs")
    texts = texts_of(body.inputs, form.inputs, behind)
    work = folded(
        serving, form.task, form.ask(texts, asked), model=place.model.id, principal=principal, request_id=request_id,
        route="/v2/models/{id}/infer",
    )  # fmt: skip
    found, receipt = await unless_hung_up(request, work)
    head: dict[str, Any] = {"model_name": place.model.id, "model_version": VERSION, "id": body.id or request_id}
    return answer_with(head, wanted_of(body, form.tell(found)), cost_headers(receipt))

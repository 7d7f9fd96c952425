"""The hub's task routes, as InferenceClient calls them: POST /models/{id} for what the model does first, and
/models/{id}/pipeline/{task} or /pipeline/{task}/{id} for what it does besides.

A text gives one answer, a list of texts a list of them, each what its text would have given alone.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.responses import Response

from app.api.body import read_body
from app.api.conduct import is_strict, note_ignored
from app.api.context import Caller, RequestId, Rooms
from app.api.dialect import route_in
from app.api.document import body_schema
from app.api.huggingface import parameters as wire
from app.api.huggingface import tgi
from app.api.huggingface.envelope import Call, refusal
from app.api.huggingface.parameters import TaskBody
from app.api.huggingface.tgi_bodies import CompatBody, Parameters
from app.api.stream import STREAMED
from app.errors import DeadlineExceeded, InvalidRequest, ModelLoading, NotFound, TaskMismatch
from app.registry.model import Model, TaskName
from app.registry.residency import State
from app.tasks.answering import Answered, Answering
from app.tasks.classification import Classification, Label
from app.tasks.embedding import Embedding
from app.tasks.entities import Aggregation, Entity
from app.tasks.ranking import Similarity
from app.tasks.tagging import Tagging
from app.tasks.translation import Translation
from app.tasks.unmasking import Guess, Unmasking
from app.tasks.zero_shot import Chosen, ZeroShot

ALIASES = {"ner": TaskName.TAGGING, "sentiment-analysis": TaskName.CLASSIFICATION}
NEWER_ZERO_SHOT = (1, 2)
"""From this huggingface_hub on, zero-shot answers are lists of labels; before, one object with parallel lists."""


def named(task: str) -> TaskName:
    """The task of that name. Raises NotFound naming those that there are."""
    found = "translation" if task.startswith("translation_") else task
    if found in ALIASES:
        return ALIASES[found]
    if found not in set(TaskName):
        raise NotFound(f"There is no task {task[:60]!r} here; there are {', '.join(TaskName)}.")
    return TaskName(found)


def task_of(model: Model, body: TaskBody) -> TaskName:
    """What is asked of a model that may do several things, by what the body holds."""
    first = model.tasks[0]
    if isinstance(body.inputs, dict) and "source_sentence" in body.inputs:
        return TaskName.SIMILARITY
    if "candidate_labels" in body.asked:
        return TaskName.ZERO_SHOT
    return TaskName.CLASSIFICATION if first in (TaskName.ZERO_SHOT, TaskName.RANKING) else first


def labels_json(labels: tuple[Label, ...]) -> list[dict[str, Any]]:
    return [{"label": label.name, "score": label.score} for label in labels]


def entity_json(entity: Entity, aggregation: Aggregation) -> dict[str, Any]:
    """An entity, or a labelled token with its place among the tokens."""
    shown: dict[str, Any] = {
        "score": entity.score, "word": entity.word, "start": entity.start, "end": entity.end,
    }  # fmt: skip
    if aggregation is Aggregation.NONE:
        return {"entity": entity.label, "index": entity.index} | shown
    return {"entity_group": entity.label} | shown


def guess_json(guess: Guess) -> dict[str, Any]:
    return {
        "score": guess.score, "token": guess.token_id, "token_str": guess.token, "sequence": guess.sequence,
    }  # fmt: skip


def answered_json(found: Answered, count: int) -> dict[str, Any] | list[dict[str, Any]]:
    """One answer, or a list when several are asked for. None is an answer without text."""
    spans = [{"answer": s.text, "score": s.score, "start": s.start, "end": s.end} for s in found.spans]
    spans = spans or [{"answer": "", "score": found.no_answer_score, "start": 0, "end": 0}]
    return spans[0] if count == 1 else spans


def chosen_json(found: Chosen, *, is_newer: bool) -> Any:
    """Labels in the form that the client's version reads."""
    if is_newer:
        return labels_json(found.labels)
    names, scores = [label.name for label in found.labels], [label.score for label in found.labels]
    return {"sequence": found.text, "labels": names, "scores": scores}


def reads_newer_zero_shot(user_agent: str) -> bool:
    """Whether the client is no huggingface_hub before 1.2."""
    found = re.search(r"hf_hub/(\d+)\.(\d+)", user_agent)
    return found is None or (int(found[1]), int(found[2])) >= NEWER_ZERO_SHOT


async def classify(call: Call, model: str, body: TaskBody) -> Response:
    request, asked = wire.classification(body)
    ran = await call.run(Classification(), request, model)
    return ran.answer([labels_json(one.labels[: asked.top_k]) for one in ran.results])


async def choose(call: Call, model: str, body: TaskBody) -> Response:
    ran = await call.run(ZeroShot(), wire.zero_shot(body), model)
    is_newer = reads_newer_zero_shot(call.request.headers.get("user-agent", ""))
    shown = [chosen_json(one, is_newer=is_newer) for one in ran.results]
    return ran.answer(shown if body.is_list else shown[0])


async def translate(call: Call, model: str, body: TaskBody) -> Response:
    request, asked = wire.translation(body)
    languages = call.serving.residency.find(model).model.languages
    for name, wanted, has in (
        ("src_lang", asked.src_lang, languages and languages.source),
        ("tgt_lang", asked.tgt_lang, languages and languages.target),
    ):
        if wanted is not None and re.split("[-_]", wanted.lower())[0] != has:
            raise InvalidRequest(f"{name} is {wanted[:20]!r}, and {model} has {has!r} there", field=name)
    ran = await call.run(Translation(), request, model)
    return ran.answer([{"translation_text": one.text, "truncated": one.is_truncated} for one in ran.results])


async def answer(call: Call, model: str, body: TaskBody) -> Response:
    request, asked = wire.answering(body)
    ran = await call.run(Answering(), request, model)
    shown = [answered_json(one, asked.top_k) for one in ran.results]
    return ran.answer(shown if body.is_list else shown[0])


async def unmask(call: Call, model: str, body: TaskBody) -> Response:
    ran = await call.run(Unmasking(), wire.unmasking(body), model)
    shown: list[Any] = []
    for one in ran.results:
        found = [[guess_json(guess) for guess in guesses] for guesses in one.places]
        shown.append(found[0] if len(found) == 1 else found)
    replaced: tuple[tuple[str, str], ...] = getattr(ran.prepared, "replaced", ())
    told = "; ".join(f"{target!r} is no token, {piece!r} stands for it" for target, piece in replaced[:5])
    more = {"x-hf-warning": f"targets; {told}".encode("ascii", "replace").decode()} if told else {}
    return ran.answer(shown if body.is_list else shown[0], **more)


async def tag(call: Call, model: str, body: TaskBody) -> Response:
    request = wire.tagging(body)
    ran = await call.run(Tagging(), request, model)
    shown = [[entity_json(entity, request.aggregation) for entity in one.entities] for one in ran.results]
    return ran.answer(shown if body.is_list else shown[0])


async def embed(call: Call, model: str, body: TaskBody) -> Response:
    ran = await call.run(Embedding(), wire.embedding(body), model)
    return ran.answer([one.vector for one in ran.results])


async def compare(call: Call, model: str, body: TaskBody) -> Response:
    ran = await call.run(Similarity(), wire.similarity(body), model)
    return ran.answer([one.score for one in ran.results])


async def generate(call: Call, model: str, body: TaskBody) -> Response:
    asked = {"inputs": body.inputs, "parameters": body.parameters or {}, "stream": body.stream}
    return await tgi.compat(call, model, wire.read(CompatBody, asked, "body"))


RUNNERS: dict[TaskName, Callable[[Call, str, TaskBody], Awaitable[Response]]] = {
    TaskName.GENERATION: generate, TaskName.CLASSIFICATION: classify, TaskName.ZERO_SHOT: choose,
    TaskName.TRANSLATION: translate, TaskName.ANSWERING: answer, TaskName.UNMASKING: unmask, TaskName.TAGGING: tag,
    TaskName.EMBEDDING: embed, TaskName.SIMILARITY: compare,
}  # fmt: skip


PARAMETERS: dict[TaskName, type[BaseModel]] = {
    TaskName.GENERATION: Parameters, TaskName.CLASSIFICATION: wire.ClassificationParameters,
    TaskName.ZERO_SHOT: wire.ZeroShotParameters, TaskName.TRANSLATION: wire.TranslationParameters,
    TaskName.ANSWERING: wire.AnsweringParameters, TaskName.UNMASKING: wire.UnmaskingParameters,
    TaskName.TAGGING: wire.TaggingParameters, TaskName.EMBEDDING: wire.EmbeddingParameters,
    TaskName.SIMILARITY: wire.Lenient,
}  # fmt: skip


def tell_ignored(call: Call, body: TaskBody, task: TaskName) -> None:
    """Have the answer name the parameters that the task does not have. Raises InvalidRequest if `strict` was asked."""
    known = PARAMETERS[task].model_fields
    names = [name for name in body.model_extra or {} if name not in known and name != "strict"]
    names += [f"parameters.{name}" for name in body.parameters or {} if name not in known]
    note_ignored(call.request, names, refuses=is_strict(call.request, body.model_extra or {}))


async def wait_until_loaded(call: Call, model: str) -> None:
    """For clients that would rather wait than be told to come again."""
    try:
        async with asyncio.timeout(call.request.app.state.settings.api.request_timeout_s):
            while True:
                try:
                    async with call.serving.residency.lease(model):
                        return
                except ModelLoading:
                    continue
    except TimeoutError as cause:
        raise DeadlineExceeded from cause


async def run(call: Call, model_id: str, task_name: str | None) -> Response:
    """The task that the path names, or that the body asks for. Raises TaskMismatch naming what the model does."""
    body = await read_body(call.request, TaskBody)
    model = call.serving.residency.find(model_id).model
    task = task_of(model, body) if task_name is None else named(task_name)
    if task not in model.tasks or task not in RUNNERS:
        does = ", ".join(found for found in model.tasks if found in RUNNERS)
        raise TaskMismatch(f"The model {model_id} does {does}, not {task.value}.", field="model")
    call.principal.require(task=task.value, model=model_id)
    tell_ignored(call, body, task)
    if body.options.wait_for_model or call.request.headers.get("x-wait-for-model", "").lower() in ("1", "true"):
        await wait_until_loaded(call, model_id)
    return await RUNNERS[task](call, model_id, body)


router = APIRouter(tags=["huggingface"], route_class=route_in(refusal))


@router.get("/models/{model_id:path}/info", summary="Describe a model (hub)")
async def info(model_id: str, principal: Caller, serving: Rooms) -> dict[str, Any]:
    """What TGI's and TEI's /info tell, of this model."""
    place = serving.residency.find(model_id)
    principal.require(task=place.model.tasks[0].value, model=model_id)
    return tgi.info_json(place)


@router.get("/models/{model_id:path}/health", summary="Can the model answer (hub)")
async def health(model_id: str, serving: Rooms) -> JSONResponse:
    """200 when the model is in memory, or is loaded by whoever asks first; else 503."""
    place = serving.residency.find(model_id)
    is_well = serving.reason_unready is None and place.state in (State.RESIDENT, State.ABSENT)
    return JSONResponse({"state": place.state.value}, 200 if is_well else 503)


@router.post(
    "/models/{model_id:path}/pipeline/{task}",
    openapi_extra=body_schema(TaskBody),
    responses=STREAMED,
    summary="Run a task (hub)",
)
async def run_task(
    model_id: str, task: str, request: Request, principal: Caller, serving: Rooms, request_id: RequestId
) -> Response:
    """One of the tasks that the model does."""
    call = Call(request=request, principal=principal, serving=serving, request_id=request_id, route="/models/pipeline")
    return await run(call, model_id, task)


@router.post(
    "/pipeline/{task}/{model_id:path}",
    openapi_extra=body_schema(TaskBody),
    responses=STREAMED,
    summary="Run a task (hub)",
)
async def run_pipeline(
    model_id: str, task: str, request: Request, principal: Caller, serving: Rooms, request_id: RequestId
) -> Response:
    """The same, in the older order."""
    call = Call(request=request, principal=principal, serving=serving, request_id=request_id, route="/pipeline")
    return await run(call, model_id, task)


@router.post(
    "/models/{model_id:path}",
    openapi_extra=body_schema(TaskBody),
    responses=STREAMED,
    summary="Run a model's own task (hub)",
)
async def run_model(
    model_id: str, request: Request, principal: Caller, serving: Rooms, request_id: RequestId
) -> Response:
    """What the model does first; zero-shot and similarity are known by their bodies."""
    call = Call(request=request, principal=principal, serving=serving, request_id=request_id, route="/models")
    return await run(call, model_id, None)

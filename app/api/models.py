"""GET /v1/models: what a key may use, in OpenAI's shape with what is true of each model."""

import time
from typing import Any

from fastapi import APIRouter

from app.admission.authenticate import Principal
from app.api.context import Caller, Rooms
from app.errors import ModelNotFound, NotAllowed
from app.registry.model import FolderSource, HubSource, Model, PackageSource
from app.registry.residency import Place

CREATED = int(time.time())
"""OpenAI's field has no better meaning here than when this server began to offer its models."""

router = APIRouter(prefix="/v1", tags=["models"])


def model_json(place: Place) -> dict[str, Any]:
    """A model on the wire."""
    model, resident = place.model, place.resident
    languages = model.languages
    return {
        "id": model.id,
        "object": "model",
        "created": CREATED,
        "owned_by": "tollgate",
        "root": model.id,
        "parent": None,
        "permission": [],
        "task": model.tasks[0].value,
        "tasks": [task.value for task in model.tasks],
        "status": place.state.value,
        "revision": revision_of(model),
        "dtype": model.precision.value if resident is None else resident.loaded.precision.value,
        "device": None if resident is None else resident.loaded.device,
        "state": place.state.value,
        "description": model.description,
        "licence": model.licence,
        "max_model_len": None if resident is None else resident.loaded.positions_max,
        "labels": list(resident.labels if resident is not None and model.family == "bert" else model.labels),
        "languages": None if languages is None else {"source": languages.source, "target": languages.target},
    }


def revision_of(model: Model) -> str | None:
    """What pins the model's files: the hub's commit, a package's version, or the first file's hash."""
    match model.source:
        case HubSource(revision=revision):
            return revision
        case PackageSource(distribution=distribution):
            return distribution
        case FolderSource():
            return f"sha256:{model.files[0].sha256}" if model.files else None


def may_use(principal: Principal, place: Place) -> bool:
    """Whether the key's scopes allow the model."""
    try:
        principal.require(task=place.model.tasks[0].value, model=place.model.id)
    except NotAllowed:
        return False
    return True


@router.get("/models", summary="List models")
async def list_models(principal: Caller, serving: Rooms) -> dict[str, Any]:
    """Every model that this key may use."""
    shown = [model_json(place) for place in serving.residency.places if may_use(principal, place)]
    return {"object": "list", "data": shown}


@router.get("/models/{model_id:path}", summary="Describe a model")
async def show_model(model_id: str, principal: Caller, serving: Rooms) -> dict[str, Any]:
    """One model."""
    place = serving.residency.find(model_id)
    if not may_use(principal, place):
        raise ModelNotFound(f"There is no model {model_id[:200]!r}; GET /v1/models lists them.", field="model")
    return model_json(place)

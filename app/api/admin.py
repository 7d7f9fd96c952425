"""The operator's routes: models in and out of memory, and the nouns that have a file each. They need an admin key."""

from typing import Any

from fastapi import APIRouter

from app.api.admin_acting import Acts
from app.api.context import Rooms
from app.api.models import model_json
from app.errors import ModelUnavailable, OperatorError
from app.registry.residency import Place

router = APIRouter(prefix="/admin", tags=["admin"])


def place_json(place: Place) -> dict[str, Any]:
    """A model as the operator sees it."""
    resident = place.resident
    return model_json(place) | {
        "memory_bytes": 0 if resident is None else resident.loaded.memory_bytes,
        "precision": None if resident is None else resident.loaded.precision.value,
        "device": None if resident is None else resident.loaded.device,
        "requests": place.users,
        "pinned": place.model.is_pinned,
        "error": place.error,
    }


@router.get("/models", summary="List models with their state")
async def list_models(acts: Acts, serving: Rooms) -> dict[str, Any]:
    """Every enabled model, with memory, precision and the reason why it could not be loaded."""
    acts.operator.require("model.read")
    return {"object": "list", "data": [place_json(place) for place in serving.residency.places]}


@router.post("/models/{model_id:path}/load", summary="Load a model")
async def load(model_id: str, acts: Acts, serving: Rooms) -> dict[str, Any]:
    """Bring a model into memory; returns when it is there. What stands in the way is the operator's to read."""
    await acts.note("model.load", serving.residency.find(model_id).model.id, {"model": model_id})
    try:
        await serving.residency.load(model_id)
    except OperatorError as error:
        raise ModelUnavailable(f"The model {model_id} could not be loaded: {error.message}") from error
    return place_json(serving.residency.find(model_id))


@router.post("/models/{model_id:path}/unload", summary="Unload a model")
async def unload(model_id: str, acts: Acts, serving: Rooms) -> dict[str, Any]:
    """Let a model go when its requests are done."""
    await acts.note("model.unload", serving.residency.find(model_id).model.id, {"model": model_id})
    await serving.residency.unload(model_id)
    return place_json(serving.residency.find(model_id))

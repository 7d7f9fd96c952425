"""Names that stand for a model: none at all, or what clients send that only know an address (`tgi`, `dummy`)."""

from app.admission.authenticate import Principal
from app.errors import ModelNotFound, NotAllowed
from app.registry.model import TaskName
from app.registry.residency import Residency


def model_named(
    name: str | None, task: TaskName, *, residency: Residency, principal: Principal, aliases: frozenset[str]
) -> str:
    """The id of the model that is meant: `name` itself, or for an alias or None the default model for `task`.

    That is the first in the catalogue that does it and that this key may use. A model of that very id goes before.
    Raises ModelNotFound when there is none.
    """
    ids = {place.model.id for place in residency.places}
    if name is not None and (name in ids or name not in aliases):
        return name
    for place in residency.places:
        if task in place.model.tasks and may_use(principal, task, place.model.id):
            return place.model.id
    raise ModelNotFound(f"There is no model for {task.value}; GET /v1/models lists what there is.", field="model")


def may_use(principal: Principal, task: TaskName, model: str) -> bool:
    """Whether the key's scopes allow it."""
    try:
        principal.require(task=task.value, model=model)
    except NotAllowed:
        return False
    return True

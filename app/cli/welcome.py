"""What `make serve` prints when the server is ready: a key, and a call to paste for each task."""

import json
from typing import Any

import typer

from app.clock import SystemClock
from app.metering.acts import Operator
from app.metering.database import Database
from app.metering.keys import Pepper, list_keys
from app.registry.model import TaskName
from app.registry.residency import Place, State
from app.settings import Settings

EXAMPLES: dict[TaskName, tuple[str, dict[str, Any]]] = {
    TaskName.GENERATION: ("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 60, "stream": True}),
    TaskName.CLASSIFICATION: ("/v1/classifications", {"input": "What a lovely evening, we will come back!"}),
    TaskName.TRANSLATION: ("/v1/translations", {"input": "Where is the nearest train station?"}),
    TaskName.ANSWERING: (
        "/v1/answers",
        {
            "question": "Where are results cached?",
            "context": "The server batches requests and caches results in Redis, while PostgreSQL holds the ledger.",
        },
    ),
}


async def welcome(state: Any, settings: Settings) -> None:
    """Print it, once the models are loaded. `state` is the application's."""
    key = await first_key(settings)
    host = "127.0.0.1" if settings.api.host in ("0.0.0.0", "::") else settings.api.host  # nosec B104
    typer.echo(text(state.serving.residency.places, key, f"http://{host}:{settings.api.port}"))


async def first_key(settings: Settings) -> str | None:
    """A key for whoever set this up, made when there is none yet. It is shown this once."""
    database = Database(home=settings.home, url=settings.metering.opened_url)
    await database.open()
    try:
        if any(record.revoked_us is None for record in await database.run(list_keys)):
            return None
        by = Operator(actor="serve --welcome", clock=SystemClock(), pepper=Pepper(settings.home))
        made = await database.run(lambda connection: by.create_key(connection, tenant_name="me", name="first"))
        return made.key
    finally:
        await database.close()


def text(places: list[Place], key: str | None, url: str) -> str:
    """The whole greeting."""
    lines = ["", f"Tollgate is ready at {url}  (its routes: {url}/docs)", ""]
    if key is not None:
        lines += ["Your key, shown this once (it is stored as a digest):", "", f"  export TOLLGATE_API_KEY={key}", ""]
    else:
        lines += [
            "Use the key that you have, or make another one:", "",
            "  export TOLLGATE_API_KEY=$(.venv/bin/tollgate keys create --tenant me --name another)", "",
        ]  # fmt: skip
    resident = [place.model for place in places if place.state is State.RESIDENT]
    for task, (path, body) in EXAMPLES.items():
        model = next((model for model in resident if task in model.tasks), None)
        if model is None:
            lines += [f"# {task.value}: no model is loaded (.venv/bin/tollgate models list)", ""]
            continue
        sent = json.dumps({"model": model.id, **body})
        lines += [
            f"# {task.value}", f"curl {'-N ' if body.get('stream') else ''}{url}{path} \\",
            '  -H "Authorization: Bearer $TOLLGATE_API_KEY" -H "Content-Type: application/json" \\',
            f"  -d '{sent}'", "",
        ]  # fmt: skip
    lines += ["# what it counted", ".venv/bin/tollgate usage", ""]
    return "\n".join(lines)

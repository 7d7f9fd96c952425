"""What all of OpenAI's routes share: the usage object, a refusal, a stream's last event, the fingerprint."""

import hashlib
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from app import __version__
from app.admission.authenticate import Principal
from app.api.aliases import model_named
from app.api.errors import answer_of
from app.api.stream import event, json_event
from app.metering.ledger import Receipt
from app.registry.model import HubSource, Model, TaskName
from app.serving import Serving

DONE = event(b"[DONE]")


def model_of(request: Request, name: str, task: TaskName, *, serving: Serving, principal: Principal) -> str:
    """The model's id: the path's, if that names one, else the body's, aliases resolved. Raises ModelNotFound."""
    name = getattr(request.state, "model_in_path", name)
    return model_named(name, task, residency=serving.residency, principal=principal, aliases=aliases_of(request))


def aliases_of(request: Request) -> frozenset[str]:
    """Names that stand for a default model."""
    return frozenset(request.app.state.settings.api.model_aliases)


def usage_json(receipt: Receipt, *, cached_tokens: int = 0) -> dict[str, Any]:
    """OpenAI's usage, and what it cost."""
    return counts_json(receipt.input_tokens, receipt.output_tokens, cached_tokens) | cost_json(receipt)


def counts_json(input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> dict[str, Any]:
    """OpenAI's usage of a generation."""
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def cost_json(receipt: Receipt) -> dict[str, Any]:
    """What a request cost, and what is left."""
    cost = {"cost_nano": receipt.cost_nano, "currency": receipt.currency}
    return cost | ({} if receipt.balance_nano is None else {"balance_nano": receipt.balance_nano})


def fingerprint(model: Model) -> str:
    """Changes whenever the model's files or the program do: with one seed and one fingerprint, one text."""
    source = model.source
    parts = [__version__, model.id, source.revision if isinstance(source, HubSource) else ""]
    parts += [file.sha256 for file in model.files]
    return "fp_" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:10]


def refusal(error: Exception) -> Response:
    """An error before the first byte, with its status."""
    answer = answer_of(error)
    return JSONResponse(answer.body, answer.status, answer.headers)


def last_event(error: Exception) -> bytes:
    """An error in the middle of a stream: the openai client raises it, others see why the text ends."""
    return json_event(answer_of(error).body) + DONE

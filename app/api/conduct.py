"""What a client asks of a run by header, and what every answer tells besides its result: for all dialects alike."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, cast

from fastapi import Request
from pydantic import BaseModel
from starlette.types import Scope

from app.errors import InvalidRequest
from app.running import Run

TIMEOUT = "x-request-timeout"
TIMEOUT_MS = "x-request-timeout-ms"
NAMES_MAX = 20
NAME_LENGTH_MAX = 60


def timeout_of(request: Request) -> float | None:
    """How long the client waits, in seconds: `x-request-timeout` (seconds) or `x-request-timeout-ms`.

    Raises InvalidRequest.
    """
    for name, scale in ((TIMEOUT_MS, 0.001), (TIMEOUT, 1.0)):
        if (found := request.headers.get(name)) is not None:
            try:
                timeout_s = float(found) * scale
            except ValueError:
                timeout_s = math.nan
            if not 0 < timeout_s < math.inf:
                raise InvalidRequest(f"the header {name} is {found[:40]!r}; send a number above 0", field=name)
            return timeout_s
    return None


def is_strict(request: Request, body: dict[str, Any]) -> bool:
    """Whether unknown fields are to be refused: `strict=true` in the query, or a field `strict` of the body."""
    return body.get("strict") is True or request.query_params.get("strict", "").lower() in ("true", "1")


def ignored_fields(sent: Mapping[str, Any], read: BaseModel, path: str = "") -> list[str]:
    """The names of what was sent and does not exist, as `a.b.0`, for bodies that let such fields pass."""
    names: list[str] = []
    known = known_fields(type(read))
    for key, value in sent.items():
        if key not in known:
            names += [] if key == "strict" and not path else [path + key]
            continue
        names += ignored_within(value, getattr(read, known[key]), f"{path}{key}.")
        if len(names) > NAMES_MAX:
            break
    return names


@cache
def known_fields(model: type[BaseModel]) -> dict[str, str]:
    """The names under which a body's fields may be sent, and what they are called."""
    fields = model.model_fields
    return {field.alias or name: name for name, field in fields.items()} | {name: name for name in fields}


def ignored_within(sent: Any, read: Any, path: str) -> list[str]:
    """The same of a field's value: an object, or a list of them."""
    if isinstance(read, BaseModel) and isinstance(sent, dict):
        return ignored_fields(cast("dict[str, Any]", sent), read, path)
    if isinstance(read, list | tuple) and isinstance(sent, list):
        pairs = zip(cast("list[Any]", sent), cast("Sequence[Any]", read), strict=False)
        found: list[str] = []
        for index, (one, other) in enumerate(pairs):
            if not isinstance(other, BaseModel):
                break
            found += ignored_within(one, other, f"{path}{index}.")
        return found
    return []


def note_ignored(request: Request, names: Sequence[str], *, refuses: bool) -> None:
    """Have the answer name them. Raises InvalidRequest if they are to be refused."""
    if names and refuses:
        raise InvalidRequest(f"{names[0][:NAME_LENGTH_MAX]}: there is no such field (strict)", field=names[0][:200])
    request.state.ignored_fields = tuple(names)


def shown_names(names: Iterable[str]) -> str:
    """Names as a header can hold them: printable ASCII without commas, so many, so long."""
    found = [
        "".join(letter if "!" <= letter <= "~" and letter != "," else "?" for letter in name)[:NAME_LENGTH_MAX]
        for name in names
    ]
    more = len(found) - NAMES_MAX
    return ", ".join(found[:NAMES_MAX] + ([f"and-{more}-more"] if more > 0 else []))


def told(scope: Scope, run: Run | None) -> dict[str, str]:
    """Headers of every answer: what was ignored, and that inputs were cut (huggingface_hub prints it as a warning)."""
    headers: dict[str, str] = {}
    if names := scope.get("state", {}).get("ignored_fields"):
        headers["x-ignored-fields"] = shown_names(names)
    if run is not None and run.texts_cut:
        count = run.texts_cut
        headers["x-hf-warning"] = (
            f"truncation; {count} input{'s were' if count > 1 else ' was'} too long for the model and cut as asked; "
            "what was read is charged"
        )
    return headers

"""Reads a request's body: bounded, UTF-8, JSON without NaN, then a pydantic model; refusals say what and where."""

import json
import math
import re
from typing import Any, NoReturn, TypeVar, cast

from fastapi import Request
from pydantic import BaseModel, ValidationError

from app.api.conduct import ignored_fields, is_strict, note_ignored
from app.errors import InvalidRequest, RequestTooLarge

B = TypeVar("B", bound=BaseModel)
DEPTH_MAX = 32
SHOULD_BE = "Input should be "


async def read_body(request: Request, model: type[B]) -> B:
    """The body as `model`. Raises RequestTooLarge, or InvalidRequest naming the field.

    Where the model lets unknown fields pass, the answer's `x-ignored-fields` names them.
    """
    return model_of(request, await read_object(request), model)


async def read_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises RequestTooLarge or InvalidRequest."""
    return parsed(await read_bytes(request, request.app.state.settings.api.body_bytes_max))


def parsed(raw: bytes) -> dict[str, Any]:
    """Bytes as a JSON object. Raises InvalidRequest."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise InvalidRequest(f"the body is not UTF-8: byte {cause.start} cannot be read") from cause
    try:
        found = json.loads(text, parse_constant=refuse_constant)
    except json.JSONDecodeError as cause:
        raise InvalidRequest(
            f"the body is not JSON: {cause.msg} (line {cause.lineno}, column {cause.colno})"
        ) from cause
    except (RecursionError, ValueError) as cause:
        raise InvalidRequest(f"the body is not JSON that can be read: {type(cause).__name__}") from cause
    if not isinstance(found, dict):
        raise InvalidRequest("the body must be a JSON object")
    refuse_lone_surrogates(found)
    return cast("dict[str, Any]", found)


def model_of(request: Request, found: dict[str, Any], model: type[B]) -> B:
    """What was parsed, as `model`. Raises InvalidRequest naming the field."""
    try:
        body = model.model_validate(found)
    except ValidationError as cause:
        raise fault_of(cause) from cause
    if model.model_config.get("extra") == "ignore":
        note_ignored(request, ignored_fields(found, body), refuses=is_strict(request, found))
    return body


async def read_bytes(request: Request, bytes_max: int) -> bytes:
    """The body, read no further than `bytes_max`. Raises RequestTooLarge."""
    declared = length_of(request.headers.get("content-length", "0"))
    if declared is not None and declared > bytes_max:
        raise RequestTooLarge(f"The body has {declared:,} bytes; at most {bytes_max:,} are accepted.")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > bytes_max:
            raise RequestTooLarge(f"The body has more than {bytes_max:,} bytes, which is the most that is accepted.")
        parts.append(part)
    return b"".join(parts)


def length_of(text: str) -> int | None:
    """A number of bytes out of a header; None when it is none that a body could have."""
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else None


def refuse_constant(name: str) -> NoReturn:
    """NaN and Infinity are no JSON."""
    raise InvalidRequest(f"the body holds {name}, which is no JSON number")


def refuse_lone_surrogates(value: Any, depth: int = 0) -> None:
    """Half a character (an escaped lone surrogate) or a number beyond floats; neither can be worked with."""
    if depth > DEPTH_MAX:
        raise InvalidRequest(f"the body is nested more than {DEPTH_MAX} deep")
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as cause:
            raise InvalidRequest("a text holds half a character (a lone surrogate)") from cause
    elif isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest("a number is too large")
    elif isinstance(value, dict | list):
        found = cast("dict[str, Any] | list[Any]", value)
        inner = [*found.keys(), *found.values()] if isinstance(found, dict) else found
        for one in inner:
            refuse_lone_surrogates(one, depth + 1)


def fault_of(error: ValidationError) -> InvalidRequest:
    """The most telling fault: its field as `a.b.0`, and what is wrong; of a union, what each of its branches wants."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    deepest = max(faults, key=lambda fault: len(fault["loc"]))
    field = field_of(deepest["loc"])
    words = list(dict.fromkeys(fault["msg"] for fault in faults if field_of(fault["loc"]) == field))
    wanted = [word.removeprefix(SHOULD_BE) for word in words if word.startswith(SHOULD_BE)]
    message = SHOULD_BE + " or ".join(wanted) if len(wanted) == len(words) else deepest["msg"]
    return InvalidRequest(f"{field}: {message}" if field else message, field=field or None)


def field_of(place: tuple[int | str, ...]) -> str:
    """The caller's own name of a place in a body, as `a.b.0`."""
    return ".".join(str(part) for part in place if not is_branch(part))


def is_branch(part: int | str) -> bool:
    """Whether pydantic put it there for a union's branch: it is no field of the caller's."""
    return isinstance(part, str) and (part in ("str", "int", "float", "bool", "list") or "[" in part)

"""Bodies that come as JSON or as a form: what was sent, as one mapping. A field that was sent twice is a list."""

from typing import Any
from urllib.parse import parse_qs

from fastapi import Request

from app.api.body import parsed, read_bytes
from app.errors import InvalidRequest

FIELDS_MAX = 1000


async def read_form(
    request: Request, *, lists: frozenset[str] = frozenset(), has_query: bool = False
) -> dict[str, Any]:
    """The body's fields, over the query's if the dialect looks there. `lists` names those that are always lists.

    Raises InvalidRequest or RequestTooLarge.
    """
    raw = await read_bytes(request, request.app.state.settings.api.body_bytes_max)
    return form_of(request, raw, lists=lists, has_query=has_query)


def form_of(
    request: Request, raw: bytes, *, lists: frozenset[str] = frozenset(), has_query: bool = False
) -> dict[str, Any]:
    """The same of a body that was read before. Raises InvalidRequest."""
    found = fields_of(ascii_of(request.scope["query_string"], "query"), lists) if has_query else {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not raw:
        return found
    if kind == "multipart/form-data":
        raise InvalidRequest("multipart bodies are not read; send JSON or application/x-www-form-urlencoded")
    if kind == "application/x-www-form-urlencoded":
        return found | fields_of(ascii_of(raw, "body"), lists)
    return found | parsed(raw)


def ascii_of(raw: bytes, where: str) -> str:
    """A form as it was sent, still escaped. Raises InvalidRequest."""
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError as cause:
        raise InvalidRequest(f"the {where} is no form: it holds bytes beyond ASCII") from cause


def fields_of(text: str, lists: frozenset[str]) -> dict[str, Any]:
    """A form's fields. Raises InvalidRequest."""
    try:
        pairs = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError as cause:
        raise InvalidRequest(f"the form cannot be read: not UTF-8, or more than {FIELDS_MAX} fields") from cause
    return {name: values if name in lists or len(values) > 1 else values[0] for name, values in pairs.items()}

"""From an error's kind to a status and an envelope, once, for every route. A dialect may dress the envelope anew."""

import math
from dataclasses import dataclass
from typing import Any

from app.errors import InternalError, Kind, OwnDeadlinePassed, ReplayUnavailable, RequestCancelled, TollgateError

STATUS = {
    Kind.INVALID: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.REQUESTS_LIMITED: 429,
    Kind.TOKENS_LIMITED: 429,
    Kind.MISMATCH: 422,
    Kind.QUOTA: 429,
    Kind.TOO_LARGE: 413,
    Kind.UNAVAILABLE: 503,
    Kind.TIMEOUT: 504,
    Kind.OPERATOR: 503,
    Kind.INTERNAL: 500,
}
TYPE = {
    Kind.FORBIDDEN: "permission_error",
    Kind.CONFLICT: "conflict_error",
    Kind.REQUESTS_LIMITED: "requests",
    Kind.TOKENS_LIMITED: "tokens",
    Kind.QUOTA: "insufficient_quota",
    Kind.UNAVAILABLE: "server_error",
    Kind.TIMEOUT: "server_error",
    Kind.OPERATOR: "server_error",
    Kind.INTERNAL: "server_error",
}
"""OpenAI's `type`; what is not named here is an invalid_request_error."""
NOT_AGAIN = (ReplayUnavailable, RequestCancelled, OwnDeadlinePassed)
"""What clients would ask for again by its status, to no use or to be charged twice."""
MESSAGE_LENGTH_MAX = 500
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request cannot be served as it is; the error names the field."},
    401: {"description": "No key, or one that is not valid."},
    403: {"description": "The key may not do that."},
    404: {"description": "There is no such model, request or page for this key."},
    405: {"description": "The address does not take this method."},
    408: {"description": "The request came too slowly."},
    409: {"description": "It conflicts with what is there, or with a request that runs."},
    413: {"description": "The body is too large."},
    422: {"description": "An Idempotency-Key was used with another request; in some dialects: the body is not valid."},
    429: {"description": "A rate limit or a budget is reached; `retry-after` says when to try again."},
    431: {"description": "The headers are larger, or more, than the server accepts."},
    500: {"description": "The server failed; the request was not charged."},
    503: {"description": "Not now; `retry-after` says when to try again."},
    504: {"description": "The time that the request had is over."},
}
"""What any route may answer, for the OpenAPI document."""


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """A refusal as HTTP sends it."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


def answer_of(error: Exception) -> ErrorAnswer:
    """Any exception as an answer; what Tollgate did not raise on purpose, or only the operator may read, says nothing.

    The body is OpenAI's envelope: {"error": {"message", "type", "param", "code"}}.
    """
    known = error if isinstance(error, TollgateError) else InternalError()
    is_private = known.kind in (Kind.OPERATOR, Kind.INTERNAL)
    message = InternalError().message if is_private else known.message[:MESSAGE_LENGTH_MAX]
    headers: dict[str, str] = {}
    if known.kind is Kind.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    if known.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(known.retry_after_s)))
        headers["retry-after-ms"] = str(math.ceil(known.retry_after_s * 1000))
    if known.kind is Kind.QUOTA or isinstance(known, NOT_AGAIN):
        headers["x-should-retry"] = "false"
    body = {
        "error": {
            "message": message,
            "type": TYPE.get(known.kind, "invalid_request_error"),
            "param": known.field,
            "code": known.code,
        }
    }
    return ErrorAnswer(STATUS[known.kind], body, headers)

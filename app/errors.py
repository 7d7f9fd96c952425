"""Every error that Tollgate raises on purpose, in one tree that knows nothing of HTTP.

TollgateError
├── RequestError            the caller can mend it
│   ├── InvalidRequest      ├── EmptyInput   ├── ContextLengthExceeded   ├── UnsupportedParameter
│   ├── TaskMismatch   ├── NoChatTemplate
│   ├── RequestTooLarge
│   ├── MissingKey   ├── InvalidKey   ├── KeyRevoked   ├── NotAllowed   └── TenantSuspended
│   ├── ExceedsLimit   └── RateLimited ── RequestsLimited, TokensLimited
│   ├── PriceMissing   ├── InsufficientQuota
│   ├── IdempotencyInProgress   ├── IdempotencyMismatch   ├── ReplayUnavailable
│   ├── ModelNotFound   └── NotFound
│   ├── Conflict   └── RequestCancelled
├── UnavailableError        the same request may succeed later
│   ├── EngineOverloaded   ├── DeadlineUnreachable   ├── EngineLost   ├── ModelLoading   ├── ModelUnavailable
│   ├── MemoryBudgetExceeded   ├── Draining   ├── StorageUnavailable   └── DeadlineExceeded ── OwnDeadlinePassed
├── OperatorError           the installation is wrong: stops a start or fails a command
│   ├── SettingsError   ├── CatalogueError   ├── SourceError   └── VerificationFailed
└── InternalError           a bug; the caller learns only that it happened

A class's docstring is its default message. `api/errors.py` turns a kind into a status, once.
"""

from enum import StrEnum


class Kind(StrEnum):
    """What sort of failure it is; the wire's status follows from it."""

    INVALID = "invalid"
    TOO_LARGE = "too_large"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    REQUESTS_LIMITED = "requests_limited"
    TOKENS_LIMITED = "tokens_limited"
    MISMATCH = "mismatch"
    QUOTA = "quota"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    OPERATOR = "operator"
    INTERNAL = "internal"


class TollgateError(Exception):
    """Something went wrong."""

    code: str = "error"
    kind: Kind = Kind.INTERNAL
    retry_after_s: float | None = None

    def __init__(
        self, message: str | None = None, *, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.field = field
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s
        super().__init__(self.message)


class RequestError(TollgateError):
    """The request cannot be served as it is."""

    code = "invalid_request"
    kind = Kind.INVALID


class InvalidRequest(RequestError):
    """The request is not valid."""


class EmptyInput(RequestError):
    """The input is empty; send at least one character of text."""

    code = "empty_input"


class ContextLengthExceeded(RequestError):
    """The input is longer than the model can read."""

    code = "context_length_exceeded"


class UnsupportedParameter(RequestError):
    """The parameter is not supported."""

    code = "unsupported_parameter"


class NoChatTemplate(RequestError):
    """The model has no chat template; send a text as `prompt` to /v1/completions."""

    code = "model_has_no_chat_template"


class TaskMismatch(RequestError):
    """The model does not do this task."""

    code = "model_task_mismatch"


class RequestTooLarge(RequestError):
    """The request's body is larger than this server accepts."""

    code = "request_too_large"
    kind = Kind.TOO_LARGE


class MissingKey(RequestError):
    """No API key was sent; send it as `Authorization: Bearer <key>`."""

    code = "missing_api_key"
    kind = Kind.UNAUTHENTICATED


class InvalidKey(RequestError):
    """The API key is not valid; ask the operator for one."""

    code = "invalid_api_key"
    kind = Kind.UNAUTHENTICATED


class KeyRevoked(RequestError):
    """The API key was revoked, or its account suspended, while the request ran; what was delivered is charged."""

    code = "key_revoked"
    kind = Kind.UNAUTHENTICATED


class NotAllowed(RequestError):
    """This API key may not do that."""

    code = "key_not_allowed"
    kind = Kind.FORBIDDEN


class TenantSuspended(RequestError):
    """This account is suspended; ask the operator."""

    code = "tenant_suspended"
    kind = Kind.FORBIDDEN


class ExceedsLimit(RequestError):
    """The request is larger than its rate limit ever allows; send a smaller one, or ask the operator for more."""

    code = "request_exceeds_rate_limit"


class RateLimited(RequestError):
    """The rate limit is reached; try again when `retry-after` has passed."""

    code = "rate_limit_exceeded"
    kind = Kind.REQUESTS_LIMITED
    retry_after_s = 1.0


class RequestsLimited(RateLimited):
    """The limit of requests is reached; try again when `retry-after` has passed."""


class TokensLimited(RateLimited):
    """The limit of tokens is reached; try again when `retry-after` has passed."""

    kind = Kind.TOKENS_LIMITED


class ModelNotFound(RequestError):
    """There is no model of that name; GET /v1/models lists them."""

    code = "model_not_found"
    kind = Kind.NOT_FOUND


class NotFound(RequestError):
    """There is nothing at this address."""

    code = "not_found"
    kind = Kind.NOT_FOUND


class Conflict(RequestError):
    """The request conflicts with the present state."""

    code = "conflict"
    kind = Kind.CONFLICT


class RequestCancelled(RequestError):
    """The request was cancelled, as its account asked; what was done until then is charged."""

    code = "request_cancelled"
    kind = Kind.CONFLICT


class PriceMissing(RequestError):
    """This model has no price yet; ask the operator to set one or to mark it as free."""

    code = "price_missing"
    kind = Kind.FORBIDDEN


class InsufficientQuota(RequestError):
    """The budget is used up; ask the operator to top it up."""

    code = "insufficient_quota"
    kind = Kind.QUOTA

    def __init__(
        self, message: str | None = None, *, field: str | None = None, retry_after_s: float | None = None,
        place: tuple[str, int] | None = None,
    ) -> None:  # fmt: skip
        self.place = place
        """Which budget's window refused."""
        super().__init__(message, field=field, retry_after_s=retry_after_s)


class IdempotencyInProgress(RequestError):
    """A request with this Idempotency-Key still runs; ask again shortly."""

    code = "idempotency_in_progress"
    kind = Kind.CONFLICT
    retry_after_s = 1.0


class IdempotencyMismatch(RequestError):
    """This Idempotency-Key was used with another request; use a fresh one."""

    code = "idempotency_mismatch"
    kind = Kind.MISMATCH


class ReplayUnavailable(RequestError):
    """The first answer under this Idempotency-Key is no longer kept; its receipt is. Use a fresh key to run again."""

    code = "idempotency_replay_unavailable"
    kind = Kind.CONFLICT


class UnavailableError(TollgateError):
    """The server cannot serve this now; try again."""

    code = "unavailable"
    kind = Kind.UNAVAILABLE
    retry_after_s = 1.0


class EngineOverloaded(UnavailableError):
    """The queue is full; try again shortly."""

    code = "server_is_overloaded"


class DeadlineUnreachable(UnavailableError):
    """The queue is longer than the request's deadline allows; try again later, or with a later deadline."""

    code = "deadline_unreachable"


class EngineLost(UnavailableError):
    """The engine stopped while it worked on this; try again."""

    code = "engine_lost"


class ModelLoading(UnavailableError):
    """The model is still being loaded; try again shortly."""

    code = "model_loading"
    retry_after_s = 2.0


class ModelUnavailable(UnavailableError):
    """The model could not be loaded; the operator's log says why."""

    code = "model_unavailable"
    retry_after_s = 30.0


class MemoryBudgetExceeded(UnavailableError):
    """The model does not fit beside the models in use; try again when they are idle."""

    code = "memory_budget_exceeded"
    retry_after_s = 10.0


class Draining(UnavailableError):
    """This replica is shutting down; try again, another one will answer."""

    code = "draining"


class StorageUnavailable(UnavailableError):
    """The ledger's database cannot be reached; nothing was done and nothing is charged."""

    code = "storage_unavailable"


class DeadlineExceeded(TollgateError):
    """The request's deadline passed before it was done."""

    code = "request_timeout"
    kind = Kind.TIMEOUT


class OwnDeadlinePassed(DeadlineExceeded):
    """The time that the request allowed itself has passed; what was done until then is charged."""


class OperatorError(TollgateError):
    """The installation needs a hand."""

    code = "operator_error"
    kind = Kind.OPERATOR


class SettingsError(OperatorError):
    """A setting is wrong."""

    code = "settings_error"


class CatalogueError(OperatorError):
    """The catalogue of models is wrong."""

    code = "catalogue_error"


class SourceError(OperatorError):
    """The model's files could not be fetched."""

    code = "source_error"


class VerificationFailed(OperatorError):
    """The model's files are not the ones that the catalogue names."""

    code = "verification_failed"


class InternalError(TollgateError):
    """The server failed; the request was not charged. The request id leads the operator to the cause."""

    code = "internal_error"

"""What an API process and an engine process say to each other: length-prefixed msgpack over a Unix socket.

A job travels under its `handle`, a number of the connection: short, and never confused with another connection's job of
the same id, or with itself after a restart.
"""

import struct
from collections.abc import Iterator
from typing import TypeVar

import msgspec
from msgspec import Struct

from app.engine.client import EngineStats, LoadedModel
from app.engine.events import (
    EncodedEvent,
    Event,
    FailedEvent,
    FinishedEvent,
    FinishReason,
    JobTimes,
    JobUsage,
    PromptEvent,
    TokenEvent,
)
from app.engine.jobs import DecodeJob, EncodeJob, ModelSpec
from app.errors import InternalError, TollgateError

FRAME_BYTES_MAX = 2**26
LENGTH = struct.Struct(">I")
T = TypeVar("T")


class WireError(Struct, array_like=True):
    """An error by its class, as `app/errors.py` names it; codes alone are shared along the tree."""

    name: str
    code: str
    message: str
    field: str | None
    retry_after_s: float | None


class SubmitDecode(Struct, array_like=True, tag=1):
    """Start a job."""

    handle: int
    job: DecodeJob


class SubmitEncode(Struct, array_like=True, tag=2):
    """Start a job."""

    handle: int
    job: EncodeJob


class CancelJob(Struct, array_like=True, tag=3):
    """End a job."""

    handle: int


class Read(Struct, array_like=True, tag=4):
    """The job's reader took so many more tokens: that much room is free again."""

    handle: int
    tokens: int


class LoadModel(Struct, array_like=True, tag=5):
    """Load a model, or say what it is when it is loaded already. Answered by Loaded or Refused."""

    call: int
    spec: ModelSpec


class UnloadModel(Struct, array_like=True, tag=6):
    """This connection needs the model no longer."""

    model: str


ToEngine = SubmitDecode | SubmitEncode | CancelJob | Read | LoadModel | UnloadModel


class Tokens(Struct, array_like=True, tag=1):
    """A TokenEvent."""

    handle: int
    ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    top: tuple[tuple[tuple[int, float], ...], ...] = ()


class Encoded(Struct, array_like=True, tag=2):
    """An EncodedEvent."""

    handle: int
    scores: tuple[tuple[float, ...], ...]
    top: tuple[tuple[tuple[int, float], ...], ...] = ()


class Finished(Struct, array_like=True, tag=3):
    """A FinishedEvent."""

    handle: int
    reason: FinishReason
    usage: JobUsage
    others: tuple[tuple[int, ...], ...] = ()
    times: JobTimes | None = None


class Failed(Struct, array_like=True, tag=4):
    """A FailedEvent."""

    handle: int
    error: WireError
    usage: JobUsage
    times: JobTimes | None = None


class PromptTokens(Struct, array_like=True, tag=5):
    """A PromptEvent."""

    handle: int
    logprobs: tuple[float, ...]
    top: tuple[tuple[tuple[int, float], ...], ...]


WireEvent = Tokens | Encoded | Finished | Failed | PromptTokens


class Batch(Struct, array_like=True, tag=1):
    """All events that one step of the engine has for this connection."""

    events: list[WireEvent]


class Loaded(Struct, array_like=True, tag=2):
    """A LoadModel's answer."""

    call: int
    model: LoadedModel


class Refused(Struct, array_like=True, tag=3):
    """A LoadModel's other answer."""

    call: int
    error: WireError


class Stats(Struct, array_like=True, tag=4):
    """How busy the engine is; sent when it has changed, a few times a second at most."""

    stats: EngineStats


FromEngine = Batch | Loaded | Refused | Stats

_ENCODER = msgspec.msgpack.Encoder()


def framed(message: ToEngine | FromEngine) -> bytes:
    """The message with its length before it. Raises OverflowError for a number that 64 bits do not hold."""
    body = _ENCODER.encode(message)
    return LENGTH.pack(len(body)) + body


class Frames:
    """Cuts what a socket delivers into messages' bodies."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that are complete now. Raises ValueError for one of an impossible length."""
        self._held += data
        start = 0
        while len(self._held) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._held, start)
            if length > FRAME_BYTES_MAX:
                raise ValueError(f"a message of {length:,} bytes; at most {FRAME_BYTES_MAX:,} are allowed")
            stop = start + LENGTH.size + length
            if len(self._held) < stop:
                break
            yield bytes(memoryview(self._held)[start + LENGTH.size : stop])
            start = stop
        del self._held[:start]


def to_wire(handle: int, event: Event) -> WireEvent:
    """An event under its connection's handle."""
    match event:
        case TokenEvent():
            return Tokens(handle, event.ids, event.logprobs, event.top)
        case PromptEvent():
            return PromptTokens(handle, event.logprobs, event.top)
        case EncodedEvent():
            return Encoded(handle, event.scores, event.top)
        case FinishedEvent():
            return Finished(handle, event.reason, event.usage, event.others, event.times)
        case FailedEvent():
            return Failed(handle, error_to_wire(event.error), event.usage, event.times)


def from_wire(job_id: str, event: WireEvent) -> Event:
    """An event under its job's own id."""
    match event:
        case Tokens():
            return TokenEvent(job_id=job_id, ids=event.ids, logprobs=event.logprobs, top=event.top)
        case PromptTokens():
            return PromptEvent(job_id=job_id, logprobs=event.logprobs, top=event.top)
        case Encoded():
            return EncodedEvent(job_id=job_id, scores=event.scores, top=event.top)
        case Finished():
            return FinishedEvent(
                job_id=job_id, reason=event.reason, usage=event.usage, others=event.others, times=event.times
            )
        case Failed():
            error = error_from_wire(event.error)
            return FailedEvent(job_id=job_id, error=error, usage=event.usage, times=event.times)


def error_to_wire(error: TollgateError) -> WireError:
    """What another process needs to raise the same."""
    return WireError(type(error).__name__, error.code, error.message, error.field, error.retry_after_s)


def error_from_wire(found: WireError) -> TollgateError:
    """The same class, message, field and hint; InternalError for a class that this process does not know."""
    kind = _known_errors().get(found.name)
    if kind is None or kind.code != found.code:
        return InternalError()
    return kind(found.message, field=found.field, retry_after_s=found.retry_after_s)


def _known_errors(root: type[TollgateError] = TollgateError) -> dict[str, type[TollgateError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _known_errors(child)
    return found

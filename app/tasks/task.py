"""What every task is: a request in our words, prepared into engine jobs, whose events become results."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from app.engine.events import EncodedEvent, Event, FailedEvent, FinishedEvent, FinishReason
from app.engine.jobs import EncodeJob, Job
from app.engine.session import JobSession
from app.errors import ContextLengthExceeded, EmptyInput, InvalidRequest, RequestCancelled
from app.registry.model import TaskName
from app.registry.residency import Resident
from app.text.tokenizer import Encoding

R_contra = TypeVar("R_contra", contravariant=True)
P = TypeVar("P", bound="Prepared")
E_co = TypeVar("E_co", covariant=True)


ROWS_MAX = 512
"""Windows that one request may be read in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What the engine must know of who asks."""

    request_id: str
    tenant: str = ""
    weight: float = 1.0
    is_streaming: bool = False
    """Whether results are to leave as they come."""


async def allow_all(_: int, more_tokens: int) -> int:
    """Nobody counts the money."""
    return more_tokens


@dataclass(slots=True, kw_only=True)
class Prepared:
    """A request as the engine will run it: counted, and cut where the caller allowed it."""

    jobs: tuple[Job, ...]
    input_tokens: int
    """What will be charged for reading."""
    output_tokens_max: int = 0
    is_output_asked: bool = False
    """Whether the caller can choose output_tokens_max, and so lower it."""
    characters: int = 0
    is_truncated: tuple[bool, ...] = ()
    """Of each input, whether it lost an end."""
    is_cancelled: bool = False
    """Its customer wants no more of it."""
    output_tokens: dict[str, int] = field(default_factory=dict[str, int])
    """What the customer was given, by job, as far as events have told; a stop string may end before the engine did."""

    is_cut_anywhere: bool = False
    """Its output may end at any token, so that money need not be held for all of it at first."""
    allow: Callable[[int, int], Awaitable[int]] = allow_all
    """Given what was delivered and how many tokens come next: how many of these may leave."""

    @property
    def delivered_tokens(self) -> int:
        """Output tokens that left so far."""
        return sum(self.output_tokens.values())


class Task(Protocol[R_contra, P, E_co]):
    """One thing that models do."""

    name: TaskName

    async def prepare(self, request: R_contra, resident: Resident, caller: Caller) -> P:
        """Tokenise, count, cut or refuse. Raises a RequestError that names the field."""
        ...

    def events(self, prepared: P, session: JobSession) -> AsyncIterator[E_co]:
        """Results as they come. Raises what the engine failed with."""
        ...


def refuse_empty(texts: tuple[str, ...], field_name: str, *, texts_max: int) -> None:
    """Raises EmptyInput or InvalidRequest naming the first text that says nothing, or the list that is too long."""
    if not texts:
        raise EmptyInput(f"{field_name} is an empty list; send at least one text", field=field_name)
    if len(texts) > texts_max:
        raise InvalidRequest(
            f"{field_name} has {len(texts)} texts; send at most {texts_max} a request", field=field_name
        )
    for index, text in enumerate(texts):
        if not text.strip():
            raise EmptyInput(
                f"{field_name} {index} is empty; send at least one character", field=f"{field_name}.{index}"
            )


def readable_tokens(resident: Resident) -> int:
    """How many tokens a row of an encoder may have."""
    vectors = resident.vectors
    limits = [resident.model.limits.input_tokens_max, None if vectors is None else vectors.tokens_max]
    return min([resident.loaded.positions_max, *(limit for limit in limits if limit is not None)])


def too_long(field_name: str, index: int, tokens: int, tokens_max: int, resident: Resident) -> ContextLengthExceeded:
    """The refusal of a text that its caller does not want to be cut."""
    return ContextLengthExceeded(
        f"{field_name} {index} has {tokens} tokens and {resident.model.id} reads {tokens_max}; shorten it, or set "
        "truncate to left or right",
        field=f"{field_name}.{index}",
    )


def refuse_many(rows: int, field_name: str) -> None:
    """Raises InvalidRequest when texts would be read in more windows than one request may ask for."""
    if rows > ROWS_MAX:
        raise InvalidRequest(
            f"{field_name} makes {rows} windows of it, and a request may have {ROWS_MAX}; send less text",
            field=field_name,
        )


def encode_jobs(encodings: Iterable[Encoding], resident: Resident, caller: Caller) -> tuple[EncodeJob, ...]:
    """A job for each."""
    return tuple(
        EncodeJob(
            id=f"{caller.request_id}-{index}", model=resident.model.id, ids=encoding.ids, type_ids=encoding.type_ids,
            tenant=caller.tenant, weight=caller.weight,
        )
        for index, encoding in enumerate(encodings)
    )  # fmt: skip


def places(jobs: tuple[Job, ...]) -> Mapping[str, int]:
    """Each job's place in the request."""
    return {job.id: index for index, job in enumerate(jobs)}


async def encoded(session: JobSession) -> AsyncIterator[EncodedEvent]:
    """Scores of encode jobs as they come. Raises what a job failed with, and RequestCancelled."""
    async for event in events_of(session):
        refuse_cancelled(event)
        if isinstance(event, EncodedEvent):
            yield event


def refuse_cancelled(event: Event) -> None:
    """Raises RequestCancelled: a job was ended from outside, and half an answer of this task is none."""
    if isinstance(event, FinishedEvent) and event.reason is FinishReason.CANCELLED:
        raise RequestCancelled


async def events_of(session: JobSession) -> AsyncIterator[Event]:
    """The session's events; a failure is raised."""
    async for event in session.events():
        if isinstance(event, FailedEvent):
            raise event.error
        yield event

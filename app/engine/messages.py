"""What a transport puts into the loop's inbox."""

from collections.abc import Callable
from dataclasses import dataclass

from app.engine.client import LoadedModel
from app.engine.jobs import Job, ModelSpec
from app.errors import TollgateError


@dataclass(frozen=True, slots=True)
class Submit:
    job: Job


@dataclass(frozen=True, slots=True)
class Cancel:
    job_id: str


@dataclass(frozen=True, slots=True)
class Load:
    spec: ModelSpec
    reply: Callable[[LoadedModel | TollgateError], None]


@dataclass(frozen=True, slots=True)
class Unload:
    model: str


@dataclass(frozen=True, slots=True)
class Pause:
    """A slow reader: keep the row in its slots, but feed it nothing until it resumes."""

    job_id: str
    is_paused: bool


@dataclass(frozen=True, slots=True)
class Close:
    pass


Message = Submit | Cancel | Load | Unload | Pause | Close

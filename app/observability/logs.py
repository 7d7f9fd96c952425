"""Logs: one line an event on standard error, for people or as JSON. Never a prompt, an output or a key."""

import logging
import re
import sys
import traceback
from typing import Any, cast

import structlog

KEY = re.compile(r"sk-tg-(?:adm-)?[0-9A-Za-z]{4,}")
CAUSES_MAX = 5


def without_colours(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """uvicorn gives each message twice."""
    event.pop("color_message", None)
    return event


def without_values(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A trace shows where and what class, never an exception's message: libraries quote their input in it."""
    found: Any = event.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()
    error = cast("tuple[Any, ...]", found)[1] if isinstance(found, tuple) else found
    if isinstance(error, BaseException):
        event["exception"] = trace_of(error)
    return event


def trace_of(error: BaseException) -> str:
    """Classes and places of an exception and of its causes, the first cause first."""
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < CAUSES_MAX:
        parts.append("".join(traceback.format_tb(cause.__traceback__)) + type(cause).__qualname__)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\nthen\n".join(reversed(parts))


def without_keys(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Whatever looks like a key is cut, wherever it stands."""
    for name, value in event.items():
        if isinstance(value, str) and "sk-tg-" in value:
            event[name] = KEY.sub("sk-tg-…", value)
    return event


def set_up(*, level: str, is_json: bool) -> None:
    """Send every logger's records, ours and the libraries', and what Python warns of, through one formatter."""
    logging.captureWarnings(True)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line shows them
    logging._srcfile = None  # pyright: ignore[reportPrivateUsage] (nor the caller: Python's logging HOWTO, Optimization)
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        without_colours,
        without_values,
        without_keys,
        structlog.processors.TimeStamper(fmt="iso", utc=is_json),
    ]
    last: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if is_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )  # fmt: skip
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("httpx", "httpcore", "alembic", "filelock", "huggingface_hub"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))

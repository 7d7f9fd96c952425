"""Logs: one line an event on standard error, for people or as JSON. Never a prompt, an output or a key."""

import logging
import sys

import structlog


def without_colours(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """uvicorn gives each message twice."""
    event.pop("color_message", None)
    return event


def set_up(*, level: str, is_json: bool) -> None:
    """Send every logger's records, ours and the libraries', through one formatter."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        without_colours,
        structlog.processors.TimeStamper(fmt="iso", utc=is_json),
    ]
    last: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if is_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.format_exc_info, last,
            ],
        )
    )  # fmt: skip
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("httpx", "httpcore", "alembic", "filelock", "huggingface_hub"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))

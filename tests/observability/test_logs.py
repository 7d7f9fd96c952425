"""Logs tell where something broke, and neither a key nor what an exception quotes."""

import logging
from collections.abc import Iterator

import pytest

from app.observability import logs


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.mark.parametrize("is_json", [False, True])
def test_a_trace_has_places_and_classes_and_no_values(
    is_json: bool, root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.set_up(level="info", is_json=is_json)
    prompt = "my secret prompt"
    try:
        try:
            int(prompt)
        except ValueError as cause:
            raise KeyError(prompt) from cause
    except KeyError:
        logging.getLogger("any.library").exception("it broke")
    said = capsys.readouterr().err
    assert "secret" not in said
    assert "ValueError" in said
    assert "KeyError" in said
    assert "test_logs.py" in said


def test_a_key_is_cut_wherever_it_stands(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(level="info", is_json=True)
    logging.getLogger("any").info("got %s", "sk-tg-adm-0123456789abcdef", extra={"header": "Bearer sk-tg-0123456789"})
    said = capsys.readouterr().err
    assert "0123456789" not in said
    assert "got sk-tg-" in said

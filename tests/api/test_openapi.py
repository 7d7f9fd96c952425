"""The OpenAPI document says what every route may answer. No model is loaded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from app.api.errors import REFUSALS, STATUS
from app.main import build_app
from app.settings import Settings


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return build_app(Settings(home=Path(tmp_path_factory.mktemp("home")))).openapi()


def test_every_status_that_an_error_has_is_documented_on_every_route(document: dict[str, Any]) -> None:
    assert set(STATUS.values()) <= set(REFUSALS)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            missing = {str(status) for status in STATUS.values()} - set(operation["responses"])
            assert not missing, (method, path, missing)


def references(value: Any) -> Iterator[str]:
    """Every reference within."""
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        if isinstance(found.get("$ref"), str):
            yield found["$ref"]
        for one in found.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in cast("list[Any]", value):
            yield from references(one)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for reference in references(operations):
            found: Any = document
            for part in reference.removeprefix("#/").split("/"):
                assert part in found, (path, reference)
                found = found[part]


def test_every_operation_has_a_name_of_its_own_and_words(document: dict[str, Any]) -> None:
    seen: set[str] = set()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["operationId"] not in seen, path
            seen.add(operation["operationId"])
            assert operation.get("summary"), path


STREAMING = (
    "/v1/completions",
    "/v1/chat/completions",
    "/",
    "/generate_stream",
    "/models/{model_id}",
    "/models/{model_id}/pipeline/{task}",
)
OTHER_TYPES = {
    "/v1/usage/entries": "text/csv", "/admin/usage/entries": "text/csv",
    "/v1/organization/invoices/{tenant}/{month}": "text/html",
    "/v2/models/{model_id}/infer": "application/octet-stream", "/metrics": "text/plain",
} | dict.fromkeys(STREAMING, "text/event-stream")  # fmt: skip


@pytest.mark.parametrize(("path", "media_type"), OTHER_TYPES.items())
def test_answers_that_are_no_json_are_documented(document: dict[str, Any], path: str, media_type: str) -> None:
    (operation,) = document["paths"][path].values()
    assert media_type in operation["responses"]["200"]["content"]
    assert ("application/json" in operation["responses"]["200"]["content"]) == (path != "/metrics")


def test_a_retried_top_up_is_documented_with_its_own_status(document: dict[str, Any]) -> None:
    answers = document["paths"]["/admin/top-ups"]["post"]["responses"]
    assert answers["200"]["content"] == answers["201"]["content"]

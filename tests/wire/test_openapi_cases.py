"""What the OpenAPI document allows, and what it does not, by schemathesis: no 5xx, every status and type documented.

The server is this file's own, because the operators' routes change what the other tests rely on.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.wire.live import Live, live_server

ANSWERED = ("POST /v1/completions", "POST /v1/classifications", "POST /v1/embeddings", "POST /generate", "POST /embed")
"""Routes of which one at least must have been got through to the model, or the cases show little."""


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Live]:
    with live_server(tmp_path_factory.mktemp("fuzzed"), checkpoints) as running:
        yield running


def cases(live: Live, key: str, *, phase: str, examples: int = 1, seed: int = 1) -> dict[str, Any]:
    """Run so many cases an operation, of these there and then, and show that nothing was found."""
    found = live.run_client(
        "openapi_cases", key=key, environment="schemathesis", admin=live.running.admin_key, phase=phase,
        examples=str(examples), seed=str(seed),
    )  # fmt: skip
    assert found["failures"] == [] and found["errors"] == [], found["shown"]
    assert found["is_open"], "a key was ended by the cases: what came after showed nothing"
    return found


def test_a_few_cases_of_every_operation_are_answered_as_documented(fuzzed: Live) -> None:
    found = cases(fuzzed, fuzzed.running.admin_key, phase="fuzzing", examples=4)
    assert found["cases"] >= 300


@pytest.mark.fault_long
@pytest.mark.parametrize("is_admin", [True, False])
@pytest.mark.parametrize(("phase", "examples", "seed"), [("coverage", 1, 1), ("fuzzing", 45, 2)])
def test_thousands_of_cases_are_answered_as_documented(
    fuzzed: Live, is_admin: bool, phase: str, examples: int, seed: int
) -> None:
    key = fuzzed.running.admin_key if is_admin else fuzzed.new_key()
    found = cases(fuzzed, key, phase=phase, examples=examples, seed=seed)
    assert found["cases"] >= 2500
    if phase == "fuzzing" and not is_admin:
        assert any(found["accepted"].get(route) for route in ANSWERED), found["accepted"]

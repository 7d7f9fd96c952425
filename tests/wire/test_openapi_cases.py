"""What the OpenAPI document allows, and what it does not, by schemathesis: no 5xx, every status and type documented.

The server is this file's own, because the operators' routes change what the other tests rely on.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.wire.live import Live, live_server
from tests.wire.ways import ROUTES, WAYS, WORKS

BODIES = {
    route: [
        {"model": WORKS[way.work].model, "task": WORKS[way.work].task, "body": way.body}
        for way in WAYS
        if way.route == route and not way.form
    ]
    for route in ROUTES
}
CASES_S_MAX = 600
RUN_SHARE = 0.35
"""Of the cases on a route that runs a model, so many at least must run it, or they show little."""


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory, checkpoints: dict[str, Path]) -> Iterator[Live]:
    with live_server(tmp_path_factory.mktemp("fuzzed"), checkpoints) as running:
        yield running


def cases(live: Live, key: str, *, phase: str, examples: int = 1, seed: int = 1) -> dict[str, Any]:
    """Run so many cases an operation, of these there and then, and show that nothing was found."""
    found = live.run_client(
        "openapi_cases", key=key, environment="schemathesis", most_s=CASES_S_MAX, admin=live.running.admin_key,
        phase=phase, examples=str(examples), seed=str(seed), ways=json.dumps(BODIES),
    )  # fmt: skip
    assert found["failures"] == [] and found["errors"] == [], found["shown"]
    print(f"{found['cases']} cases of {phase}")
    assert found["is_open"], "a key was ended by the cases: what came after showed nothing"
    return found


def share_that_ran(live: Live, key: str, tried: dict[str, int]) -> float:
    """Of the cases on routes that run a model, how many left an entry of one that read something."""
    ran = sum(entry["input_tokens"] > 0 for entry in live.entries(key))
    share = ran / sum(tried[route] for route in ROUTES)
    print(f"{ran} of the cases ran a model: {share:.0%}")
    return share


def test_a_few_cases_of_every_operation_are_answered_as_documented(fuzzed: Live) -> None:
    key = fuzzed.new_key(is_admin=True)
    found = cases(fuzzed, key, phase="fuzzing", examples=4)
    assert found["cases"] >= 300
    assert share_that_ran(fuzzed, key, found["tried"]) >= RUN_SHARE


@pytest.mark.fault_long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("is_admin", [True, False])
@pytest.mark.parametrize(("phase", "examples", "seed"), [("coverage", 1, 1), ("fuzzing", 45, 2)])
def test_thousands_of_cases_are_answered_as_documented(
    fuzzed: Live, is_admin: bool, phase: str, examples: int, seed: int
) -> None:
    key = fuzzed.new_key(is_admin=is_admin)
    found = cases(fuzzed, key, phase=phase, examples=examples, seed=seed)
    assert found["cases"] >= 2500
    if phase == "fuzzing":
        assert share_that_ran(fuzzed, key, found["tried"]) >= RUN_SHARE
        ran = {entry["route"] for entry in fuzzed.entries(key) if entry["input_tokens"]}
        assert len(ran) == len(ROUTES), f"a route was left out: {ran}"

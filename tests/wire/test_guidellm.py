"""guidellm, a load generator: every request of its is answered, and its counts are the ledger's."""

from typing import Any

import pytest

from tests.wire.live import Live


@pytest.mark.fault_long
@pytest.mark.parametrize(
    ("model", "route"), [("tiny-gpt2", "/v1/completions"), ("tiny-gpt2-chat", "/v1/chat/completions")]
)
def test_a_load_is_counted_alike_on_both_sides(live: Live, key: str, model: str, route: str) -> None:
    checkpoint = str(live.checkpoints["tiny-gpt2"])
    found: Any = live.run_client(
        "guidellm_run", key=key, environment="guidellm", checkpoint=checkpoint, model=model, route=route
    )
    entries = live.entries(key, count=6)
    assert found["errors"] == 0
    assert {entry["route"] for entry in entries} == {route}
    assert found["written"] == [entry["output_tokens"] for entry in entries] == [8] * 6

"""A client in an environment of its own has exactly what its file lists, reaches the server, and is counted."""

import re
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from tests.wire.environments import FOLDER
from tests.wire.live import Live


def test_a_client_in_an_environment_of_its_own_reaches_the_server(live: Live, key: str) -> None:
    found = live.run_client("hub_version", key=key, environment="hub-0.36")
    assert found["status"] == 200
    assert found["huggingface_hub"] == "0.36.0" != version("huggingface_hub")


def test_what_a_test_asks_for_is_counted_on_its_own_key(live: Live, key: str) -> None:
    body = {"model": "tiny-gpt2", "prompt": "hello", "max_tokens": 3, "ignore_eos": True}
    answer = httpx.post(live.url + "/v1/completions", json=body, headers={"authorization": f"Bearer {key}"})
    (entry,) = live.entries(key, count=1)
    assert entry["request_id"] == answer.headers["x-request-id"]
    assert entry["output_tokens"] == 3


@pytest.mark.parametrize("listed", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_every_environment_names_exact_versions(listed: Path) -> None:
    lines = [line for line in listed.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert lines
    assert all(re.fullmatch(r"[\w.\[\],-]+==[\w.]+", line) for line in lines), listed

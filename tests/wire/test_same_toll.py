"""The same toll for all: whatever dialect asks, the same work leaves one entry with the same usage; nothing else runs.

The routes are the application's own: one that is new must be put in its place here before these tests pass.
"""

from functools import cache
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from tests.wire.live import Live
from tests.wire.ways import ROUTES, TEXT, WAYS, WORKS, Way

FREE: dict[str, dict[str, Any]] = {
    "/tokenize": {"inputs": TEXT}, "/decode": {"ids": [5, 6]}, "/detokenize": {"model": "tiny-gpt2", "tokens": [5, 6]},
    "/detect": {"q": TEXT}, "/v1/estimate": {"model": "tiny-gpt2", "input": TEXT}, "/v2/repository/index": {},
}  # fmt: skip
"""What reads texts, or nothing, and runs no model."""
FREE_ACTS = frozenset({"/v1/requests/{request_id}/cancel"})
OPERATORS = ("/admin/", "/v1/organization/")


def posts(live: Live) -> set[str]:
    """Every address that takes a body, but the operators'."""
    document: dict[str, Any] = httpx.get(live.url + "/openapi.json").json()
    takes = {path for path, methods in document["paths"].items() if set(methods) & {"post", "put", "patch"}}
    return {path for path in takes if not path.startswith(OPERATORS)}


@cache
def counted(folder: str, texts: tuple[str, ...]) -> int:
    """Tokens of a text, or of a pair, by transformers' own tokenizer."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    return len(tokenizer(*texts)["input_ids"])


def test_every_route_is_paid_or_known_to_be_free(live: Live) -> None:
    assert posts(live) == ROUTES.keys() | FREE.keys() | FREE_ACTS


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.work} {way.route}")
def test_one_entry_with_what_the_model_read_and_wrote(live: Live, key: str, way: Way) -> None:
    answer = way.sent(live, key)
    assert answer.status_code == 200, answer.text
    live.entries(key, count=1)
    (entry,) = live.entries(key)
    work = WORKS[way.work]
    folder = str(live.checkpoints[work.model.removesuffix("-chat")])
    assert (entry["task"], entry["model"], entry["outcome"]) == (work.task, work.model, "finished")
    assert entry["request_id"] == answer.headers["x-tollgate-request-id"]
    assert entry["input_tokens"] == sum(counted(folder, texts) for texts in work.read)
    written = translated(live) if work.written is None else work.written
    assert entry["output_tokens"] == written
    if "x-tollgate-input-tokens" in answer.headers:
        told = [int(answer.headers[f"x-tollgate-{side}-tokens"]) for side in ("input", "output")]
        assert told == [entry["input_tokens"], entry["output_tokens"]]
    else:
        assert answer.headers["content-type"].startswith("text/event-stream"), "only streams tell it later"


def translated(live: Live) -> int:
    """Output tokens of the translation, as the native route counts them."""
    way = next(way for way in WAYS if way.route == "/v1/translations")
    found: int = way.sent(live, live.new_key()).json()["usage"]["output_tokens"]
    assert found > 0
    return found


@pytest.mark.parametrize("scheme", ["Bearer", "DeepL-Auth-Key", "x-api-key"])
def test_every_route_knows_every_form_of_a_key_and_none_answers_without(live: Live, key: str, scheme: str) -> None:
    for route, way in ROUTES.items():
        assert way.sent(live, key, scheme).status_code == 200, (route, scheme)
        refused = way.sent(live, "sk-tg-none", scheme)
        assert refused.status_code in (401, 403), (route, scheme)
    assert len(live.entries(key, count=len(ROUTES))) == len(ROUTES)


def test_what_runs_no_model_leaves_no_entry_and_needs_a_key_all_the_same(live: Live, key: str) -> None:
    for path, body in FREE.items():
        answer = httpx.post(live.url + path, json=body, headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 200, (path, answer.text)
        assert httpx.post(live.url + path, json=body).status_code in (401, 403), path
    assert live.entries(key) == []


def test_the_same_idempotency_key_pays_once_on_every_route(live: Live, key: str) -> None:
    for route, way in ROUTES.items():
        once = {"idempotency-key": f"toll {route}"}
        first, again = way.sent(live, key, **once), way.sent(live, key, **once)
        assert first.status_code == 200 and again.content == first.content, route
        assert again.headers["idempotency-replayed"] == "true"
    assert len(live.entries(key)) == len(ROUTES)

"""Hugging Face's dialects where no client looks: loading, ignored fields, bounds, and paths that name a model."""

from typing import Any

import pytest

from tests.fixtures.server import Running

LABELS = {"inputs": "hello", "parameters": {"candidate_labels": ["a", "b"]}}


def never_wait(server: Running) -> None:
    """From now on a request does not wait for its model."""
    residency: Any = server.app.state.serving.residency
    residency._settings = residency._settings.model_copy(update={"load_wait_s": 0.0})


async def test_while_a_model_is_loaded_clients_come_again_or_wait(server: Running) -> None:
    never_wait(server)
    early = await server.client.post("/models/tiny-bert-nli", json=LABELS)
    assert early.status_code == 503
    assert early.json()["estimated_time"] > 0 and "loaded" in early.json()["error"]
    assert early.headers["retry-after"]
    waited = await server.client.post("/models/tiny-bert-nli", json=LABELS | {"options": {"wait_for_model": True}})
    assert waited.status_code == 200, waited.text
    header = {"x-wait-for-model": "true"}
    masks = await server.client.post("/models/tiny-bert-mask", json={"inputs": "hello [MASK]"}, headers=header)
    assert masks.status_code == 200
    assert [entry["task"] for entry in await server.settled(2)] == ["zero-shot-classification", "fill-mask"]


async def test_parameters_that_a_task_does_not_have_are_named_or_refused(server: Running) -> None:
    body = {"inputs": "hello", "parameters": {"top_k": 1, "colour": "red"}, "flavour": 1}
    found = await server.client.post("/models/tiny-bert-classifier", json=body)
    assert found.status_code == 200
    assert found.headers["x-ignored-fields"] == "flavour, parameters.colour"
    strict = await server.client.post("/models/tiny-bert-classifier?strict=true", json=body)
    assert (strict.status_code, strict.json()["error_type"]) == (422, "validation")


async def test_no_request_asks_for_windows_without_end(server: Running) -> None:
    tags = {"inputs": "one two " * 5000, "parameters": {"stride": 120, "aggregation_strategy": "first"}}
    refused = await server.client.post("/models/tiny-bert-ner", json=tags)
    assert refused.status_code == 422 and "a request may have 512" in refused.json()["error"]
    context = {"question": "who?", "context": "one two " * 3000}
    asked = {"inputs": context, "parameters": {"max_seq_len": 32, "doc_stride": 20}}
    refused = await server.client.post("/models/tiny-bert-qa", json=asked)
    assert refused.status_code == 422 and "a request may have 512" in refused.json()["error"]
    assert await server.entries() == []


async def test_a_cut_is_told_by_header(server: Running) -> None:
    found = await server.client.post("/models/tiny-bert-vectors", json={"inputs": ["one " * 100, "one"]})
    assert found.headers["x-hf-warning"].startswith("truncation; 1 input was")
    entry = (await server.settled(1))[0]
    assert entry["input_tokens"] == 64 + 3, "what was read is charged"


async def test_openais_routes_stand_under_a_models_own_address(server: Running) -> None:
    found = await server.client.post("/models/tiny-bert-vectors/v1/embeddings", json={"model": "dummy", "input": "one"})
    assert found.status_code == 200, found.text
    assert found.json()["model"] == "tiny-bert-vectors"
    assert (await server.client.get("/models/tiny-gpt2/v1/models")).json()["object"] == "list"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/models/nothing", {"inputs": "a"}, 404),
        ("/models/tiny-gpt2/pipeline/fill-mask", {"inputs": "a"}, 422),
        ("/models/tiny-gpt2/pipeline/painting", {"inputs": "a"}, 404),
        ("/models/tiny-bert-classifier", {"inputs": ""}, 422),
        ("/models/tiny-bert-classifier", {"inputs": [1]}, 422),
        ("/models/tiny-bert-classifier", {"inputs": "a", "parameters": {"top_k": 0}}, 422),
        ("/models/tiny-bert-classifier", {}, 422),
        ("/models/tiny-bert-qa", {"inputs": "a"}, 422),
        ("/models/tiny-marian", {"inputs": "a", "parameters": {"truncation": "some"}}, 422),
        ("/generate", {"inputs": "a", "parameters": {"grammar": {"type": "json"}}}, 422),
        ("/generate", {"inputs": "a", "model": "tiny-bert-qa"}, 422),
        ("/embed", {"inputs": [[10**9]]}, 422),
        ("/predict", {"inputs": ["a", "b", "c"]}, 422),
        ("/rerank", {"query": "a", "texts": ["b"], "model": "tiny-bert-classifier"}, 422),
    ],
)
async def test_every_refusal_is_in_the_dialects_envelope(
    server: Running, path: str, body: dict[str, Any], status: int
) -> None:
    found = await server.client.post(path, json=body)
    assert found.status_code == status, found.text
    assert isinstance(found.json()["error"], str)
    assert await server.entries() == []

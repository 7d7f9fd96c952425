"""The real tritonclient over HTTP: metadata, JSON and binary tensors, compression, errors."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.wire.live import Live

TEXTS = ["hello world", "one two three"]


@pytest.fixture
def client(live: Live) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(live.url.removeprefix("http://")) as made:
        yield made


def tensor(name: str, texts: list[str], *, is_binary: bool = True) -> triton.InferInput:
    made = triton.InferInput(name, [len(texts)], "BYTES")
    made.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=np.object_), binary_data=is_binary)
    return made


def words(found: Any, name: str) -> list[str]:
    return [one.decode() if isinstance(one, bytes) else str(one) for one in found.as_numpy(name).reshape(-1)]


def test_the_server_and_its_models_are_described(client: triton.InferenceServerClient, key: str) -> None:
    bearer = {"authorization": f"Bearer {key}"}
    assert client.is_server_live() and client.is_server_ready()
    assert client.get_server_metadata()["name"] == "tollgate"
    assert client.is_model_ready("tiny-bert-qa", headers=bearer)
    assert not client.is_model_ready("none", headers=bearer)
    found = client.get_model_metadata("tiny-bert-qa", model_version="1", headers=bearer)
    assert [one["name"] for one in found["inputs"]] == ["question", "context"]
    index = client.get_model_repository_index(headers=bearer)
    assert {"name": "tiny-marian", "version": "1", "state": "READY", "reason": ""} in index


@pytest.mark.parametrize("is_binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_texts_are_labelled_in_every_encoding_alike(
    live: Live, key: str, client: triton.InferenceServerClient, is_binary: bool, compression: str | None
) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_data=is_binary) for name in ("label", "scores")]
    found = client.infer(
        "tiny-bert-classifier", [tensor("text", TEXTS, is_binary=is_binary)], outputs=outputs, request_id="mine",
        headers={"authorization": f"Bearer {key}"}, request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )  # fmt: skip
    native = httpx.post(
        live.url + "/v1/classifications", json={"model": "tiny-bert-classifier", "input": TEXTS},
        headers={"authorization": f"Bearer {key}"},
    ).json()  # fmt: skip
    assert found.get_response()["id"] == "mine"
    assert words(found, "label") == [one["labels"][0]["label"] for one in native["data"]]
    scores = [[label["score"] for label in one["labels"]] for one in native["data"]]
    assert np.allclose(found.as_numpy("scores").astype(float), scores, atol=1e-6)
    first, second = live.entries(key, count=2)
    assert first["input_tokens"] == second["input_tokens"] > 0
    assert first["characters"] == sum(map(len, TEXTS))


def test_every_task_that_has_a_form_answers_and_is_counted_once(
    live: Live, key: str, client: triton.InferenceServerClient
) -> None:
    bearer = {"authorization": f"Bearer {key}"}
    made = client.infer(
        "tiny-gpt2",
        [tensor("text", TEXTS)],
        headers=bearer,
        parameters={"max_tokens": 4, "temperature": 0.0, "seed": 1},
    )
    assert len(words(made, "text")) == 2 and set(words(made, "finish_reason")) <= {"length", "stop"}
    german = client.infer("tiny-marian", [tensor("text", TEXTS)], headers=bearer)
    assert len(words(german, "text")) == 2
    answered = client.infer(
        "tiny-bert-qa", [tensor("question", ["who?"]), tensor("context", ["my name is clara"])], headers=bearer
    )
    start, end = (int(answered.as_numpy(name)[0]) for name in ("start", "end"))
    assert words(answered, "answer") == ["my name is clara"[start:end]]
    vectors = client.infer("tiny-bert-vectors", [tensor("text", TEXTS)], headers=bearer).as_numpy("embedding")
    assert vectors.shape == (2, 32) and vectors.dtype == np.float32
    entries = live.entries(key, count=4)
    assert [entry["model"] for entry in entries] == ["tiny-gpt2", "tiny-marian", "tiny-bert-qa", "tiny-bert-vectors"]
    assert all(entry["outcome"] == "finished" and entry["input_tokens"] > 0 for entry in entries)


def test_what_is_wrong_is_said_and_free(live: Live, key: str, client: triton.InferenceServerClient) -> None:
    bearer = {"authorization": f"Bearer {key}"}
    for model, inputs, word in (
        ("none", [tensor("text", TEXTS)], "no model"),
        ("tiny-bert-qa", [tensor("text", TEXTS)], "question, context"),
        ("tiny-bert-ner", [tensor("text", TEXTS)], "no form in tensors"),
        ("tiny-bert-classifier", [tensor("text", ["one " * 300])], "truncate"),
    ):
        with pytest.raises(InferenceServerException, match=word):
            client.infer(model, inputs, headers=bearer)
    numbers = triton.InferInput("text", [1], "INT32")
    numbers.set_data_from_numpy(np.array([1], dtype=np.int32))
    with pytest.raises(InferenceServerException, match="BYTES"):
        client.infer("tiny-bert-classifier", [numbers], headers=bearer)
    with pytest.raises(InferenceServerException, match="No API key"):
        client.infer("tiny-bert-classifier", [tensor("text", TEXTS)])
    assert live.entries(key) == []


HEAD = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 9}}]}
BROKEN: list[tuple[bytes, dict[str, str]]] = [
    (json.dumps(HEAD).encode(), {}),
    (
        json.dumps(HEAD).encode() + b"\xff\xff\xff\xff12345",
        {"inference-header-content-length": str(len(json.dumps(HEAD)))},
    ),
    (b"{}", {"inference-header-content-length": "99"}),
    (b"no gzip", {"content-encoding": "gzip"}),
    (b"{}", {"content-encoding": "br"}),
]


@pytest.mark.parametrize(("raw", "headers"), BROKEN)
def test_a_broken_body_is_refused(live: Live, key: str, raw: bytes, headers: dict[str, str]) -> None:
    headers = headers | {"authorization": f"Bearer {key}"}
    answer = httpx.post(live.url + "/v2/models/tiny-bert-classifier/infer", content=raw, headers=headers)
    assert answer.status_code == 400 and isinstance(answer.json()["error"], str), answer.text

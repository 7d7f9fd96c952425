"""text-embeddings-inference's wire format. Its server is Rust and has no client package: these are documented calls."""

from typing import Any

import httpx
import pytest

from tests.wire.live import Live


def posted(live: Live, key: str, path: str, **body: Any) -> httpx.Response:
    return httpx.post(live.url + path, json=body, headers={"authorization": f"Bearer {key}"}, timeout=30)


def test_embed_takes_a_text_a_list_or_ids(live: Live, key: str) -> None:
    one = posted(live, key, "/embed", inputs="hello world")
    assert one.status_code == 200, one.text
    two = posted(live, key, "/embed", inputs=["hello world", "one two"]).json()
    assert two[0] == one.json()[0] and len(two) == 2
    raw = posted(live, key, "/embed", inputs="hello world", normalize=False, dimensions=8).json()
    assert len(raw[0]) == 8
    entries = live.entries(key, count=3)
    assert [entry["task"] for entry in entries] == ["feature-extraction"] * 3
    assert entries[0]["input_tokens"] == int(one.headers["x-compute-tokens"])


def test_a_long_text_is_cut_unless_it_must_not_be(live: Live, key: str) -> None:
    long = "one " * 200
    assert posted(live, key, "/embed", inputs=long).status_code == 200
    refused = posted(live, key, "/embed", inputs=long, truncate=False)
    assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")
    left = posted(live, key, "/embed", inputs="ten " + long + "two", truncation_direction="Left").json()
    assert left != posted(live, key, "/embed", inputs="ten " + long + "two").json()


def test_predict_knows_a_pair_from_a_batch(live: Live, key: str) -> None:
    one = posted(live, key, "/predict", inputs="hello").json()
    assert {label["label"] for label in one} == {"NEGATIVE", "POSITIVE"}
    pair = posted(live, key, "/predict", inputs=["hello", "world"]).json()
    assert len(pair) == 2 and pair != one
    batch = posted(live, key, "/predict", inputs=[["hello"], ["hello", "world"]]).json()
    assert batch == [one, pair]
    raw = posted(live, key, "/predict", inputs="hello", raw_scores=True).json()
    assert sum(label["score"] for label in raw) != pytest.approx(1)


def test_rerank_sorts_by_a_cross_encoder_or_by_vectors(live: Live, key: str) -> None:
    texts = ["one two three", "where do i live?", "hello world"]
    for model in (None, "tiny-bert-ranker", "tiny-bert-vectors"):
        asked = {"query": "hello world", "texts": texts, "return_text": True} | ({"model": model} if model else {})
        found = posted(live, key, "/rerank", **asked).json()
        assert sorted(one["index"] for one in found) == [0, 1, 2]
        assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
        assert all(texts[one["index"]] == one["text"] for one in found)
    assert found[0]["text"] == "hello world"
    assert [entry["task"] for entry in live.entries(key, count=3)] == ["text-ranking"] * 3


def test_similarity_and_decode(live: Live, key: str) -> None:
    found = posted(live, key, "/similarity", inputs={"source_sentence": "hello", "sentences": ["hello", "nine"]}).json()
    assert found[0] == pytest.approx(1) and found[1] < 1
    ids = posted(live, key, "/tokenize", inputs="hello world").json()
    assert posted(live, key, "/decode", ids=[token["id"] for token in ids[0]]).json() == ["hello world"]
    assert len(live.entries(key)) == 1, "tokenising and decoding are free"
    assert posted(live, key, "/decode", ids=[10**6]).json()["error_type"] == "Validation"


def test_generate_and_info_as_tgi_has_them(live: Live, key: str) -> None:
    found = posted(live, key, "/generate", inputs="hello", parameters={"max_new_tokens": 3, "details": True}).json()
    assert found["details"]["generated_tokens"] == 3
    with httpx.stream(
        "POST", live.url + "/generate_stream", json={"inputs": "hello", "parameters": {"max_new_tokens": 3}},
        headers={"authorization": f"Bearer {key}"},
    ) as stream:  # fmt: skip
        lines = [line for line in stream.iter_lines() if line]
        assert stream.headers["content-type"].startswith("text/event-stream")
    assert len(lines) == 3 and all(line.startswith("data:") for line in lines)
    wrong = posted(live, key, "/generate", inputs="hello", parameters={"top_p": 3})
    assert (wrong.status_code, wrong.json()["error_type"]) == (422, "validation")
    assert wrong.json()["error"].startswith("Input validation error: ")
    info = httpx.get(live.url + "/info", headers={"authorization": f"Bearer {key}"}).json()
    assert (info["model_id"], info["model_pipeline_tag"]) == ("tiny-gpt2", "text-generation")
    assert [entry["output_tokens"] for entry in live.entries(key, count=2)] == [3, 3]


def test_a_translation_models_tokens_have_no_places_and_end_with_its_last(live: Live, key: str) -> None:
    (found,) = posted(live, key, "/tokenize", inputs="hello world", model="tiny-marian").json()
    assert found and all(one["start"] is one["stop"] is None for one in found)
    assert [one["special"] for one in found] == [False] * (len(found) - 1) + [True]
    (bare,) = posted(live, key, "/tokenize", inputs="hello world", model="tiny-marian", add_special_tokens=False).json()
    assert bare == found[:-1]

"""OpenAI's own SDK: models, vectors, decisions, and what the answers' headers tell it."""

import base64
import struct

import numpy as np
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from tests.wire.live import Live


@pytest.fixture
def client(live: Live, key: str):
    with OpenAI(base_url=live.url + "/v1", api_key=key, max_retries=0) as made:
        yield made


def test_models_are_listed_and_described(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {"tiny-gpt2", "tiny-bert-classifier", "tiny-marian"} <= listed.keys()
    found = client.models.retrieve("tiny-gpt2").model_dump()
    assert (found["id"], found["object"], found["max_model_len"]) == ("tiny-gpt2", "model", 64)
    assert (found["task"], found["status"], found["device"]) == ("text-generation", "resident", "cpu")
    assert found["dtype"] == "fp32"
    with pytest.raises(NotFoundError) as refused:
        client.models.retrieve("owner/none")
    assert refused.value.code == "model_not_found"


def test_vectors_are_the_same_as_numbers_and_as_base64(client: OpenAI, live: Live, key: str) -> None:
    texts = ["hello world", "good morning"]
    plain = client.embeddings.create(model="tiny-bert-vectors", input=texts, encoding_format="float")
    packed = client.embeddings.create(model="tiny-bert-vectors", input=texts)  # the SDK asks for base64 by itself
    raw = client.embeddings.create(model="tiny-bert-vectors", input=texts, encoding_format="base64")
    assert [one.index for one in plain.data] == [0, 1]
    assert np.allclose([one.embedding for one in plain.data], [one.embedding for one in packed.data], atol=1e-6)
    text = raw.data[0].embedding
    assert isinstance(text, str)
    numbers = struct.unpack("<32f", base64.b64decode(text))
    assert np.allclose(numbers, plain.data[0].embedding, atol=1e-6)
    first, *_ = live.entries(key, count=3)
    assert first["input_tokens"] == plain.usage.prompt_tokens == plain.usage.total_tokens
    assert first["task"] == "feature-extraction"


def test_vectors_are_cut_to_dimensions_and_foreign_ids_are_refused(client: OpenAI) -> None:
    short = client.embeddings.create(model="tiny-bert-vectors", input="hello", dimensions=8)
    assert len(short.data[0].embedding) == 8
    ids = client.embeddings.create(model="tiny-bert-vectors", input=[[2, 5, 6, 3], [2, 7, 3]])
    assert ids.usage.prompt_tokens == 7
    with pytest.raises(BadRequestError) as refused:
        client.embeddings.create(model="tiny-bert-vectors", input=[[15339, 1917]])
    assert "own tokenizer" in refused.value.message
    assert refused.value.param == "input.0"


def test_a_classifier_decides_in_its_own_labels(client: OpenAI, live: Live, key: str) -> None:
    made = client.decisions.create(
        model="tiny-bert-classifier",
        input=[{"role": "user", "content": [{"type": "input_text", "text": "hello world"}]}],
        questions=[
            {"type": "predicate", "name": "is_good", "instructions": "positive"},
            {
                "type": "choice",
                "instructions": "How is it?",
                "choices": [{"value": "POSITIVE"}, {"value": "bad", "description": "NEGATIVE"}],
            },
            {
                "type": "score",
                "name": "mood",
                "instructions": "How is it?",
                "levels": [{"label": "NEGATIVE"}, {"label": "POSITIVE"}],
            },
        ],
    )
    predicate, choice, score = made.answers
    assert predicate.type == "predicate" and choice.type == "choice" and score.type == "score"
    assert (predicate.name, score.name) == ("is_good", "mood")
    shares = {one.value: one.probability for one in choice.probabilities}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["POSITIVE"] == pytest.approx(predicate.probability) == pytest.approx(score.score)
    assert choice.confidence == max(shares.values()) == shares[choice.choice]
    assert [(one.value, one.label) for one in score.probabilities] == [(0, "NEGATIVE"), (1, "POSITIVE")]
    (entry,) = live.entries(key, count=1)
    assert entry["input_tokens"] == made.usage.input_tokens


def test_a_question_that_a_classifier_cannot_answer_is_refused_and_free(client: OpenAI, live: Live, key: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.decisions.create(
            model="tiny-bert-classifier",
            input="hello",
            questions=[{"type": "predicate", "instructions": "It is about sport."}],
        )
    assert "NEGATIVE, POSITIVE" in refused.value.message
    assert refused.value.param == "questions.0"
    assert live.entries(key) == []


def test_a_model_of_inference_answers_any_question(client: OpenAI) -> None:
    made = client.decisions.create(
        model="tiny-bert-nli",
        input="one two three",
        questions=[
            {"type": "predicate", "instructions": "the fox is quick"},
            {
                "type": "choice",
                "instructions": "this is",
                "choices": [{"value": True}, {"value": False}, {"value": "true"}],
            },
        ],
    )
    predicate, choice = made.answers
    assert predicate.type == "predicate" and choice.type == "choice"
    assert 0 < predicate.probability < 1
    assert [one.value for one in choice.probabilities] == [True, False, "true"]
    assert sum(one.probability for one in choice.probabilities) == pytest.approx(1)


def test_an_answer_tells_its_ids_and_its_time(client: OpenAI, live: Live, key: str) -> None:
    made = client.embeddings.with_raw_response.create(
        model="tiny-bert-vectors", input="hello", extra_headers={"x-request-id": "mine-1"}
    )
    (entry,) = live.entries(key, count=1)
    assert made.headers["x-request-id"] == "mine-1"
    assert made.headers["x-tollgate-request-id"] == entry["request_id"]
    assert int(made.headers["openai-processing-ms"]) >= 0
    assert made.headers["openai-version"] == "2020-10-01"
    odd = client.models.with_raw_response.list(extra_headers={"x-request-id": "two words"})
    assert odd.headers["x-request-id"] == odd.headers["x-tollgate-request-id"]

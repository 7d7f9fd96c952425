"""huggingface_hub's InferenceClient, as it is installed, against every task that a resident model can do."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, OverloadedError, ValidationError

from tests.wire.live import Live


@pytest.fixture
def client(live: Live, key: str) -> Iterator[Any]:
    """A client by the model's name: `client("tiny-gpt2")`."""
    yield lambda model: InferenceClient(model=f"{live.url}/models/{model}", token=key, provider="hf-inference")


def counted(live: Live, key: str, task: str) -> dict[str, Any]:
    """The one entry that the call left."""
    (entry,) = live.entries(key, count=1)
    assert entry["task"] == task
    assert entry["input_tokens"] > 0
    return entry


def test_text_generation_gives_the_text_with_or_without_the_prompt(live: Live, key: str, client: Any) -> None:
    found = client("tiny-gpt2")
    new = found.text_generation("hello world", max_new_tokens=6, return_full_text=False)
    assert new and found.text_generation("hello world", max_new_tokens=6) == "hello world" + new
    entries = live.entries(key, count=2)
    assert [entry["output_tokens"] for entry in entries] == [6, 6]


def test_text_generation_tells_details_of_every_token(live: Live, key: str, client: Any) -> None:
    found = client("tiny-gpt2").text_generation(
        "hello world", max_new_tokens=5, details=True, decoder_input_details=True, top_n_tokens=2, do_sample=True,
        seed=7, return_full_text=False,
    )  # fmt: skip
    details = found.details
    assert (details.finish_reason, details.generated_tokens, details.seed) == ("length", 5, 7)
    assert "".join(token.text for token in details.tokens) == found.generated_text
    assert details.prefill[0].logprob is None and all(token.logprob <= 0 for token in details.prefill[1:])
    assert all(len(top) == 2 and top[0]["logprob"] >= top[1]["logprob"] for top in details.top_tokens)
    entry = counted(live, key, "text-generation")
    assert (entry["input_tokens"], entry["output_tokens"]) == (len(details.prefill), 5)


def test_streams_give_the_same_text_token_by_token(live: Live, key: str, client: Any) -> None:
    found = client("tiny-gpt2")
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": True, "seed": 3, "return_full_text": False}
    whole = found.text_generation("hello", **options)
    events = list(found.text_generation("hello", stream=True, details=True, **options))
    assert "".join(one.token.text for one in events) == whole == events[-1].generated_text
    assert [one.index for one in events] == list(range(1, 9))
    assert [one.generated_text for one in events[:-1]] == [None] * 7
    last = events[-1].details
    assert (last.finish_reason, last.generated_tokens, last.seed) == ("length", 8, 3)
    assert "".join(found.text_generation("hello", stream=True, **options)) == whole
    assert [entry["output_tokens"] for entry in live.entries(key, count=3)] == [8, 8, 8]


def test_a_stop_sequence_ends_the_text_and_is_part_of_it(live: Live, key: str, client: Any) -> None:
    found = client("tiny-gpt2")
    options: dict[str, Any] = {"max_new_tokens": 12, "return_full_text": False, "details": True}
    whole = found.text_generation("hello", **options)
    stop = "".join(token.text for token in whole.details.tokens[3:5])
    cut = found.text_generation("hello", stop=[stop], **options)
    assert cut.details.finish_reason == "stop_sequence"
    assert cut.generated_text == whole.generated_text[: whole.generated_text.index(stop) + len(stop)]
    events = list(found.text_generation("hello", stop=[stop], stream=True, **options))
    assert "".join(one.token.text for one in events) == cut.generated_text == events[-1].generated_text
    assert events[-1].details.finish_reason == "stop_sequence"


def test_best_of_is_paid_in_full(live: Live, key: str, client: Any) -> None:
    found = client("tiny-gpt2").text_generation(
        "hello", max_new_tokens=4, do_sample=True, best_of=3, details=True, return_full_text=False
    )
    assert len(found.details.best_of_sequences) == 2
    assert counted(live, key, "text-generation")["output_tokens"] == sum(
        one.generated_tokens for one in [found.details, *found.details.best_of_sequences]
    )


@pytest.mark.parametrize(
    "options", [{"temperature": -1.0}, {"watermark": True}, {"best_of": 2}, {"max_new_tokens": 4000}]
)
def test_what_cannot_be_is_a_validation_error(live: Live, key: str, client: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"temperature|watermark|use sampling|spans 64"):
        client("tiny-gpt2").text_generation("hello", **options)
    assert not live.entries(key)


CHAT: Any = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 6, "temperature": 0.0}


def places(live: Live, key: str) -> list[InferenceClient]:
    """The ways to name a model for a conversation: by its own address, or as OpenAI's clients do."""
    return [
        InferenceClient(model=f"{live.url}/models/tiny-gpt2-chat", token=key),
        InferenceClient(base_url=f"{live.url}/models/tiny-gpt2-chat", api_key=key),
        InferenceClient(base_url=f"{live.url}/v1", api_key=key),
    ]


def test_chat_completion_whole_and_streamed(live: Live, key: str) -> None:
    for place, model in zip(places(live, key), (None, None, "tiny-gpt2-chat"), strict=True):
        whole = place.chat_completion(**CHAT, model=model, logprobs=True, top_logprobs=2)
        message = whole.choices[0].message
        assert message.role == "assistant" and message.content
        chunks = list(place.chat_completion(**CHAT, model=model, stream=True, stream_options={"include_usage": True}))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == message.content
        assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    entries = live.entries(key, count=6)
    assert [entry["outcome"] for entry in entries] == ["finished"] * 6
    assert {(entry["input_tokens"], entry["output_tokens"]) for entry in entries} == {
        (whole.usage.prompt_tokens, whole.usage.completion_tokens)
    }


async def test_chat_completion_by_the_asynchronous_client(live: Live, key: str) -> None:
    async with AsyncInferenceClient(model=f"{live.url}/models/tiny-gpt2-chat", token=key) as client:
        whole = await client.chat_completion(**CHAT)
        spoken = [chunk async for chunk in await client.chat_completion(**CHAT, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in spoken) == whole.choices[0].message.content != ""


def test_chat_completion_of_a_model_without_a_template_is_refused(live: Live, key: str, client: Any) -> None:
    for options in ({}, {"stream": True}):
        with pytest.raises(BadRequestError, match="has no chat template"):
            list(client("tiny-gpt2").chat_completion(**CHAT, **options))
    with pytest.raises(BadRequestError, match="response_format"):
        client("tiny-gpt2-chat").chat_completion(**CHAT, response_format={"type": "json_object"})
    assert not live.entries(key)


def test_text_classification_gives_every_label_or_the_best(live: Live, key: str, client: Any) -> None:
    found = client("tiny-bert-classifier").text_classification("hello world")
    assert [label.label for label in found] in (["NEGATIVE", "POSITIVE"], ["POSITIVE", "NEGATIVE"])
    assert sum(label.score for label in found) == pytest.approx(1)
    counted(live, key, "text-classification")
    raw = client("tiny-bert-classifier").text_classification("hello world", function_to_apply="none", top_k=1)
    assert len(raw) == 1 and raw[0].label == found[0].label and raw[0].score != found[0].score


def test_zero_shot_classification_in_the_newer_form(live: Live, key: str, client: Any) -> None:
    for multi_label in (False, True):
        found = client("tiny-bert-nli").zero_shot_classification(
            "i live in berkeley", candidate_labels=["dog", "server"], multi_label=multi_label
        )
        assert {label.label for label in found} == {"dog", "server"}
        assert found[0].score >= found[1].score
    assert [entry["task"] for entry in live.entries(key, count=2)] == ["zero-shot-classification"] * 2


def test_translation(live: Live, key: str, client: Any) -> None:
    found = client("tiny-marian").translation("hello world. one two", src_lang="en", tgt_lang="de")
    assert isinstance(found.translation_text, str)
    assert counted(live, key, "translation")["output_tokens"] > 0
    with pytest.raises(HfHubHTTPError, match="has 'de' there"):
        client("tiny-marian").translation("hello", src_lang="en", tgt_lang="fr")


def test_question_answering_gives_places_in_the_context(live: Live, key: str, client: Any) -> None:
    context = "my name is clara and i live in berkeley"
    found = client("tiny-bert-qa").question_answering(question="where do i live?", context=context)
    assert found.answer and context[found.start : found.end] == found.answer
    assert 0 < found.score <= 1
    counted(live, key, "question-answering")
    several = client("tiny-bert-qa").question_answering(question="where?", context=context, top_k=3, max_answer_len=2)
    assert len(several) == 3 and sum(one.score for one in several) <= 1
    long = client("tiny-bert-qa").question_answering(
        question="where?", context=" ".join([context] * 20), doc_stride=8, max_seq_len=64, handle_impossible_answer=True
    )
    assert long.start <= long.end


def test_fill_mask_one_place_or_several(live: Live, key: str, client: Any, caplog: pytest.LogCaptureFixture) -> None:
    found = client("tiny-bert-mask").fill_mask("hello [MASK]", top_k=3)
    assert len(found) == 3 and found[0].score >= found[1].score
    assert found[0].sequence.startswith("hello") and found[0].token_str in found[0].sequence
    counted(live, key, "fill-mask")
    some = client("tiny-bert-mask").fill_mask("hello [MASK]", targets=["world", "worldly"])
    assert "'worldly' is no token" in caplog.text, "the client prints the header X-HF-Warning"
    assert "world" in [guess.token_str for guess in some]
    several = client("tiny-bert-mask").fill_mask("[MASK] hello [MASK]", top_k=2)
    assert len(several) == 2


def test_token_classification_groups_or_tells_every_token(live: Live, key: str, client: Any) -> None:
    text = "my name is clara and i live in berkeley"
    found = client("tiny-bert-ner").token_classification(text)
    assert all(text[entity.start : entity.end] == entity.word and entity.entity_group for entity in found)
    entry = counted(live, key, "token-classification")
    tokens = client("tiny-bert-ner").token_classification(text, aggregation_strategy="none", ignore_labels=["none"])
    assert len(tokens) == entry["input_tokens"] - 2


def test_feature_extraction_and_sentence_similarity(live: Live, key: str, client: Any) -> None:
    found = client("tiny-bert-vectors").feature_extraction("hello world")
    assert found.shape == (1, 32) and np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
    counted(live, key, "feature-extraction")
    raw = client("tiny-bert-vectors").feature_extraction("hello world", normalize=False, prompt_name="query")
    assert np.linalg.norm(raw) != pytest.approx(1, abs=1e-3)
    scores = client("tiny-bert-vectors").sentence_similarity("hello", other_sentences=["hello", "one two"])
    assert scores[0] == pytest.approx(1) and scores[1] < 1
    assert live.entries(key, count=3)[-1]["task"] == "sentence-similarity"


def test_what_a_model_cannot_do_is_refused_by_name(live: Live, key: str, client: Any) -> None:
    for call in (
        lambda: client("tiny-gpt2").zero_shot_classification("a", candidate_labels=["b"]),
        lambda: client("tiny-gpt2").sentence_similarity("a", other_sentences=["b"]),
    ):
        with pytest.raises(HfHubHTTPError, match="does text-generation, not"):
            call()
    with pytest.raises(HfHubHTTPError, match="There is no model 'nothing'") as missing:
        client("nothing").fill_mask("a [MASK]")
    assert missing.value.response.status_code == 404
    assert not live.entries(key)


def test_an_unknown_key_is_401_and_not_a_failed_generation(live: Live) -> None:
    stranger = InferenceClient(model=f"{live.url}/models/tiny-gpt2", token="hf_nothing", provider="hf-inference")
    with pytest.raises(HfHubHTTPError) as refused:
        stranger.text_generation("hello")
    assert refused.value.response.status_code == 401
    assert not isinstance(refused.value, OverloadedError)


def test_health_and_description(live: Live, key: str, client: Any) -> None:
    assert client("tiny-gpt2").health_check()
    assert client("tiny-gpt2").get_endpoint_info()["max_total_tokens"] == 64


def posted(live: Live, key: str, path: str, body: Any, **headers: str) -> httpx.Response:
    return httpx.post(live.url + path, json=body, headers={"authorization": f"Bearer {key}", **headers}, timeout=30)


@pytest.mark.parametrize(
    ("model", "inputs", "parameters"),
    [
        ("tiny-gpt2", ["hello", "one two"], {"max_new_tokens": 4}),
        ("tiny-bert-classifier", ["hello", "one two"], {}),
        ("tiny-bert-nli", ["hello", "one two"], {"candidate_labels": "dog, server"}),
        ("tiny-marian", ["hello", "one two"], {}),
        ("tiny-bert-qa", [{"question": "who?", "context": c} for c in ("clara", "i live in berkeley")], {}),
        ("tiny-bert-mask", ["hello [MASK]", "[MASK] [MASK]"], {}),
        ("tiny-bert-ner", ["hello", "one two"], {"aggregation_strategy": "first", "ignore_labels": []}),
        ("tiny-bert-vectors", ["hello", "one two"], {}),
    ],
)
def test_a_list_gives_for_each_what_it_gives_alone(
    live: Live, key: str, model: str, inputs: list[Any], parameters: dict[str, Any]
) -> None:
    path = f"/models/{model}"
    together = posted(live, key, path, {"inputs": inputs, "parameters": parameters})
    assert together.status_code == 200, together.text
    alone = [posted(live, key, path, {"inputs": one, "parameters": parameters}).json() for one in inputs]
    if model in ("tiny-bert-classifier", "tiny-marian", "tiny-bert-vectors"):  # a single answer is a list of one
        alone = [one[0] for one in alone]
    assert together.json() == alone
    assert [entry["task"] for entry in live.entries(key, count=3)] == [live.entries(key)[0]["task"]] * 3


def test_any_of_a_models_tasks_has_a_path_and_unknown_ones_are_named(live: Live, key: str) -> None:
    body = {"inputs": {"source_sentence": "hello", "sentences": ["hello"]}}
    for path in (
        "/models/tiny-bert-vectors/pipeline/sentence-similarity",
        "/pipeline/sentence-similarity/tiny-bert-vectors",
    ):
        assert posted(live, key, path, body).json() == pytest.approx([1.0])
    found = posted(live, key, "/models/tiny-bert-vectors/pipeline/summarization", body)
    assert found.status_code == 404 and "feature-extraction" in found.json()["error"]


def test_answers_tell_what_was_counted_and_how_long_it_took(live: Live, key: str) -> None:
    found = posted(live, key, "/models/tiny-bert-classifier", {"inputs": "hello world"})
    (entry,) = live.entries(key, count=1)
    assert found.headers["x-prompt-tokens"] == found.headers["x-compute-tokens"] == str(entry["input_tokens"])
    assert float(found.headers["x-compute-time"]) > 0
    assert found.headers["x-compute-type"] == "cpu"
    assert found.headers["x-compute-characters"] == "11"


def test_older_zero_shot_clients_get_their_form(live: Live, key: str) -> None:
    body = {"inputs": "hello", "parameters": {"candidate_labels": ["a", "b"]}}
    for agent, is_newer in (("hf_hub/1.1.7", False), ("hf_hub/1.2.0", True), ("hf_hub/0.36.0", False), ("x", True)):
        found = posted(live, key, "/models/tiny-bert-nli", body, **{"user-agent": f"unknown/None; {agent}"}).json()
        assert isinstance(found, list) is is_newer

"""LangChain on OpenAI's and on Hugging Face's routes: the same text whole, streamed, in batches; vectors; chats."""

from typing import Any

from tests.wire.live import Live


def test_langchain_speaks_with_every_kind_of_model(live: Live, key: str) -> None:
    found: Any = live.run_client("langchain_calls", key=key)
    assert found["text"] == "".join(found["streamed"]) == found["batch"][0] != ""
    assert len(found["streamed"]) > 1
    assert found["said"] and found["spoken"] == found["again"]
    assert 0 < found["usage"]["output_tokens"] <= 6
    assert found["vectors"] == [32, 32, 32] and found["query"] == 32
    kind, message = found["tools"]
    assert kind.endswith("RequestError") and "tools are not supported" in message
    kind, message = found["no_template"]
    assert kind.endswith("RequestError") and "has no chat template" in message
    assert found["many"] == 1100
    entries = live.entries(key, count=10)
    assert len(entries) == 10 and all(entry["outcome"] == "finished" for entry in entries)
    assert sum(entry["task"] == "feature-extraction" for entry in entries) == 4, "1,100 texts are two requests"


def test_langchain_huggingface_speaks_with_every_kind_of_model(live: Live, key: str) -> None:
    found: Any = live.run_client(
        "langchain_huggingface_calls", key=key, environment="langchain-huggingface", hf_hub_offline="0"
    )
    assert found["text"] == "".join(found["streamed"]) == found["batch"][0] != ""
    assert len(found["streamed"]) > 1
    assert found["said"] and found["spoken"] == found["again"]
    assert 0 < found["usage"]["output_tokens"] <= 6
    assert found["vectors"] == [32, 32, 32] and found["query"] == 32
    kind, message = found["no_template"]
    assert kind == "BadRequestError" and "has no chat template" in message
    entries = live.entries(key, count=9)
    assert len(entries) == 9 and all(entry["outcome"] == "finished" for entry in entries)
    counts = ("input_tokens", "output_tokens")
    told = [found["usage"], *found["spoken_usage"]]
    assert [[entry[name] for name in counts] for entry in entries[:2]] == [
        [one[name] for name in counts] for one in told
    ]

"""Clients that need environments of their own: huggingface_hub before 1.2, and the text-generation package."""

import pytest

from tests.wire.live import Live


@pytest.mark.parametrize("environment", ["hub-0.36", "hub-1.0"])
def test_older_hub_clients_read_every_task(live: Live, key: str, environment: str) -> None:
    found = live.run_client("hub_older", key=key, environment=environment, hf_hub_offline="0")
    assert found["version"].startswith(environment.removeprefix("hub-"))
    assert "".join(event["token"]["text"] for event in found["streamed"]) == found["whole"]
    assert found["streamed"][-1]["details"]["finish_reason"] == "length"
    said, spoken = found["said"], found["spoken"]
    deltas = [chunk["choices"][0]["delta"] for chunk in spoken if chunk["choices"]]
    assert deltas[0]["role"] == said["choices"][0]["message"]["role"] == "assistant"
    assert "".join(delta.get("content") or "" for delta in deltas) == said["choices"][0]["message"]["content"] != ""
    assert spoken[-1]["choices"] == [] and spoken[-1]["usage"] == said["usage"]
    assert {label["label"] for label in found["labels"]} == {"NEGATIVE", "POSITIVE"}
    assert {label["label"] for label in found["zero_shot"]} == {"dog", "server"}
    assert sum(label["score"] for label in found["zero_shot"]) == pytest.approx(1)
    assert found["translation"]["translation_text"]
    assert found["answer"]["answer"]
    assert len(found["masks"]) == 5 and found["masks"][0]["token_str"]
    assert all(entity["end"] > entity["start"] for entity in found["entities"])
    assert found["similar"] == pytest.approx([1.0])
    entries = live.entries(key, count=11)
    assert len(entries) == 11 and all(entry["outcome"] == "finished" for entry in entries)
    assert [(entry["input_tokens"], entry["output_tokens"]) for entry in entries if "chat" in entry["route"]] == [
        (said["usage"]["prompt_tokens"], said["usage"]["completion_tokens"])
    ] * 2


@pytest.mark.parametrize("path", ["", "/models/tiny-gpt2"])
def test_the_text_generation_package(live: Live, key: str, path: str) -> None:
    found = live.run_client("tgi_client", key=key, environment="text-generation", path_of_model=path)
    assert "".join(found["tokens"]) == found["text"] == "".join(found["streamed"])
    assert found["last"] == found["text"], "this client asks for the new text alone"
    assert found["full"] == "hello world" + found["text"]
    assert found["top"] == [2] * 6
    assert found["others"] == 1
    assert found["reason"] == "length"
    assert "spans 64" in found["refusal"]
    entries = live.entries(key, count=4)
    assert [entry["output_tokens"] for entry in entries] == [6, 6, entries[2]["output_tokens"], 6]
    assert entries[0]["input_tokens"] == found["prefill"]

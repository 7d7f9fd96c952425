"""OpenAI's SDK on /v1/chat/completions: models with a chat template, and a clear word about those without."""

from collections.abc import Iterator
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from tests.wire.live import Live

HELLO = [{"role": "user", "content": "hello"}]
ASKED: Any = {"model": "tiny-gpt2-chat", "messages": HELLO, "seed": 1, "max_completion_tokens": 6}


@pytest.fixture
def client(live: Live, key: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=live.url + "/v1", api_key=key, max_retries=0) as made:
        yield made


def test_a_conversation_is_what_its_template_makes_of_it(client: OpenAI, live: Live, key: str) -> None:
    messages: Any = [
        {"role": "developer", "content": "good morning"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
    ]
    made = client.chat.completions.create(**(ASKED | {"messages": messages}), temperature=0)
    text = client.completions.create(
        model="tiny-gpt2", prompt="system: good morning\nuser: hello\nassistant:", max_tokens=6, temperature=0
    )
    assert made.object == "chat.completion" and made.id.startswith("chatcmpl-")
    assert made.choices[0].message.role == "assistant"
    assert made.choices[0].message.content == text.choices[0].text
    assert made.usage is not None and text.usage is not None
    assert made.usage.prompt_tokens == text.usage.prompt_tokens
    first, second = live.entries(key, count=2)
    assert first["input_tokens"] == second["input_tokens"] == made.usage.prompt_tokens


def test_a_stream_adds_up_to_the_whole(client: OpenAI) -> None:
    asked = ASKED | {"n": 2, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**asked)
    texts, tokens, roles, reasons = {0: "", 1: ""}, {0: list[str](), 1: list[str]()}, dict[int, str](), dict[int, str]()
    usage = None
    for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            roles.setdefault(choice.index, choice.delta.role or "none")
            tokens[choice.index] += [one.token for one in (choice.logprobs.content or [])] if choice.logprobs else []
            if choice.finish_reason is not None:
                reasons[choice.index] = choice.finish_reason
    assert roles == {0: "assistant", 1: "assistant"}
    for choice in whole.choices:
        assert texts[choice.index] == choice.message.content
        assert reasons[choice.index] == choice.finish_reason
        assert choice.logprobs is not None and choice.logprobs.content is not None
        assert tokens[choice.index] == [one.token for one in choice.logprobs.content]
        for one in choice.logprobs.content:
            assert len(one.top_logprobs) == 2 and bytes(one.bytes or []).decode() == one.token
    assert usage is not None and whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_a_model_without_a_template_is_refused_with_the_way_out(client: OpenAI, live: Live, key: str) -> None:
    for more in ({}, {"stream": True}):
        with pytest.raises(BadRequestError) as refused:
            client.chat.completions.create(**(ASKED | {"model": "tiny-gpt2"} | more))
        assert refused.value.code == "model_has_no_chat_template"
        assert "/v1/completions" in refused.value.message
    assert live.entries(key) == []


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
     "messages.0.content.0"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"extra_body": {"chat_template": "x"}}, "chat_template"),
    ({"max_completion_tokens": 100}, "prompt.0"),
    ({"messages": []}, "messages"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "field"), REFUSED, ids=lambda value: value if isinstance(value, str) else None)
def test_what_cannot_be_done_is_refused_by_its_field(client: OpenAI, more: dict[str, Any], field: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(**(ASKED | more))
    assert refused.value.param == field


def test_what_asks_for_text_is_accepted(client: OpenAI) -> None:
    made = client.chat.completions.create(**ASKED, response_format={"type": "text"}, tool_choice="none", stop=["zzz"])
    assert made.choices[0].finish_reason in ("length", "stop")

"""OpenAI's SDK on /v1/completions: every field that it or vLLM's clients send, whole and streamed."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import APIError, BadRequestError, OpenAI
from transformers import AutoTokenizer, GPT2LMHeadModel

from tests.wire.live import Live

GPT2: Any = {"model": "tiny-gpt2", "prompt": "hello world", "max_tokens": 8, "seed": 1}


@pytest.fixture
def client(live: Live, key: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=live.url + "/v1", api_key=key, max_retries=0) as made:
        yield made


def text_of(client: OpenAI, **more: Any) -> str:
    return client.completions.create(**(GPT2 | {"temperature": 0} | more)).choices[0].text


def test_a_prompt_is_the_same_as_text_as_ids_and_in_lists(client: OpenAI, live: Live, key: str) -> None:
    told = client.completions.create(**GPT2, temperature=0, extra_body={"return_token_ids": True})
    raw: Any = told.choices[0]
    ids: list[int] = raw.prompt_token_ids
    assert len(ids) == told.usage.prompt_tokens
    assert len(raw.token_ids) == told.usage.completion_tokens
    assert text_of(client, prompt=ids) == raw.text
    many = client.completions.create(**(GPT2 | {"prompt": ["hello world", "one two"], "n": 2, "temperature": 0}))
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in many.choices]
    assert texts[0] == texts[1] == raw.text and texts[2] == texts[3] == text_of(client, prompt="one two")
    both = client.completions.create(**(GPT2 | {"prompt": [ids, ids], "temperature": 0}))
    assert [choice.text for choice in both.choices] == [raw.text] * 2
    assert live.entries(key)[-1]["input_tokens"] == 2 * len(ids)


def test_nothing_as_prompt_begins_by_itself(client: OpenAI, live: Live, key: str) -> None:
    answer = httpx.post(
        live.url + "/v1/completions", json={"model": "tgi", "max_tokens": None, "ignore_eos": True},
        headers={"authorization": f"Bearer {key}"},
    ).json()  # fmt: skip
    assert answer["model"] == "tiny-gpt2"
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (1, 16)
    assert answer["system_fingerprint"].startswith("fp_")
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}


def test_echo_scores_the_prompt_and_text_offsets_are_characters(client: OpenAI) -> None:
    asked = GPT2 | {"prompt": "héllo ☃ world", "echo": True, "logprobs": 2, "temperature": 0}
    made = client.completions.create(**asked)
    choice, usage = made.choices[0], made.usage
    assert choice.text.startswith("héllo ☃ world") and usage is not None
    found = choice.logprobs
    assert found is not None and found.tokens is not None and found.token_logprobs is not None
    assert len(found.tokens) == len(found.token_logprobs) == usage.prompt_tokens + usage.completion_tokens
    assert found.token_logprobs[0] is None and found.top_logprobs is not None and found.top_logprobs[0] is None
    assert all(one is not None and one < 0 for one in found.token_logprobs[1:])
    offsets = found.text_offset
    assert offsets is not None and offsets == sorted(offsets)
    assert offsets[usage.prompt_tokens] == len("héllo ☃ world")
    for place, token in enumerate(found.tokens):
        if "\N{REPLACEMENT CHARACTER}" not in token and token != "<|endoftext|>":
            assert choice.text[offsets[place] :].startswith(token)
    read = client.completions.create(**(asked | {"max_tokens": 0}))
    assert read.usage is not None and read.usage.completion_tokens == 0
    assert read.choices[0].text == "héllo ☃ world"
    assert read.choices[0].logprobs is not None
    assert read.choices[0].logprobs.token_logprobs == found.token_logprobs[: usage.prompt_tokens]


def test_a_stream_adds_up_to_the_whole(client: OpenAI) -> None:
    asked = GPT2 | {"n": 2, "echo": True, "logprobs": 1}
    whole = client.completions.create(**asked)
    texts, tokens, offsets = {0: "", 1: ""}, {0: list[str](), 1: list[str]()}, {0: list[int](), 1: list[int]()}
    for chunk in client.completions.create(**asked, stream=True):
        assert chunk.usage is None
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            if choice.logprobs is not None:
                tokens[choice.index] += choice.logprobs.tokens or []
                offsets[choice.index] += choice.logprobs.text_offset or []
    for choice in whole.choices:
        assert choice.logprobs is not None
        assert (texts[choice.index], tokens[choice.index]) == (choice.text, choice.logprobs.tokens)
        assert offsets[choice.index] == choice.logprobs.text_offset


def test_usage_comes_at_the_end_or_on_every_chunk(live: Live, key: str) -> None:
    asked = GPT2 | {"stream": True, "ignore_eos": True, "stop": None}
    headers = {"authorization": f"Bearer {key}"}

    def chunks(options: dict[str, bool]) -> list[dict[str, Any]]:
        answer = httpx.post(live.url + "/v1/completions", json=asked | {"stream_options": options}, headers=headers)
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")
        lines = [line for line in answer.text.split("\n\n") if line]
        assert all(line.startswith("data: ") and "\n" not in line for line in lines)
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]

    last = chunks({"include_usage": True})
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in last[:-1])
    assert last[-1]["choices"] == [] and last[-1]["usage"]["completion_tokens"] == 8
    every = chunks({"continuous_usage_stats": True, "include_usage": True})
    counts = [chunk["usage"]["completion_tokens"] for chunk in every]
    assert counts == sorted(counts) and counts[0] >= 1 and counts[-1] == 8
    entries = live.entries(key, count=2)
    assert [entry["output_tokens"] for entry in entries] == [8, 8]


def test_the_best_of_several_is_shown_and_all_are_counted(client: OpenAI, live: Live, key: str) -> None:
    asked = GPT2 | {"extra_body": {"ignore_eos": True}, "logprobs": 1}
    every = client.completions.create(**asked, n=4)
    best = client.completions.create(**asked, n=2, best_of=4)

    def mean(choice: Any) -> float:
        return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)

    ranked = sorted(every.choices, key=mean, reverse=True)
    assert [choice.text for choice in best.choices] == [choice.text for choice in ranked[:2]]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.usage is not None and best.usage.completion_tokens == 32 == live.entries(key)[-1]["output_tokens"]


def test_stops_end_the_text_and_say_which_it_was(client: OpenAI, live: Live, key: str) -> None:
    whole = text_of(client, max_tokens=20)
    stop = whole[5:8]
    many = [f"never{place}" for place in range(20)]
    cut = client.completions.create(**(GPT2 | {"temperature": 0, "max_tokens": 20, "stop": [*many, stop]}))
    assert cut.choices[0].text == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop" and cut.choices[0].model_extra == {"stop_reason": stop}
    shown = text_of(client, max_tokens=20, stop=stop, extra_body={"include_stop_str_in_output": True})
    assert shown == whole[: whole.index(stop) + len(stop)]
    told: Any = client.completions.create(**GPT2, temperature=0, extra_body={"return_token_ids": True}).choices[0]
    ended = client.completions.create(**GPT2, temperature=0, extra_body={"stop_token_ids": [told.token_ids[2]]})
    assert ended.choices[0].model_extra == {"stop_reason": told.token_ids[2]}
    assert ended.usage is not None and ended.usage.completion_tokens <= 3
    longer = client.completions.create(
        **GPT2, temperature=0, extra_body={"stop_token_ids": [told.token_ids[0]], "min_tokens": 3}
    )
    assert longer.usage is not None and longer.usage.completion_tokens > 3


def test_tokens_are_allowed_banned_and_told_by_id(client: OpenAI) -> None:
    told: Any = client.completions.create(**GPT2, temperature=0, extra_body={"return_token_ids": True}).choices[0]
    ids: list[int] = told.token_ids
    made: Any = client.completions.create(
        **GPT2, logprobs=1, extra_body={"allowed_token_ids": ids[:2], "return_tokens_as_token_ids": True}
    ).choices[0]
    assert set(made.logprobs.tokens) <= {f"token_id:{token}" for token in ids[:2]}
    word = told.text.split()[0]
    assert word not in text_of(client, extra_body={"bad_words": [word]}).split()
    assert text_of(client, logit_bias={str(ids[0]): -100}) != told.text
    assert text_of(client, extra_body={"top_k": 1, "min_p": 0.5, "repetition_penalty": 1.0}) == told.text


def test_beams_write_what_transformers_writes(client: OpenAI, live: Live) -> None:
    folder = live.checkpoints["tiny-gpt2"]
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = GPT2LMHeadModel.from_pretrained(folder)
    read = tokenizer("hello world", return_tensors="pt")
    ids = model.generate(**read, num_beams=4, do_sample=False, max_new_tokens=8, pad_token_id=0, length_penalty=0.5)
    expected = tokenizer.decode(ids[0, read["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text_of(client, best_of=4, extra_body={"use_beam_search": True, "length_penalty": 0.5}) == expected
    assert text_of(client, best_of=1, extra_body={"use_beam_search": True}) == text_of(client)


def test_prompt_logprobs_and_the_last_tokens_of_a_prompt(client: OpenAI) -> None:
    made = client.completions.create(**GPT2, extra_body={"prompt_logprobs": 2, "truncate_prompt_tokens": 3})
    assert made.usage is not None and made.usage.prompt_tokens == 3
    listed: Any = (made.choices[0].model_extra or {})["prompt_logprobs"]
    assert listed[0] is None and len(listed) == 3
    assert all(2 <= len(one) <= 3 for one in listed[1:])
    assert all(one["logprob"] < 0 and one["decoded_token"] for entry in listed[1:] for one in entry.values())
    long = client.completions.create(**(GPT2 | {"prompt": "one " * 200}), extra_body={"truncate_prompt_tokens": -1})
    assert long.usage is not None and long.usage.prompt_tokens == 64 - 8


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"suffix": "x"}, "suffix"),
    ({"n": 3, "best_of": 2}, "best_of"),
    ({"best_of": 2, "stream": True}, "best_of"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 64}, "prompt.0"),
    ({"stop": ["x"] * 40}, "stop"),
    ({"logprobs": 21}, "logprobs"),
    ({"prompt": [[1], [10**6]]}, "prompt.1"),
    ({"extra_body": {"allowed_token_ids": [10**6]}}, "allowed_token_ids"),
    ({"extra_body": {"stop_token_ids": [10**6]}}, "stop_token_ids"),
    ({"extra_body": {"use_beam_search": True}, "n": 2}, "n"),
    ({"extra_body": {"use_beam_search": True}, "logprobs": 1}, "logprobs"),
    ({"extra_body": {"prompt_logprobs": 1}, "stream": True}, "prompt_logprobs"),
]


@pytest.mark.parametrize(("more", "field"), REFUSED, ids=lambda value: value if isinstance(value, str) else None)
def test_what_cannot_be_done_is_refused_by_its_field_and_free(
    client: OpenAI, live: Live, key: str, more: dict[str, Any], field: str
) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.completions.create(**(GPT2 | more))
    assert refused.value.param == field
    assert live.entries(key) == []


def test_fields_of_other_servers_are_accepted(client: OpenAI) -> None:
    more = {"priority": 3, "cache_salt": "x", "request_id": "mine", "length_penalty": 1.0, "no_such_field": [1]}
    assert text_of(client, extra_body=more, user="somebody") == text_of(client)


def test_an_error_in_the_middle_of_a_stream_reaches_the_client(client: OpenAI, live: Live) -> None:
    with pytest.raises(APIError) as failed:
        for _ in client.completions.create(
            **(GPT2 | {"max_tokens": 50, "extra_body": {"ignore_eos": True}}), stream=True
        ):
            live.on_server(live.running.app.state.serving.engine.unload("tiny-gpt2"))
    live.on_server(live.running.app.state.serving.residency.unload("tiny-gpt2"))
    assert failed.value.code == "model_unavailable"
    assert text_of(client)

"""The real libretranslatepy package, and what other clients of LibreTranslate send."""

import json
from urllib.error import HTTPError

import httpx
import pytest
from libretranslatepy import LibreTranslateAPI

from tests.wire.live import Live


def test_the_client_translates_detects_and_lists(live: Live, key: str) -> None:
    client = LibreTranslateAPI(live.url, api_key=key)
    text = "where do i live? what is your name?"
    assert client.translate(text, "en", "de")
    assert client.translate(text, "auto", "de") == client.translate(text, "en", "de")
    found = client.detect("Guten Morgen, wie geht es Ihnen heute?")
    assert found[0]["language"] == "de" and found[0]["confidence"] > 50
    assert client.languages() == [{"code": "en", "name": "English", "targets": ["de"]}]
    entries = live.entries(key, count=3)
    assert [entry["characters"] for entry in entries] == [len(text)] * 3
    assert all(entry["task"] == "translation" and entry["route"] == "/translate" for entry in entries)


def test_a_list_is_one_batch_each_text_with_its_language(live: Live, key: str) -> None:
    body = {"q": ["hello world", "one two three"], "source": "auto", "target": "de", "alternatives": 2, "api_key": key}
    answer = httpx.post(live.url + "/translate", json=body).json()
    assert len(answer["translatedText"]) == len(answer["detectedLanguage"]) == 2
    assert [len(others) for others in answer["alternatives"]] == [2, 2]
    (entry,) = live.entries(key, count=1)
    assert entry["characters"] == len("hello worldone two three")


def test_alternatives_are_other_translations_and_are_paid(live: Live, key: str) -> None:
    sent = {"q": "my name is clara. where do i live?", "source": "en", "target": "de", "api_key": key}
    alone = httpx.post(live.url + "/translate", data=sent).json()
    assert "alternatives" not in alone
    answer = httpx.post(live.url + "/translate", data=sent | {"alternatives": "3"}).json()
    texts = [answer["translatedText"], *answer["alternatives"]]
    assert texts[0] == alone["translatedText"] and len(set(texts)) == 4
    one, four = live.entries(key, count=2)
    assert four["input_tokens"] == one["input_tokens"] and four["output_tokens"] > one["output_tokens"]
    many = httpx.post(live.url + "/translate", data=sent | {"alternatives": "8"})
    assert many.status_code == 400 and "alternatives" in many.json()["error"]


def test_the_query_is_read_too(live: Live, key: str) -> None:
    sent = {"q": "hello", "source": "en", "target": "de", "api_key": key}
    assert httpx.post(live.url + "/translate", params=sent).json()["translatedText"]
    assert len(live.entries(key, count=1)) == 1


@pytest.mark.parametrize("form", ["json", "data", "params"])
def test_an_idempotency_key_goes_with_the_key_in_the_body(live: Live, key: str, form: str) -> None:
    def sent(q: str, api_key: str = key) -> httpx.Response:
        fields = {"q": q, "source": "en", "target": "de", "api_key": api_key}
        headers = {"idempotency-key": "once"}
        return httpx.post(live.url + "/translate", headers=headers, **{form: fields})  # pyright: ignore[reportArgumentType]

    first, again, other, stranger = sent("hello"), sent("hello"), sent("good morning"), sent("hello", "nonsense")
    assert first.status_code == 200 and first.json()["translatedText"]
    assert again.content == first.content and again.headers["idempotency-replayed"] == "true"
    assert other.status_code == 422 and "Idempotency-Key" in other.json()["error"], "LibreTranslate's own envelope"
    assert stranger.status_code == 403 and isinstance(stranger.json()["error"], str)
    assert len(live.entries(key, count=1)) == 1


def test_errors_have_the_shape_that_clients_read(live: Live, key: str) -> None:
    with pytest.raises(HTTPError) as refused:
        LibreTranslateAPI(live.url, api_key="nonsense").translate("hello", "en", "de")
    assert refused.value.code == 403 and "error" in json.loads(refused.value.read())
    with pytest.raises(HTTPError):
        LibreTranslateAPI(live.url).languages()
    for wrong, word in (
        ({"format": "html"}, "html"),
        ({"target": "ja"}, "en-de"),
        ({"q": []}, "q"),
        ({"q": " "}, "empty"),
    ):
        body = {"q": "hello", "source": "en", "target": "de", "api_key": key} | wrong
        answer = httpx.post(live.url + "/translate", json=body)
        assert answer.status_code == 400 and word in answer.json()["error"], answer.text
    assert live.entries(key) == []


def test_clients_learn_that_a_key_is_needed_without_one(live: Live) -> None:
    assert httpx.get(live.url + "/frontend/settings").json()["keyRequired"] is True

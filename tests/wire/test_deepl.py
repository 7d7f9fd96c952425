"""The real deepl package, by changing its server's address and key."""

from collections.abc import Iterator

import deepl
import httpx
import pytest

from app.api.deepl import refusal
from app.errors import InsufficientQuota, MissingKey, RateLimited
from tests.wire.live import Live


@pytest.fixture
def client(live: Live, key: str) -> Iterator[deepl.DeepLClient]:
    deepl.http_client.max_network_retries = 0
    made = deepl.DeepLClient(key, server_url=live.url)
    yield made
    made.close()


def test_texts_are_translated_with_their_language_and_characters(
    live: Live, key: str, client: deepl.DeepLClient
) -> None:
    texts = ["hello world", "good morning, how are you today?"]
    found = client.translate_text(texts, target_lang="DE")
    assert isinstance(found, list)
    assert [one.billed_characters for one in found] == [len(text) for text in texts]
    assert {one.detected_source_lang for one in found} == {"EN"}
    alone = client.translate_text(texts[0], source_lang="EN", target_lang="DE")
    assert isinstance(alone, deepl.TextResult) and alone.text == found[0].text
    first, second = live.entries(key, count=2)
    assert (first["characters"], second["characters"]) == (sum(map(len, texts)), len(texts[0]))
    assert first["input_tokens"] > 0 and first["output_tokens"] > 0
    assert {first["route"], second["route"]} == {"/v2/translate"}
    assert client.get_usage().character.count == sum(map(len, texts)) + len(texts[0])


def test_the_client_chooses_where_texts_are_split(live: Live, key: str, client: deepl.DeepLClient) -> None:
    text = "hello world\none two"
    for split, lines in ((None, 2), (deepl.SplitSentences.ALL, 2), (deepl.SplitSentences.NO_NEWLINES, 1)):
        found = client.translate_text(text, source_lang="EN", target_lang="DE", split_sentences=split)
        assert isinstance(found, deepl.TextResult)
        assert len(found.text.splitlines()) == lines, split
    assert len(live.entries(key, count=3)) == 3


def test_blank_texts_come_back_and_cost_nothing(live: Live, key: str, client: deepl.DeepLClient) -> None:
    found = client.translate_text([" ", "hello", ""], source_lang="EN", target_lang="DE")
    assert isinstance(found, list)
    assert (found[0].text, found[2].text) == (" ", "") and found[1].text
    assert [one.billed_characters for one in found] == [0, 5, 0]
    (entry,) = live.entries(key, count=1)
    assert entry["characters"] == 5


def test_languages_are_those_of_the_models(client: deepl.DeepLClient) -> None:
    assert [one.code for one in client.get_source_languages()] == ["EN"]
    assert [(one.code, one.name) for one in client.get_target_languages()] == [("DE", "German")]


def test_what_cannot_be_done_is_refused_by_name_and_free(live: Live, key: str, client: deepl.DeepLClient) -> None:
    for wrong, word in (
        ({"target_lang": "JA"}, "ja"),
        ({"target_lang": "DE", "tag_handling": "html"}, "tag_handling"),
        ({"target_lang": "DE", "formality": "more"}, "formality"),
    ):
        with pytest.raises(deepl.DeepLException, match=word):
            client.translate_text("hello", source_lang="EN", **wrong)
    french = "Bonjour à tous, je suis très heureux de vous retrouver ici ce soir avec mes amis."
    with pytest.raises(deepl.DeepLException, match="French"):
        client.translate_text(french, target_lang="DE")
    with pytest.raises(deepl.DeepLException, match="413"):
        client.translate_text("x" * 2**21, source_lang="EN", target_lang="DE")
    assert live.entries(key) == []


def test_a_budget_that_is_used_up_is_the_clients_quota(live: Live, key: str, client: deepl.DeepLClient) -> None:
    live.allow_money(key, task="translation", model="tiny-marian", requests=1.5)
    assert client.translate_text("hello", target_lang="DE")
    with pytest.raises(deepl.QuotaExceededException):
        client.translate_text("hello", target_lang="DE")
    assert len(live.entries(key)) == 1


def test_a_bad_key_is_an_authorization_error(live: Live) -> None:
    stranger = deepl.DeepLClient("nonsense", server_url=live.url)
    with pytest.raises(deepl.AuthorizationException):
        stranger.translate_text("hello", target_lang="DE")
    stranger.close()


def test_forms_are_read_and_unknown_fields_named(live: Live, key: str) -> None:
    form = {"text": ["hello", "world"], "target_lang": "de-DE", "outline_detection": "0"}
    answer = httpx.post(live.url + "/v2/translate", data=form, headers={"authorization": f"DeepL-Auth-Key {key}"})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["translations"]) == 2
    assert "billed_characters" not in answer.json()["translations"][0]
    assert answer.headers["x-ignored-fields"] == "outline_detection"
    assert len(live.entries(key, count=1)) == 1


def test_budgets_and_limits_have_the_statuses_that_the_client_knows() -> None:
    errors = (InsufficientQuota(), RateLimited(), MissingKey())
    assert [refusal(error).status_code for error in errors] == [456, 429, 403]

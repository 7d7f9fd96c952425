"""Every error of the tree has an answer, and no answer tells what the caller may not know."""

import pytest
from pydantic import ValidationError

from app.api.body import fault_of
from app.api.errors import answer_of
from app.api.openai.completions import CompletionBody
from app.errors import EngineOverloaded, InvalidKey, InvalidRequest, Kind, SourceError, TollgateError
from tests.house.test_errors import every_class


@pytest.mark.parametrize("found", every_class(), ids=lambda found: found.__name__)
def test_every_error_has_an_answer(found: type[TollgateError]) -> None:
    answer = answer_of(found())
    assert 400 <= answer.status <= 599
    assert set(answer.body["error"]) == {"message", "type", "param", "code"}
    assert answer.body["error"]["message"]
    assert ("retry-after" in answer.headers) == (found().retry_after_s is not None)
    assert (answer.status >= 500) == (found.kind in (Kind.UNAVAILABLE, Kind.TIMEOUT, Kind.OPERATOR, Kind.INTERNAL))


@pytest.mark.parametrize("error", [ValueError("/srv/secret"), SourceError("/srv/secret"), KeyError("prompt text")])
def test_what_is_not_for_the_caller_stays_inside(error: Exception) -> None:
    answer = answer_of(error)
    assert "secret" not in str(answer)
    assert "prompt text" not in str(answer)


def test_the_caller_learns_the_field_the_wait_and_the_scheme() -> None:
    assert answer_of(InvalidRequest("too low", field="top_p")).body["error"]["param"] == "top_p"
    assert answer_of(EngineOverloaded(retry_after_s=0.25)).headers == {"retry-after": "1", "retry-after-ms": "250"}
    assert answer_of(InvalidKey()).headers == {"www-authenticate": "Bearer"}


def test_a_long_message_is_bounded() -> None:
    assert len(answer_of(InvalidRequest("x" * 100_000)).body["error"]["message"]) == 500


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"prompt": 5}, "prompt: Input should be a valid string or a valid list"),
        ({"max_tokens": -1}, "max_tokens: Input should be greater than or equal to 0"),
    ],
)
def test_a_field_that_may_be_several_things_says_which(sent: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        CompletionBody.model_validate({"model": "m", **sent})
    assert fault_of(refused.value).message == message

"""LibreTranslate's API, as its clients speak it: /translate, /detect, /languages, /frontend/settings.

JSON, forms and the query; the key in a field `api_key` (or a header). HTML is refused by name.
"""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from app.admission.authenticate import Principal
from app.api.body import model_of
from app.api.context import RequestId, Rooms, admitted
from app.api.dialect import route_in
from app.api.disconnect import unless_hung_up
from app.api.document import body_schema
from app.api.errors import answer_of
from app.api.folding import folded
from app.api.forms import read_form
from app.api.native import as_texts
from app.api.pairs import choose, directions
from app.api.receipts import cost_headers
from app.errors import Kind, TollgateError, UnsupportedParameter
from app.tasks.translation import Translation, TranslationRequest
from app.text.languages import Guess, detect, name_of

ROUTE = "/translate"
KEYED = frozenset({ROUTE, "/detect"})
"""Where a key may come in the body."""
AUTO = "auto"
DETECTED_MAX = 3
ALTERNATIVES_MAX = 7
"""Each widens the beam search by one."""


def refusal(error: TollgateError) -> JSONResponse:
    """LibreTranslate's envelope; a key that is no good is 403."""
    answer = answer_of(error)
    found = answer.body["error"]
    status = 403 if error.kind is Kind.UNAUTHENTICATED else answer.status
    return JSONResponse({"error": found["message"], "code": found["code"]}, status, answer.headers)


class TranslateBody(BaseModel):
    """A text, or several, to translate."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"q": "Where is the station?", "source": "en", "target": "pt"}]},
    )

    q: str | Annotated[list[str], Field(min_length=1)]
    source: str = Field(min_length=2, max_length=20, description="ISO 639-1, or auto.")
    target: str = Field(min_length=2, max_length=20, description="ISO 639-1.")
    format: Literal["text", "html"] = "text"
    alternatives: int = Field(
        default=0,
        ge=0,
        le=ALTERNATIVES_MAX,
        description="So many other translations, if there are; paid like the first.",
    )
    api_key: str | None = None


class TranslatedBody(BaseModel):
    """The translation, or several for several texts."""

    translatedText: str | list[str]  # noqa: N815
    detectedLanguage: dict[str, Any] | list[dict[str, Any]] | None = None  # noqa: N815
    alternatives: list[Any] | None = None


class DetectBody(BaseModel):
    """A text whose language is asked for."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"q": "Bom dia"}]})

    q: str = Field(min_length=1)
    api_key: str | None = None


class DetectedBody(BaseModel):
    confidence: float = Field(description="Out of 100.")
    language: str


class LanguageBody(BaseModel):
    code: str
    name: str
    targets: list[str]


def detected(guess: Guess) -> dict[str, Any]:
    """A guess on the wire."""
    return {"confidence": round(guess.confidence * 100, 1), "language": guess.language}


async def opened(request: Request) -> tuple[Principal, dict[str, Any]]:
    """Who asks, by the key in what was sent or in a header, and what was sent. Raises MissingKey or InvalidKey."""
    sent = await read_form(request, has_query=True)
    return await admitted(request, key_in_body=key_of(sent)), sent


def key_of(sent: dict[str, Any]) -> str | None:
    """The key among what was sent."""
    key = sent.get("api_key")
    return key if isinstance(key, str) else None


router = APIRouter(tags=["libretranslate"], route_class=route_in(refusal))


@router.post(
    "/translate",
    response_model=TranslatedBody,
    openapi_extra=body_schema(TranslateBody),
    summary="LibreTranslate: translate",
)
async def translate(request: Request, serving: Rooms, request_id: RequestId) -> JSONResponse:
    """A text's translation, or a list's, in one batch; with `source: auto` the language of each is detected."""
    principal, sent = await opened(request)
    body = model_of(request, sent, TranslateBody)
    if body.format == "html":
        raise UnsupportedParameter("html is not supported: tags would be translated; send plain text", field="format")
    texts = as_texts(body.q)
    source = None if body.source == AUTO else body.source.partition("-")[0].lower()
    target = body.target.partition("-")[0].lower()
    chosen = await choose(serving.residency, principal, texts, source=source, target=target, names="source")
    asked = TranslationRequest(texts=texts, alternatives=body.alternatives)
    work = folded(
        serving, Translation(), asked, model=chosen.model, principal=principal, request_id=request_id, route=ROUTE
    )
    found, receipt = await unless_hung_up(request, work)
    is_one = isinstance(body.q, str)
    answer: dict[str, Any] = {"translatedText": found[0].text if is_one else [one.text for one in found]}
    if source is None:
        guesses = [detected(guess) for guess in chosen.guesses]
        answer["detectedLanguage"] = guesses[0] if is_one else guesses
    if body.alternatives:
        answer["alternatives"] = found[0].alternatives if is_one else [one.alternatives for one in found]
    return JSONResponse(answer, headers=cost_headers(receipt))


@router.post(
    "/detect",
    response_model=list[DetectedBody],
    openapi_extra=body_schema(DetectBody),
    summary="LibreTranslate: detect",
)
async def detect_language(request: Request) -> JSONResponse:
    """The likeliest languages of a text. No model runs: it is not charged."""
    _, sent = await opened(request)
    body = model_of(request, sent, DetectBody)
    guesses = await asyncio.to_thread(detect, body.q)
    return JSONResponse([detected(guess) for guess in guesses[:DETECTED_MAX]])


@router.get("/languages", response_model=list[LanguageBody], summary="LibreTranslate: languages")
async def languages(request: Request, serving: Rooms) -> JSONResponse:
    """What this key's models read, and what each can be translated into."""
    principal, _ = await opened(request)
    targets: dict[str, list[str]] = {}
    for one in directions(serving.residency, principal):
        targets.setdefault(one.languages.source, []).append(one.languages.target)
    found = [LanguageBody(code=code, name=name_of(code), targets=sorted(to)) for code, to in sorted(targets.items())]
    return JSONResponse([one.model_dump() for one in found])


@router.get("/frontend/settings", summary="LibreTranslate: what clients may ask for")
async def frontend_settings() -> dict[str, Any]:
    """What LibreTranslate's clients look up before they ask; no key is needed."""
    return {
        "apiKeys": True, "keyRequired": True, "charLimit": -1, "frontendTimeout": 500, "filesTranslation": False,
        "suggestions": False, "supportedFilesFormat": [],
        "language": {"source": {"code": AUTO, "name": "Auto Detect"}, "target": {"code": "", "name": ""}},
    }  # fmt: skip

"""DeepL's API, version 2, as its clients speak it: /v2/translate, /v2/usage and /v2/languages.

A target's regional variant (PT-BR, EN-GB) is read as its language: the model decides which one it writes. What would
change the result and cannot be done (tags, formality, glossaries) is refused by name; what only tunes it is ignored and
named in `x-ignored-fields`.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.body import model_of
from app.api.context import Caller, RequestId, Rooms
from app.api.dialect import route_in
from app.api.disconnect import unless_hung_up
from app.api.document import body_schema
from app.api.errors import answer_of
from app.api.folding import folded
from app.api.forms import read_form
from app.api.pairs import choose, directions
from app.api.receipts import cost_headers
from app.errors import Kind, TollgateError, UnsupportedParameter
from app.metering.database import microseconds
from app.metering.usage import Chosen as Usage
from app.metering.usage import buckets
from app.registry.model import TaskName
from app.tasks.translation import Translation, TranslationRequest
from app.text.languages import name_of
from app.text.sentences import Split

ROUTE = "/v2/translate"
TEXTS_MAX = 50
QUOTA_EXCEEDED = 456
NO_LIMIT = 10**12
"""What DeepL itself says where characters are not limited; budgets here are of money."""
STATUS = {Kind.UNAUTHENTICATED: 403, Kind.QUOTA: QUOTA_EXCEEDED}
VARIANTS = {"en": ("EN-GB", "EN-US"), "pt": ("PT-BR", "PT-PT"), "zh": ("ZH", "ZH-HANS")}
"""DeepL's clients refuse bare EN and PT as targets."""
SPLITS = {"0": Split.NONE, "1": Split.ALL, "nonewlines": Split.NO_NEWLINES}
LISTS = frozenset({"text"})


def refusal(error: TollgateError) -> JSONResponse:
    """DeepL's envelope and statuses: 403 for a key, 456 for a budget."""
    answer = answer_of(error)
    found = answer.body["error"]
    body = {"message": found["message"], "code": found["code"]}
    return JSONResponse(body, STATUS.get(error.kind, answer.status), answer.headers)


class TranslateBody(BaseModel):
    """Texts to translate into one language."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"examples": [{"text": ["Where is the station?"], "target_lang": "PT-PT"}]}
    )

    text: Annotated[list[str], Field(min_length=1, max_length=TEXTS_MAX)]
    target_lang: str = Field(min_length=2, max_length=20, description="As DeepL writes it: PT-BR, EN-GB, DE.")
    source_lang: str | None = Field(default=None, max_length=20, description="Without it, each text's is detected.")
    split_sentences: Literal["0", "1", "nonewlines", 0, 1] | bool = Field(default="1", union_mode="left_to_right")
    preserve_formatting: bool = Field(default=False, description="It always is.")
    show_billed_characters: bool = False
    formality: str | None = Field(default=None, max_length=40)
    tag_handling: str | None = Field(default=None, max_length=40)
    glossary_id: str | None = Field(default=None, max_length=100)
    style_id: str | None = Field(default=None, max_length=100)


class TranslationBody(BaseModel):
    """One text's translation."""

    detected_source_language: str
    text: str
    billed_characters: int | None = None


class TranslationsBody(BaseModel):
    """As many as there were texts, in their order."""

    translations: list[TranslationBody]


class UsageBody(BaseModel):
    """This calendar month's, in UTC."""

    character_count: int
    character_limit: int


class LanguageBody(BaseModel):
    """One language."""

    language: str
    name: str
    supports_formality: bool = False


def base_of(language: str) -> str:
    """PT-BR → pt."""
    return language.partition("-")[0].lower()


def refuse_what_is_not_done(body: TranslateBody) -> None:
    """Raises UnsupportedParameter."""
    done = {None, "", "default", "prefer_more", "prefer_less"}
    reasons = {
        "tag_handling": body.tag_handling and "tags are not kept apart from text here; send plain text",
        "formality": body.formality not in done and "these models know no formality; send prefer_more or nothing",
        "glossary_id": body.glossary_id and "there are no glossaries here",
        "style_id": body.style_id and "there are no style rules here",
    }
    for name, reason in reasons.items():
        if reason:
            raise UnsupportedParameter(f"{name} is not supported: {reason}", field=name)


def split_of(body: TranslateBody) -> Split:
    """DeepL's word for where texts are cut."""
    value = body.split_sentences
    return SPLITS[value if isinstance(value, str) else str(int(value))]


router = APIRouter(
    prefix="/v2", tags=["deepl"], route_class=route_in(refusal),
    responses={QUOTA_EXCEEDED: {"description": "A budget is used up."}},
)  # fmt: skip


@router.post(
    "/translate", response_model=TranslationsBody, openapi_extra=body_schema(TranslateBody), summary="DeepL: translate"
)
async def translate(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> JSONResponse:
    """Each text's translation; JSON, or a form with `text` several times."""
    body = model_of(request, await read_form(request, lists=LISTS), TranslateBody)
    refuse_what_is_not_done(body)
    spoken = {index: text for index, text in enumerate(body.text) if text.strip()}
    source = None if not body.source_lang else base_of(body.source_lang)
    chosen = await choose(
        serving.residency, principal, list(spoken.values()), source=source, target=base_of(body.target_lang),
        names="source_lang",
    ) if spoken else None  # fmt: skip
    translations = [
        TranslationBody(detected_source_language=(source or "").upper(), text=text, billed_characters=0)
        for text in body.text
    ]
    headers: dict[str, str] = {}
    if chosen is not None:
        asked = TranslationRequest(texts=tuple(spoken.values()), split=split_of(body))
        work = folded(
            serving, Translation(), asked, model=chosen.model, principal=principal, request_id=request_id, route=ROUTE
        )
        found, receipt = await unless_hung_up(request, work)
        headers = cost_headers(receipt)
        for index, one in zip(spoken, found, strict=True):
            translations[index] = TranslationBody(
                detected_source_language=chosen.source.upper(), text=one.text, billed_characters=len(body.text[index])
            )
    shown = {"billed_characters"} if not body.show_billed_characters else set[str]()
    return JSONResponse({"translations": [one.model_dump(exclude=shown) for one in translations]}, headers=headers)


@router.get("/usage", response_model=UsageBody, summary="DeepL: characters used")
async def usage(principal: Caller, serving: Rooms) -> UsageBody:
    """What this account translated this month, whichever dialect it used."""
    now = serving.clock.now()
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    chosen = Usage(tenant_ids=(principal.tenant_id,), tasks=(TaskName.TRANSLATION.value,))
    found = await serving.books.database.run(
        lambda connection: buckets(
            connection, width="1d", start_us=microseconds(first), end_us=microseconds(now) + 1, chosen=chosen
        )
    )
    count = sum(one["characters"] for bucket in found for one in bucket.sums)
    return UsageBody(character_count=count, character_limit=NO_LIMIT)


@router.get("/languages", response_model=list[LanguageBody], summary="DeepL: languages")
async def languages(
    request: Request, principal: Caller, serving: Rooms,
    kind: Annotated[Literal["source", "target"], Query(alias="type")] = "source",
) -> Any:  # fmt: skip
    """What this key's models read (`type=source`) or write (`type=target`)."""
    if (await read_form(request)).get("type") == "target":  # DeepL's own client sends it as a form behind its GET
        kind = "target"
    known = [one.languages for one in directions(serving.residency, principal)]
    codes = sorted({one.source if kind == "source" else one.target for one in known})
    if kind == "source":
        return [LanguageBody(language=code.upper(), name=name_of(code)) for code in codes]
    return [
        LanguageBody(language=variant, name=f"{name_of(code)} ({variant})" if "-" in variant else name_of(code))
        for code in codes
        for variant in VARIANTS.get(code, (code.upper(),))
    ]

"""vLLM's tokenizer routes at the root, so that lm-evaluation-harness needs no tokenizer of its own. Free: nothing runs.

POST /tokenize with `inputs` is TGI's and TEI's, in huggingface/tei.py, which hands a `prompt` to `tokenized` here.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.admission.authenticate import Principal
from app.api.aliases import model_named
from app.api.body import read_body
from app.api.context import Caller, Rooms
from app.api.document import body_schema
from app.api.openai.chat import Message, text_of
from app.api.openai.envelope import aliases_of
from app.errors import InvalidRequest
from app.registry.model import TaskName
from app.registry.residency import Resident
from app.serving import Serving
from app.tasks.prompts import Conversation, refuse_strangers, rendered


class TokenizeBody(BaseModel):
    """A text or a conversation to turn into token ids."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"prompt": "Once upon a time"}]})

    model: str | None = Field(default=None, description="Whose tokenizer; null: the first that generates.")
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool = Field(default=True, description="Add what the model expects around a text.")
    add_generation_prompt: bool = True
    return_token_strs: bool | None = False


class DetokenizeBody(BaseModel):
    """Token ids to turn into text."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"tokens": [1, 2, 3]}]})

    model: str | None = Field(default=None, description="Whose tokenizer; null: the first that generates.")
    tokens: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=100_000)]


@asynccontextmanager
async def speaking(
    request: Request, model: str | None, serving: Serving, principal: Principal
) -> AsyncGenerator[Resident]:
    """The model whose tokenizer is meant. Raises ModelNotFound, NotAllowed."""
    found = model_named(
        model, TaskName.GENERATION, residency=serving.residency, principal=principal, aliases=aliases_of(request)
    )
    principal.require(task=serving.residency.find(found).model.tasks[0].value, model=found)
    async with serving.residency.lease(found) as resident:
        yield resident


async def tokenized(request: Request, body: TokenizeBody, serving: Serving, principal: Principal) -> dict[str, Any]:
    """Ids of a text or a conversation, and how many the model can read."""
    if (body.prompt is None) == (body.messages is None):
        raise InvalidRequest("send either prompt or messages (or inputs, as TGI and TEI have it)", field="prompt")
    async with speaking(request, body.model, serving, principal) as resident:
        tokenizer = resident.tokenizer
        if body.messages is not None:
            listed = tuple({"role": one.role, "content": text_of(one, at)} for at, one in enumerate(body.messages))
            text = rendered(Conversation(listed, opens_answer=body.add_generation_prompt), resident)
            ids = await asyncio.to_thread(tokenizer.encode_bare, text)
        elif body.add_special_tokens:
            ids = (await asyncio.to_thread(tokenizer.encode, body.prompt or "")).ids
        else:
            ids = await asyncio.to_thread(tokenizer.encode_bare, body.prompt or "")
        pieces = [tokenizer.piece(token) for token in ids] if body.return_token_strs else None
        return {
            "count": len(ids), "max_model_len": resident.loaded.positions_max, "tokens": list(ids),
            "token_strs": pieces,
        }  # fmt: skip


router = APIRouter(tags=["openai"])


@router.post("/detokenize", openapi_extra=body_schema(DetokenizeBody), summary="Token ids as text (vLLM)")
async def detokenize(request: Request, principal: Caller, serving: Rooms) -> dict[str, str]:
    """The text of ids, special tokens included."""
    body = await read_body(request, DetokenizeBody)
    async with speaking(request, body.model, serving, principal) as resident:
        refuse_strangers(body.tokens, "tokens", resident)
        return {"prompt": await asyncio.to_thread(resident.tokenizer.decode, body.tokens, keeps_special=True)}


@router.get("/tokenizer_info", summary="Special tokens and chat template (vLLM)")
async def tokenizer_info(
    request: Request, principal: Caller, serving: Rooms, model: str | None = None
) -> dict[str, Any]:
    """What a client must know to write prompts for the model."""
    async with speaking(request, model, serving, principal) as resident:
        template = resident.model.chat_template or resident.tokenizer.chat_template
        known: dict[str, Any] = {"eos_token": None, "bos_token": None, "pad_token": None}
        return known | resident.tokenizer.special_tokens | {"chat_template": template, "model": resident.model.id}

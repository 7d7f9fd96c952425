"""POST /tokenize as TGI and TEI have it, with `inputs`: free, because nothing runs. vLLM's, with `prompt`, is OpenAI's
dialect's.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.api.huggingface.envelope import LISTED_MAX, Call
from app.registry.model import TaskName
from app.text.tokenizer import Tokenizer


class TokenizeBody(BaseModel):
    """Texts to part."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"inputs": "hello world"}]})

    model: str | None = Field(None, description="Which model's tokenizer; the catalogue's first for vectors or labels.")
    inputs: str | Annotated[list[str], Field(min_length=1, max_length=LISTED_MAX)]
    add_special_tokens: bool = True


async def tokens_json(call: Call, body: TokenizeBody) -> list[Any]:
    """TGI's flat list for one text of a model that generates, else TEI's list for each text.

    `start` and `stop` are characters of the text; special tokens have none, nor do those of a translation model.
    """
    model = call.default_model(body.model, TaskName.EMBEDDING, TaskName.CLASSIFICATION, TaskName.GENERATION)
    task = call.serving.residency.find(model).model.tasks[0]
    call.principal.require(task=task.value, model=model)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    async with call.serving.residency.lease(model) as resident:
        found = await asyncio.to_thread(
            lambda: [parted(text, resident.tokenizer, has_special=body.add_special_tokens) for text in texts]
        )
    is_flat = task is TaskName.GENERATION and isinstance(body.inputs, str)
    return found[0] if is_flat else found


def parted(text: str, tokenizer: Tokenizer, *, has_special: bool) -> list[dict[str, Any]]:
    """A text's tokens, with the special ones around them if wanted."""
    places: Sequence[tuple[int | None, int | None]]
    if tokenizer.has_offsets:
        ids, places = tokenizer.encode_plain(text)
    else:
        ids = tokenizer.plain_ids(text)
        places = [(None, None)] * len(ids)
    plain = [
        {"id": token, "text": tokenizer.piece(token), "special": False, "start": start, "stop": end}
        for token, (start, end) in zip(ids, places, strict=True)
    ]
    if not has_special:
        return plain
    whole = tokenizer.encode(text).ids
    first = next((at for at in range(len(whole)) if whole[at : at + len(ids)] == ids), 0)
    before, after = whole[:first], whole[first + len(ids) :]
    return [*(special(one, tokenizer) for one in before), *plain, *(special(one, tokenizer) for one in after)]


def special(token: int, tokenizer: Tokenizer) -> dict[str, Any]:
    """A token that stands for no text."""
    return {"id": token, "text": tokenizer.piece(token), "special": True, "start": None, "stop": None}

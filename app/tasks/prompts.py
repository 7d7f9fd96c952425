"""What generation is asked to continue, as token ids; and what the caller says of single tokens, checked."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.engine.jobs import Sampling
from app.errors import EmptyInput, InvalidRequest, NoChatTemplate
from app.registry.residency import Resident


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages with `role` and `content`, which the model's chat template makes one text of."""

    messages: tuple[Mapping[str, Any], ...]
    opens_answer: bool = True
    """Whether the text ends with what begins the assistant's turn."""


Prompt = str | tuple[int, ...] | Conversation | None
"""A text, token ids, a conversation, or nothing: the model begins by itself."""


def ids_of(prompt: Prompt, index: int, resident: Resident, *, adds_special: bool) -> tuple[int, ...]:
    """What is read of a prompt. Raises EmptyInput, InvalidRequest or NoChatTemplate."""
    tokenizer = resident.tokenizer
    match prompt:
        case None:
            start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
            if start is None:
                raise EmptyInput(f"{resident.model.id} has no token that begins a text; send a prompt", field="prompt")
            return (start,)
        case Conversation():
            return tokenizer.encode_bare(rendered(prompt, resident))
        case "":
            raise EmptyInput(f"prompt {index} is empty; send at least one character", field=f"prompt.{index}")
        case str():
            return tokenizer.encode(prompt).ids if adds_special else tokenizer.encode_bare(prompt)
        case ():
            raise EmptyInput(f"prompt {index} holds no token; send at least one", field=f"prompt.{index}")
        case _:
            refuse_strangers(prompt, f"prompt.{index}", resident)
            return prompt


def rendered(conversation: Conversation, resident: Resident) -> str:
    """The conversation as the model's template writes it. Raises NoChatTemplate or InvalidRequest."""
    template = resident.model.chat_template
    if template is None and resident.tokenizer.chat_template is None:
        raise NoChatTemplate(
            f"The model {resident.model.id} has no chat template, so it cannot hold a conversation; send a text as "
            "prompt to /v1/completions, or ask the operator to set chat_template in the catalogue.",
            field="model",
        )
    text = resident.tokenizer.render(
        conversation.messages, template=template, opens_answer=conversation.opens_answer
    )  # fmt: skip
    if not text:
        raise EmptyInput("the messages make an empty text; send at least one character", field="messages")
    return text


def refuse_strangers(ids: Sequence[int], field: str, resident: Resident) -> None:
    """Raises InvalidRequest naming the first id that is none of the tokenizer's."""
    size = resident.tokenizer.size
    for token in ids:
        if not 0 <= token < size:
            raise InvalidRequest(f"{field} names the token id {token}; ids go from 0 to {size - 1}", field=field)


def constrained(sampling: Sampling, bad_words: Sequence[str], resident: Resident) -> Sampling:
    """`sampling` with its token ids checked, and with `bad_words` as runs of tokens that are never completed.

    A word is banned as it stands at a text's beginning and as it stands after a space. Raises InvalidRequest.
    """
    refuse_strangers([token for token, _ in sampling.logit_bias], "logit_bias", resident)
    refuse_strangers(sampling.allowed_ids, "allowed_token_ids", resident)
    runs = {resident.tokenizer.encode_bare(text) for word in bad_words for text in (word.lstrip(), " " + word.lstrip())}
    if not runs:
        return sampling
    return dataclasses.replace(sampling, banned_runs=tuple(sorted(run for run in runs if run)))

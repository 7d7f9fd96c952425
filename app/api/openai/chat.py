"""POST /v1/chat/completions: conversations, for models with a chat template (theirs, or the catalogue's)."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.api.body import read_body
from app.api.context import Caller, RequestId, Rooms
from app.api.document import body_schema
from app.api.openai.envelope import model_of
from app.api.openai.generating import Generating, Growing
from app.api.openai.sampling import TOKENS_MAX, SamplingBody, request_of
from app.api.stream import STREAMED
from app.errors import InvalidRequest, UnsupportedParameter
from app.registry.model import TaskName
from app.tasks.generation import GenerationRequest, TokenScore
from app.tasks.prompts import Conversation


class ContentPart(BaseModel):
    """A piece of a message; only text can be read."""

    model_config = ConfigDict(extra="ignore")

    type: str
    text: str | None = None


class Message(BaseModel):
    """One message of the conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]
    name: str | None = None


class ResponseFormat(BaseModel):
    """The form of the answer; only text can be promised."""

    model_config = ConfigDict(extra="ignore")

    type: str


class ChatBody(SamplingBody):
    """A conversation to continue. Fields that are not named here are ignored, as OpenAI's clients expect."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [{"model": "a-chat-model", "messages": [{"role": "user", "content": "Hello!"}]}]
        },
    )

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: int | None = Field(
        default=None, ge=1, le=TOKENS_MAX, description="At most so many new tokens; null takes all that fits."
    )
    max_tokens: int | None = Field(default=None, ge=1, le=TOKENS_MAX, description="The older name of the same.")
    logprobs: bool | None = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20, description="Report so many probable tokens.")
    add_generation_prompt: bool | None = Field(default=True, description="End with what begins the answer.")
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    tool_choice: Any = None
    chat_template: str | None = Field(default=None, description="Refused: templates are the operator's.")


def refuse_unsupported(body: ChatBody) -> None:
    """Raises UnsupportedParameter for what the models behind this route cannot do."""
    if body.tools or body.functions:
        field = "tools" if body.tools else "functions"
        raise UnsupportedParameter(f"{field} are not supported by these models; leave them out", field=field)
    if body.tool_choice not in (None, "none", "auto"):
        raise UnsupportedParameter("tool_choice is not supported by these models; leave it out", field="tool_choice")
    if body.response_format is not None and body.response_format.type != "text":
        raise UnsupportedParameter(
            f"response_format {body.response_format.type[:40]!r} is not supported: these models cannot be held to a "
            "form. Leave it out, or ask for text",
            field="response_format",
        )
    if body.chat_template is not None:
        raise UnsupportedParameter(
            "chat_template cannot come with a request; the operator sets it in the catalogue", field="chat_template"
        )


def text_of(message: Message, place: int) -> str:
    """A message's text. Raises UnsupportedParameter for a part that is none."""
    if isinstance(message.content, str):
        return message.content
    for index, part in enumerate(message.content):
        if part.text is None:
            raise UnsupportedParameter(
                f"messages.{place} holds a part of the type {part.type[:40]!r}; these models read text only",
                field=f"messages.{place}.content.{index}",
            )
    return "".join(part.text or "" for part in message.content)


def generation_of(body: ChatBody) -> GenerationRequest:
    """The body in our words. Raises UnsupportedParameter or InvalidRequest naming the field."""
    refuse_unsupported(body)
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("top_logprobs is only for logprobs: true", field="top_logprobs")
    messages = tuple(
        {"role": "system" if message.role == "developer" else message.role, "content": text_of(message, place)}
        for place, message in enumerate(body.messages)
    )
    conversation = Conversation(messages, opens_answer=body.add_generation_prompt is not False)
    wanted = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    asked = request_of(body, (conversation,), wanted)
    return dataclasses.replace(asked, logprobs=(body.top_logprobs or 0) if body.logprobs else None)


class ChatCompletion(Generating[ChatBody]):
    """OpenAI's chat.completion."""

    ROUTE = "/v1/chat/completions"
    OBJECT = "chat.completion"
    CHUNK = "chat.completion.chunk"
    PREFIX = "chatcmpl-"

    def whole_json(self, choice: Growing) -> dict[str, Any]:
        """See Generating."""
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        logprobs = self._logprobs(choice.scores) if self.body.logprobs else None
        found = {"index": choice.index, "message": message, "logprobs": logprobs}
        return found | {"finish_reason": choice.finish_reason} | choice.end_json()

    def opening(self, choice: Growing) -> dict[str, Any] | None:
        """Who speaks."""
        return self._delta(choice, {"role": "assistant", "content": ""}, None)

    def piece(self, choice: Growing, text: str, scores: Sequence[TokenScore]) -> dict[str, Any]:
        """See Generating."""
        return self._delta(choice, {"content": text}, self._logprobs(scores) if scores else None)

    def ending(self, choice: Growing) -> dict[str, Any]:
        """See Generating."""
        return self._delta(choice, {}, None) | choice.end_json()

    def _delta(self, choice: Growing, delta: dict[str, Any], logprobs: dict[str, Any] | None) -> dict[str, Any]:
        return {"index": choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": choice.finish_reason}

    def _logprobs(self, scores: Sequence[TokenScore]) -> dict[str, Any]:
        return {"content": [score_json(score) for score in scores], "refusal": None}


def score_json(score: TokenScore) -> dict[str, Any]:
    """A token with the most probable ones in its place."""
    listed = [entry_json(text, logprob) for text, logprob in score.top]
    return entry_json(score.text, score.logprob or 0.0) | {"top_logprobs": listed}


def entry_json(text: str, logprob: float) -> dict[str, Any]:
    """One token. Its bytes are those of its text: what is no whole character shows as the replacement character."""
    return {"token": text, "bytes": list(text.encode()), "logprob": max(logprob, -9999.0)}


router = APIRouter(prefix="/v1", tags=["openai"])


@router.post(
    "/chat/completions", openapi_extra=body_schema(ChatBody), responses=STREAMED, summary="Answer in a conversation"
)
async def chat_completions(request: Request, principal: Caller, serving: Rooms, request_id: RequestId) -> Response:
    """The assistant's next message: whole, or streamed as it comes."""
    body = await read_body(request, ChatBody)
    completion = ChatCompletion(
        serving=serving, body=body, asked=generation_of(body), principal=principal, request_id=request_id,
        returned=body.n or 1,
        model=model_of(request, body.model, TaskName.GENERATION, serving=serving, principal=principal),
    )  # fmt: skip
    return await completion.respond(request)

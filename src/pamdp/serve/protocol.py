"""OpenAI's chat completions: which requests are understood, and how answers read.

Owns the fields. Knows nothing of engines. A field that is not supported is refused by name where it would change what
the answer means, and else ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from pamdp.data.chats import in_turn
from pamdp.serve.errors import ApiError
from pamdp.types import History, Message

Json = Mapping[str, object]
HARMLESS: Mapping[str, tuple[object, ...]] = {
    "tool_choice": ("none", "auto"), "function_call": ("none", "auto"), "logprobs": (False,), "top_logprobs": (0,),
    "logit_bias": ({},), "frequency_penalty": (0,), "presence_penalty": (0,), "response_format": ({"type": "text"},),
    "modalities": (["text"],), "audio": (), "web_search_options": (),
}  # fmt: skip
"""Fields that would change an answer's meaning -> the values that do not; None never does.

Tools are an offer, which no model has to take up: chat pages send theirs with every message.
"""


def _whole(text: str) -> str:
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("holds half a character (a lone surrogate)")
    return text


Text = Annotated[str, AfterValidator(_whole)]


class Part(BaseModel):
    """A part of a message; only texts are understood."""

    type: str
    text: Text = ""

    @model_validator(mode="after")
    def _text(self) -> Part:
        if self.type != "text":
            raise ValueError(f"parts of type {self.type!r} are not supported; send text")
        return self


class ChatMessage(BaseModel):
    """One message."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Part] | None = None
    tool_calls: Any = None

    @model_validator(mode="after")
    def _said(self) -> ChatMessage:
        if self.tool_calls:
            raise ValueError("calls of tools are not supported")
        if self.content is None:
            raise ValueError("a message needs content")
        return self

    @property
    def text(self) -> str:
        """What it says."""
        content = self.content or ""
        return (content if isinstance(content, str) else "".join(part.text for part in content)).strip()


class StreamOptions(BaseModel):
    """How a stream ends."""

    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """A request for chat completions."""

    model_config = ConfigDict(extra="allow")

    model: Text
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    n: int | None = Field(default=None, ge=1)
    stop: Text | list[Text] | None = None
    user: Text | None = Field(default=None, max_length=256, pattern=r"^[^\x00]*$")

    @field_validator("stop")
    @classmethod
    def _stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        texts = [stop] if isinstance(stop, str) else stop or []
        if len(texts) > 4 or not all(texts):
            raise ValueError("at most four texts, none of them empty")
        return stop

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts before which a reply ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def require_understood(self) -> None:
        """An ApiError that names a field which would have to be obeyed."""
        for name, value in (self.model_extra or {}).items():
            if name in HARMLESS and value is not None and value not in HARMLESS[name]:
                raise ApiError(400, f"{name} is not supported; leave it out", "unsupported_parameter", name)

    def history(self) -> History:
        """What was said, the user first and last, in turns; what system messages say stands before it as one message.

        An ApiError where there is nothing to reply to.
        """
        told = "\n\n".join(m.text for m in self.messages if m.role in ("system", "developer") and m.text)
        spoken = [(m.role, m.text) for m in self.messages if m.role in ("user", "assistant") and m.text]
        texts = in_turn(spoken, [])
        if len(texts) % 2 == 0 or not self.messages[-1].text:
            raise ApiError(400, "the last message must be the user's, and say something", param="messages")
        turns = (Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts))
        return (*([Message("system", told)] if told else []), *turns)


def usage(prompt: int, completion: int, cached: int) -> Json:
    """Counts of tokens."""
    return {
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }  # fmt: skip


def completion(head: Json, choices: Sequence[Json], counts: Json) -> Json:
    """A whole answer."""
    return {**head, "object": "chat.completion", "choices": choices, "usage": counts}


def choice(index: int, text: str, reason: str) -> Json:
    """One reply of a whole answer."""
    message = {"role": "assistant", "content": text, "refusal": None}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}


def chunk(head: Json, index: int, delta: Json, reason: str | None = None) -> Json:
    """A piece of a streamed answer."""
    piece = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
    return {**head, "object": "chat.completion.chunk", "choices": [piece]}

"""What a chat model is: messages in, one completion out.

Owns the protocol that endpoints, local models, scripted models and all wrappers share, and what a call may fail with.
Knows nothing of what is asked. A failed call is either transient, and worth another try, or an EndpointError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pamdp.calls_config import EndpointConfig
from pamdp.errors import PamdpError
from pamdp.registry import CHAT_MODELS
from pamdp.types import Message


class TransientError(PamdpError):
    """A call failed in a way that passes, such as too many requests; AFTER: seconds that the server asks to wait."""

    def __init__(self, what: str, after: float | None = None) -> None:
        self.after = after
        super().__init__(what)


Messages = Sequence[Message]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How an answer is drawn, and how long it is at most; temperature 0 is deterministic, as far as the model is."""

    temperature: float = 0.0
    max_tokens: int = 512


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer and what it cost, as the model counts tokens; 0 for what came from a cache."""

    text: str  # trimmed; empty where the model gave none
    prompt_tokens: int = 0
    completion_tokens: int = 0
    refused: bool = False  # the model's own sign that it would not answer
    cut: bool = False  # the longest length ended it, or it is thinking without an answer


@runtime_checkable
class ChatModel(Protocol):
    """Answers messages."""

    @property
    def fingerprint(self) -> dict[str, str]:
        """What identifies this model: kind, model, where it is; never a secret."""

    async def complete(self, messages: Messages, decoding: Decoding = Decoding(), *, seed: int = 0) -> Completion:
        """One answer to messages, the last of which is the user's.

        Args:
          seed: of the draw; the same call with the same seed gives the same answer where the model can.

        Raises:
          TransientError: the call failed and may be tried again.
          ContextLengthError: the messages and the longest answer do not fit into the model.
          EndpointError: no call can succeed, or no further try is left.
        """


@dataclass(eq=False)
class Around:
    """Base of chat models that change how another one is called, and not what it is."""

    model: ChatModel

    @property
    def fingerprint(self) -> dict[str, str]:
        """That of the model inside."""
        return self.model.fingerprint


ChatModelFactory = Callable[[EndpointConfig], ChatModel]


def register_chat_model(name: str) -> Callable[[ChatModelFactory], ChatModelFactory]:
    """The decorator of a chat model of one's own, which `kind=NAME` of an endpoint then calls.

    It stands on a function from an endpoint's settings to the model; limits, retries, cache and costs go around it.
    """
    return CHAT_MODELS(name)

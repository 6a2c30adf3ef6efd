"""Any server that speaks OpenAI's chat completions, through the official asynchronous client.

Owns the request and the sorting of failures. Knows nothing of retries and limits (limits.py). The key is held by the
client alone: it is in no setting, fingerprint, log or message.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit, urlunsplit

from pamdp.errors import EndpointError
from pamdp.llm.chat import Completion, Decoding, Messages, TransientError
from pamdp.registry import CHAT_MODELS

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI
    from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

PASSING = (408, 409, 429)
"""Status codes below 500 that pass by themselves."""


@dataclass
class OpenAIChat:
    """A model behind a base URL."""

    model: str  # what the server calls it
    base_url: str  # up to and including /v1
    key_env: str = "OPENAI_API_KEY"  # the environment variable that holds the key; a server without keys needs none
    timeout: float = 60.0  # seconds that one call may take

    @property
    def fingerprint(self) -> dict[str, str]:
        """Kind, model and address; what a URL may carry of names and keys is left out."""
        return {"kind": "openai", "model": self.model, "base_url": public_url(self.base_url)}

    async def complete(self, messages: Messages, decoding: Decoding = Decoding(), *, seed: int = 0) -> Completion:
        """One chat completion; see ChatModel."""
        import openai

        try:
            answer = await self._client.chat.completions.create(
                model=self.model,
                messages=cast("list[ChatCompletionMessageParam]", [asdict(m) for m in messages]),
                temperature=decoding.temperature,
                max_tokens=decoding.max_tokens,
                # Many servers keep seeds in 32 bits.
                seed=seed % 2**31,
            )
        except openai.APITimeoutError as error:
            raise TransientError(f"no answer within {self.timeout:g} s") from error
        except openai.APIConnectionError as error:
            raise TransientError(f"connection failed: {error.__cause__ or error}") from error
        except openai.APIStatusError as error:
            return self._status(error)
        except (openai.APIError, ValueError) as error:
            raise TransientError(f"not an answer that can be read: {type(error).__name__}") from error
        return _completion(answer)

    def _status(self, error: APIStatusError) -> Completion:
        """What a status code means: a refusal, something that passes, or the end."""
        if error.code == "content_filter":
            return Completion("", refused=True)
        if error.status_code >= 500 or error.status_code in PASSING:
            raise TransientError(f"status {error.status_code}", _after(error)) from error
        hint = f"; is the key in ${self.key_env}?" if error.status_code in (401, 403) else ""
        # The body is left out: servers are known to repeat the key in it.
        raise EndpointError(
            f"{public_url(self.base_url)} refuses model {self.model!r}: status {error.status_code}{hint}"
        ) from None

    @cached_property
    def _client(self) -> AsyncOpenAI:
        # The import takes a second that no other command should wait for.
        from openai import AsyncOpenAI

        key = os.environ.get(self.key_env) or "none"
        return AsyncOpenAI(api_key=key, base_url=self.base_url, timeout=self.timeout, max_retries=0)


CHAT_MODELS.add("openai", lambda end: OpenAIChat(end.model, end.base_url, end.key_env, end.timeout))


def public_url(url: str) -> str:
    """A URL without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _completion(answer: ChatCompletion) -> Completion:
    # A server that answers with something else than it should gives an object that lacks these.
    choices = getattr(answer, "choices", None)
    if not choices or choices[0].message is None:
        raise TransientError("an answer without a choice")
    choice, usage = choices[0], answer.usage
    refused = bool(choice.message.refusal) or choice.finish_reason == "content_filter"
    tokens = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
    return Completion((choice.message.content or "").strip(), *tokens, refused)


def _after(error: APIStatusError) -> float | None:
    try:
        return max(0.0, float(error.response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None

"""Any server that speaks OpenAI's chat completions, through the official asynchronous client.

Owns the request, and which parameters a server does not take. Knows nothing of retries and limits (limits.py), nor of
how servers word their errors (server_errors.py). The key is in no setting, fingerprint, log or message.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pamdp.errors import ContextLengthError, EndpointError
from pamdp.fingerprint import REFUSED
from pamdp.llm.chat import Completion, Decoding, Messages, TransientError
from pamdp.llm.server_errors import ServerError
from pamdp.progress import note
from pamdp.registry import CHAT_MODELS

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam

_SECRET = re.compile(r"key|token|secret|sig|auth|pass|cred|code|=.{33}", re.I)
"""What a part of a URL's query looks like that may be a secret."""


@dataclass
class OpenAIChat:
    """A model behind a base URL."""

    model: str  # what the server calls it
    base_url: str  # up to and including /v1; with a query, such as ?api-version=, where the server wants one
    key_env: str = "OPENAI_API_KEY"  # the environment variable that holds the key; a server without keys needs none
    timeout: float = 60.0  # seconds that one call may take
    refused: frozenset[str] = field(default=frozenset(), init=False)  # parameters that the server does not take

    @property
    def fingerprint(self) -> dict[str, str]:
        """Kind, model, address and what the server refuses; what a URL may carry of names and keys is left out."""
        known = {"kind": "openai", "model": self.model, "base_url": public_url(self.base_url)}
        return {**known, **({REFUSED: ", ".join(sorted(self.refused))} if self.refused else {})}

    async def complete(self, messages: Messages, decoding: Decoding = Decoding(), *, seed: int = 0) -> Completion:
        """One chat completion; see ChatModel.

        A parameter that the server says it does not take is left out from then on; a limit of tokens gets its other
        name.
        """
        # Many servers keep seeds in 32 bits.
        every = {"temperature": decoding.temperature, "max_tokens": decoding.max_tokens, "seed": seed % 2**31}
        refused, why = self.refused, dict[str, str]()
        while True:
            sent = {name: value for name, value in every.items() if name not in refused}
            limit = {"max_completion_tokens": decoding.max_tokens} if "max_tokens" in refused else {}
            answer = await self._send(messages, sent | limit)
            if not isinstance(answer, ServerError):
                break
            if (name := answer.refuses(sent)) is None:
                return self._failed(answer)
            refused, why[name] = refused | {name}, self._shown(answer)
        # Now it is known to be this that the server minded.
        for name in sorted(refused - self.refused):
            instead = "with max_completion_tokens for" if name == "max_tokens" else "without"
            note(f"{public_url(self.base_url)}: model {self.model!r} is asked {instead} {name} ({why[name]})")
        self.refused |= refused
        return answer

    async def _send(self, messages: Messages, parameters: dict[str, float]) -> Completion | ServerError:
        import openai

        try:
            answer = await self._client.chat.completions.create(
                model=self.model,
                messages=cast("list[ChatCompletionMessageParam]", [asdict(m) for m in messages]),
                extra_body=parameters,
            )
        except openai.APITimeoutError as error:
            raise TransientError(f"no answer within {self.timeout:g} s") from error
        except openai.APIConnectionError as error:
            raise TransientError(f"connection failed: {error.__cause__ or error}") from error
        except openai.APIStatusError as error:
            return ServerError(error.status_code, error.body, _after(error))
        except (openai.APIError, ValueError) as error:
            raise TransientError(f"not an answer that can be read: {type(error).__name__}") from error
        return _completion(answer)

    def _failed(self, error: ServerError) -> Completion:
        """What an error comes to: a refusal, something that passes, or the end."""
        if error.filtered:
            return Completion("", refused=True)
        if error.passes:
            raise TransientError(self._shown(error), error.after)
        said = f"{public_url(self.base_url)} refuses model {self.model!r}: {self._shown(error)}"
        if error.too_long:
            raise ContextLengthError(
                f"{said}; shorten the dialogues (rl.horizon) or the answers (max_tokens), or take another model"
            )
        hints = {
            401: f"is the key in ${self.key_env}?",
            403: f"is the key in ${self.key_env}?",
            404: "is that the model's name there, and the address complete, up to and including /v1?",
        }
        quota = "the account's quota is used up, which does not pass by waiting"
        hint = quota if error.quota else hints.get(error.meant, "")
        raise EndpointError(f"{said}; {hint}" if hint else said)

    def _shown(self, error: ServerError) -> str:
        return error.shown(self._key, urlsplit(self.base_url).password or "")

    @property
    def _key(self) -> str:
        return os.environ.get(self.key_env) or "none"

    @cached_property
    def _client(self) -> AsyncOpenAI:
        # The import takes a second that no other command should wait for.
        from openai import AsyncOpenAI

        parts = urlsplit(self.base_url)
        query = dict(parse_qsl(parts.query))
        return AsyncOpenAI(
            api_key=self._key,
            base_url=urlunsplit(parts._replace(query="", fragment="")),
            timeout=self.timeout,
            max_retries=0,
            default_query=query,
            # Servers that want this in their query look for the key there.
            default_headers={"api-key": self._key} if "api-version" in query else {},
        )


CHAT_MODELS.add("openai", lambda end: OpenAIChat(end.model, end.base_url, end.key_env, end.timeout))


def public_url(url: str) -> str:
    """A URL without user, password and fragment, and without what may be a secret in its query."""
    parts = urlsplit(url)
    query = "&".join(part for part in parts.query.split("&") if not _SECRET.search(part))
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def _completion(answer: object) -> Completion | ServerError:
    # A server that answers with something else than it should gives an object that lacks these.
    choice = next(iter(getattr(answer, "choices", None) or ()), None)
    if error := getattr(answer, "error", None) or getattr(choice, "error", None):
        return ServerError(200, error)
    message, usage = getattr(choice, "message", None), getattr(answer, "usage", None)
    if message is None:
        raise TransientError("an answer without a choice")
    finish, content = getattr(choice, "finish_reason", None), message.content or ""
    if isinstance(content, list):  # parts, of which some may be thinking
        content = "".join(part.get("text") or "" for part in content if part.get("type") == "text")
    # Thinking comes apart from the answer, under one of these names; it is not read.
    thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    return Completion(
        content.strip(),
        getattr(usage, "prompt_tokens", None) or 0,
        getattr(usage, "completion_tokens", None) or 0,
        refused=bool(getattr(message, "refusal", None)) or finish == "content_filter",
        cut=finish == "length" or bool(thought and not content.strip()),
    )


def _after(error: APIStatusError) -> float | None:
    try:
        return max(0.0, float(error.response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None

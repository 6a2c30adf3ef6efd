"""A Hugging Face model on this machine as a chat model.

Owns the gathering of concurrent calls into batches. Knows nothing of the policy: it has a backbone of its own, because
it computes in another thread, and adapters of a shared one would be switched under the policy's feet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pamdp.calls_config import EndpointConfig
from pamdp.config import ModelConfig
from pamdp.errors import ContextLengthError
from pamdp.fingerprint import NUMBERS
from pamdp.llm.chat import Completion, Decoding, Messages
from pamdp.models.backbone import Backbone
from pamdp.models.chat import Encoded
from pamdp.models.embedded import EMBEDDED, load_backbone
from pamdp.models.generate import DecodeRow, Sampling, generate
from pamdp.models.prefill import prefill
from pamdp.place_config import PlaceConfig
from pamdp.registry import CHAT_MODELS
from pamdp.types import Message


@dataclass(frozen=True, slots=True)
class _Call:
    messages: tuple[Message, ...]
    decoding: Decoding
    seed: int
    answer: asyncio.Future[Completion]


class LocalChat:
    """Answers of a causal language model that nobody else may use; at most BATCH calls are written together."""

    top_p = 0.95  # nucleus, when the temperature is above 0
    repetition_penalty = 1.1  # small models need one to find an end

    def __init__(self, backbone: Backbone, batch: int = 16) -> None:
        self.backbone, self.batch = backbone, batch
        self._waiting: list[_Call] = []
        self._worker: asyncio.Task[None] | None = None

    @property
    def fingerprint(self) -> dict[str, str]:
        """Kind, model and revision of the weights, and the numbers that it computes in where they are not float32."""
        return {
            "kind": "local", "model": self.backbone.name, "revision": self.backbone.revision,
            "top_p": f"{self.top_p:g}", "repetition_penalty": f"{self.repetition_penalty:g}",
            **dict(zip(NUMBERS, self.backbone.numbers, strict=False)),
        }  # fmt: skip

    async def complete(self, messages: Messages, decoding: Decoding = Decoding(), *, seed: int = 0) -> Completion:
        """One answer; the same whatever else is written at the same time. See ChatModel."""
        call = _Call(tuple(messages), decoding, seed, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await call.answer

    async def _work(self) -> None:
        # One round of the loop, for those who call at the same time.
        await asyncio.sleep(0)
        while self._waiting:
            decoding = self._waiting[0].decoding
            chosen = [call for call in self._waiting if call.decoding == decoding][: self.batch]
            self._waiting = [call for call in self._waiting if call not in chosen]
            try:
                answers = await asyncio.to_thread(self._write, chosen, decoding)
            except Exception as error:
                for call in chosen:
                    if not call.answer.done():
                        call.answer.set_exception(error)
                continue
            for call, answer in zip(chosen, answers, strict=True):
                if call.answer.done():
                    continue
                if isinstance(answer, Completion):
                    call.answer.set_result(answer)
                else:
                    call.answer.set_exception(answer)

    @torch.no_grad()
    def _write(self, calls: Sequence[_Call], decoding: Decoding) -> list[Completion | ContextLengthError]:
        """Answers; a call that does not fit costs no other."""
        every = [self._encode(call.messages, decoding.max_tokens) for call in calls]
        fitting = [i for i, encoded in enumerate(every) if isinstance(encoded, Encoded)]
        prefixes = prefill(self.backbone, [encoded for encoded in every if isinstance(encoded, Encoded)])
        sampling = Sampling(decoding.max_tokens, decoding.temperature, self.top_p, self.repetition_penalty)
        rows = [
            DecodeRow(i, len(p.encoded.ids), seed=calls[n].seed)
            for i, (p, n) in enumerate(zip(prefixes, fitting, strict=True))
        ]
        replies = generate(self.backbone, prefixes, rows, sampling, self.batch)
        written = (
            Completion(
                self.backbone.chat.decode(ids), len(prefix.encoded.ids), len(ids), cut=len(ids) >= decoding.max_tokens
            )
            for prefix, ids in zip(prefixes, replies, strict=True)
        )
        return [next(written) if isinstance(encoded, Encoded) else encoded for encoded in every]

    def _encode(self, messages: Messages, room: int) -> Encoded | ContextLengthError:
        system = "\n".join(m.content for m in messages if m.role == "system")
        encoded = self.backbone.chat.history([m for m in messages if m.role != "system"], system)
        limit = self.backbone.positions
        if limit is not None and len(encoded.ids) + room > limit:
            return ContextLengthError(
                f"{len(encoded.ids)} tokens of prompt and {room} of answer do not fit into the {limit} of "
                f"{self.backbone.name}; shorten the dialogues (rl.horizon) or take another model"
            )
        return encoded


def _load(end: EndpointConfig, name: str) -> LocalChat:
    place = {field: getattr(end, field) for field in PlaceConfig.model_fields}
    return LocalChat(load_backbone(ModelConfig(name=name, **place)))


CHAT_MODELS.add("embedded", lambda end: _load(end, EMBEDDED))
CHAT_MODELS.add("local", lambda end: _load(end, end.model))

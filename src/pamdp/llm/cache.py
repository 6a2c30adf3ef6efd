"""Answers on disk, by content: what was asked once of a deterministic model is not paid for again.

Owns the key and the files. Knows nothing of who asks. Only temperature 0 is stored: a draw is never taken for another
one. An empty or refused answer is not stored. A key is made of the model's fingerprint, the messages and the decoding;
none of them holds a secret. Where a server takes no temperature, its first draw is kept as the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from pamdp.files import PART
from pamdp.fingerprint import REFUSED
from pamdp.llm.chat import Around, Completion, Decoding, Messages


@dataclass(eq=False)
class Cached(Around):
    """A chat model that remembers in a folder, which several processes may share."""

    folder: Path
    _asking: dict[str, asyncio.Task[Completion]] = field(default_factory=dict, init=False)

    async def complete(self, messages: Messages, decoding: Decoding = Decoding(), *, seed: int = 0) -> Completion:
        """The stored answer, or a new one that is then stored; equal calls at the same time are one. See ChatModel."""
        if decoding.temperature != 0:
            return await self.model.complete(messages, decoding, seed=seed)
        key = self.key(messages, decoding)
        path = self.folder / key[:2] / f"{key}.json"
        if (known := _read(path)) is not None:
            return known
        mine = key not in self._asking
        if mine:
            self._asking[key] = asyncio.ensure_future(self._ask(path, messages, decoding, seed))
            self._asking[key].add_done_callback(lambda _: self._asking.pop(key, None))
        # Shielded: whoever gives up waiting must not take the answer from the others.
        answer = await asyncio.shield(self._asking[key])
        return answer if mine else replace(answer, prompt_tokens=0, completion_tokens=0)

    async def _ask(self, path: Path, messages: Messages, decoding: Decoding, seed: int) -> Completion:
        answer = await self.model.complete(messages, decoding, seed=seed)
        if answer.text and not answer.refused:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Renamed but not synced: an answer that a power failure takes is asked for again.
            handle, part = tempfile.mkstemp(prefix=PART, dir=path.parent)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"text": answer.text, **({"cut": True} if answer.cut else {})}, file, ensure_ascii=False)
            os.replace(part, path)
        return answer

    def key(self, messages: Messages, decoding: Decoding) -> str:
        """Name of the answer to a call; the seed is no part of it, because nothing is drawn."""
        # "json" was a setting once: answers that were stored then are still found.
        drawn = {**asdict(decoding), "json": False}
        # What a server refuses is found out by asking: the same call has the same key before and after.
        model = {field: x for field, x in self.model.fingerprint.items() if field != REFUSED}
        asked = [model, [[m.role, m.content] for m in messages], drawn]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> Completion | None:
    try:
        known = json.loads(path.read_bytes())
        text, cut = known["text"], bool(known.get("cut"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # nothing there, or not whole: asked again and written anew
    return Completion(text, cut=cut) if isinstance(text, str) else None

"""From messages to tokens: chat templates rendered so that every h_t is a token prefix of h_{t+1}.

Owns where a history, a user's message and a reply begin and end in tokens. Knows nothing of weights. Histories are
tokenised piece by piece (up to a reply, the reply, what follows it), so a reply's tokens are the tokens that were
generated and one prefill serves all turns of a dialogue. Only the template makes special tokens: one that is spelled
out in a message is plain text, so nobody can open or end a turn by writing it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pamdp.errors import ModelError
from pamdp.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Span = tuple[int, int]

CUT = "\uffff"
"""Stands inside every special token that a message spells out, while the template is rendered; the text is tokenised in
the pieces between, none of which is special. Unicode keeps this character out of texts."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens of a history h_T that ends in the assistant header.

    Attributes:
      ids: all tokens.
      heads: heads[t] is the length of h_t, its assistant header included; heads[-1] == len(ids).
      users: users[t] is the token span of the user's message q_t.
    """

    ids: tuple[int, ...]
    heads: tuple[int, ...]
    users: tuple[Span, ...]


class ChatEncoder:
    """Renders and tokenises chats with a tokenizer's own template."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        if tokenizer.chat_template is None:
            raise ModelError("the tokenizer has no chat template; use an instruction-tuned model")
        self.tokenizer = tokenizer
        added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
        special = sorted({*added, *tokenizer.all_special_tokens} - {""})
        # Looked for ahead, so that the first character of every one is found, of overlapping ones too.
        self._special = re.compile(f"(?=(?:{'|'.join(map(re.escape, special))}))(.)", re.DOTALL) if special else None
        probe = self._render([{"role": "user", "content": "q"}, {"role": "assistant", "content": "\x00"}], False)
        self.end = self._tokens(probe[probe.index("\x00") + 1 :])[0][0]
        probe = self._render([{"role": "user", "content": "\x00"}], True)
        self._after_user = probe[probe.index("\x00") + 1 :]

    def history(self, messages: Sequence[Message], system: str) -> Encoded:
        """Tokens of a history that ends with a user message; earlier replies as they were said.

        A ModelError where the template rewrites earlier turns or what is said, or where a user said nothing.
        """
        chat = [{"role": "system", "content": self._plain(system)}]
        ids: list[int] = []
        heads: list[int] = []
        users: list[Span] = []
        done = ""
        for message in messages:
            # Some templates trim what is said and some do not: trimmed first, it is the same for all.
            said = self._plain(message.content).strip()
            chat.append({"role": message.role, "content": said})
            if message.role == "assistant":
                ids += self._tokens(said)[0]
                done += said
                continue
            if not said:
                raise ModelError("an empty user message has no tokens to read a state from")
            text = self._render(chat, True)
            if not text.startswith(done):
                raise ModelError("this chat template rewrites earlier turns; histories must extend one another")
            piece = text[len(done) :]
            tokens, offsets = self._tokens(piece)
            # Counted from the end: the words may also be part of a header.
            stop = len(piece) - len(self._after_user)
            start = stop - len(said)
            if piece[start:stop] != said:
                raise ModelError("this chat template changes what the user says; use another tokenizer's template")
            inside = [i for i, (a, b) in enumerate(offsets) if a < stop and b > start]
            users.append((len(ids) + inside[0], len(ids) + inside[-1] + 1))
            ids += tokens
            heads.append(len(ids))
            done = text
        return Encoded(tuple(ids), tuple(heads), tuple(users))

    def reply(self, text: str) -> list[int]:
        """Tokens of a reply with the token that ends a turn."""
        return [*self._tokens(self._plain(text).strip())[0], self.end]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated tokens, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _render(self, chat: list[dict[str, str]], header: bool) -> str:
        return str(self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=header))

    def _plain(self, text: str) -> str:
        """TEXT with a cut in every special token that it spells out."""
        text = text.replace(CUT, "")
        return text if self._special is None else self._special.sub(rf"\1{CUT}", text)

    def _tokens(self, text: str) -> tuple[list[int], list[Span]]:
        """Tokens of TEXT and the span of each in it; the pieces between cuts are tokenised one by one."""
        ids: list[int] = []
        spans: list[Span] = []
        start = 0
        for piece in text.split(CUT):
            out = self.tokenizer(piece, add_special_tokens=False, return_offsets_mapping=True)
            ids += out["input_ids"]
            spans += [(start + int(a), start + int(b)) for a, b in out["offset_mapping"]]
            start += len(piece) + len(CUT)
        return ids, spans

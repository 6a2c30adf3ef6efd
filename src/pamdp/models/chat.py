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
from pamdp.models.chat_template import ChatTemplate
from pamdp.progress import note_once
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
    """Renders and tokenises chats with a tokenizer's own template.

    Attributes:
      end: the token that ends a reply in histories.
      ends: all tokens that end a reply which is being written.
      differences: in what histories differ from what the template renders, in words; said once, on the error stream.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, ends: Sequence[int] = ()) -> None:
        """ENDS are the tokens that end the model's replies, beside the template's and the tokenizer's own.

        A ModelError where the tokenizer cannot say where in a text a token stands, and where `ChatTemplate` has one.
        """
        if not tokenizer.is_fast:
            raise ModelError(
                "this tokenizer does not say where tokens stand in a text; use a fast one (tokenizer.json)"
            )
        self.tokenizer = tokenizer
        source = str(tokenizer.chat_template or "")
        added = [token for token in tokenizer.added_tokens_decoder.values() if token.content.strip()]
        marks = (token.content for token in added if token.special or token.content in source)
        special = sorted({*marks, *tokenizer.all_special_tokens} - {""}, key=lambda token: (-len(token), token))
        # Looked for ahead, so that the first character of every one is found, of overlapping ones too.
        self._special = re.compile(f"(?=(?:{'|'.join(map(re.escape, special))}))(.)", re.DOTALL) if special else None
        known = [*([] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]), *ends]
        self._template = ChatTemplate(tokenizer, special, tokenizer.convert_ids_to_tokens(known[0]) if known else None)
        self.differences = list(self._template.differences)
        self.end = int(tokenizer.convert_tokens_to_ids(self._template.ending))
        self.ends = tuple(dict.fromkeys([self.end, *known]))
        self._anchor = self._find_anchor()
        self._bos = self._find_bos()

    def history(self, messages: Sequence[Message], system: str) -> Encoded:
        """Tokens of a history that ends with a user message; earlier replies as they were said.

        A ModelError where user and assistant do not take turns, or where a user said nothing.
        """
        if self.differences:
            note_once(f"chat template of {self.tokenizer.name_or_path or 'the model'}: {'; '.join(self.differences)}")
        ids = list(self._bos)
        heads: list[int] = []
        users: list[Span] = []
        system = self._plain(system)
        for i, message in enumerate(messages):
            if message.role != ("assistant" if i % 2 else "user"):
                raise ModelError(f"message {i + 1} of a history is the {message.role}'s; user and assistant take turns")
            if message.role == "assistant":
                ids += self._reply(message.content)
                continue
            # Some templates trim what is said and some do not: trimmed first, it is the same for all.
            said = self._plain(message.content).strip()
            before, after = self._template.around(len(heads), system)
            tokens, offsets = self._tokens(before + said + after, opens=not heads)
            start = len(before)
            inside = [i for i, (a, b) in enumerate(offsets) if a < start + len(said) and b > start]
            if not inside:
                raise ModelError("an empty user message has no tokens to read a state from")
            users.append((len(ids) + inside[0], len(ids) + inside[-1] + 1))
            ids += tokens
            heads.append(len(ids))
        return Encoded(tuple(ids), tuple(heads), tuple(users))

    def reply(self, text: str) -> list[int]:
        """Tokens of a reply with the token that ends a turn."""
        return [*self._reply(text), self.end]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated tokens, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def _reply(self, text: str) -> list[int]:
        said = self._plain(text).strip()
        return self._tokens(self._template.lead + said)[0] if said else []

    def _find_bos(self) -> list[int]:
        """The token that the tokenizer puts before every text, where it does and the template does not."""
        bos = self.tokenizer.bos_token_id
        first = self._tokens(self._template.around(0, "")[0], opens=True)[0][:1]
        if bos is None or first == [bos] or self.tokenizer("a")["input_ids"][:1] != [bos]:
            return []
        self.differences.append(f"{self.tokenizer.bos_token} stands in front, as in all texts of the tokenizer")
        return [bos]

    def _find_anchor(self) -> str:
        """A character to tokenise before a text, and to drop, where the tokenizer makes every text begin with a space.

        Without it what continues a text would begin with a space, too.
        """
        anchored = self._continuing("\0", "a")
        return "\0" if anchored and anchored != self._continuing("", "a") else ""

    def _plain(self, text: str) -> str:
        """TEXT with a cut in every special token that it spells out."""
        text = text.replace(CUT, "")
        return text if self._special is None else self._special.sub(rf"\1{CUT}", text)

    def _tokens(self, text: str, opens: bool = False) -> tuple[list[int], list[Span]]:
        """Tokens of TEXT and the span of each in it; the pieces between cuts are tokenised one by one.

        It continues a text, or OPENS one.
        """
        ids: list[int] = []
        spans: list[Span] = []
        start = 0
        for piece in text.split(CUT):
            for token, (a, b) in self._continuing("" if opens and start == 0 else self._anchor, piece):
                ids.append(token)
                spans.append((start + a, start + b))
            start += len(piece) + len(CUT)
        return ids, spans

    def _continuing(self, before: str, text: str) -> list[tuple[int, Span]]:
        """Tokens of TEXT after BEFORE, each with its span."""
        out = self.tokenizer(before + text, add_special_tokens=False, return_offsets_mapping=True)
        n = len(before)
        found = zip(out["input_ids"], out["offset_mapping"], strict=True)
        return [(int(token), (int(a) - n, int(b) - n)) for token, (a, b) in found if a >= n]

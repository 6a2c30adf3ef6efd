"""A chat template taken apart: what it writes before, between and after what is said.

Owns which text stands around messages, so that every history is the beginning of the next, and in what that differs
from the template. Knows nothing of tokens. The template is rendered with words that stand for messages: what is said
cannot change what it does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from pamdp.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PLAIN = (
    "{% for m in messages %}{{ {'system': '', 'user': 'User: ', 'assistant': 'Assistant: '}[m['role']] }}"
    "{{ m['content'] + '\n\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""For tokenizers without a template, as those of base models."""
TODAY = date(2024, 7, 26)
"""What templates are told that write the date (it is Llama 3.1's own default): a run can be repeated on another day."""

_SYSTEM, _USER, _REPLY = " XsSx ", "Xu{}Ux", "Xa{}Ax"
"""Stand for the system text, whose spaces tell whether the template trims it, and for the messages of a turn."""
_NOW = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")
_THINKING = re.compile(r"<(think|thinking|thought|reasoning|seed:think)>\s*\Z")


class ChatTemplate:
    """The text around what is said.

    Attributes:
      lead: white space that opens a reply: the template has it before earlier replies, but not before a new one.
      ending: the special token that ends a reply.
      differences: in what the text differs from the template's, in words.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, special: Sequence[str], end: str | None) -> None:
        """Of TOKENIZER's template, or PLAIN.

        Args:
          special: tokens, one of which may end the template's replies.
          end: ends replies that the template ends in none of them.

        Raises:
          ModelError: the template cannot be rendered, or changes or leaves out what is said; or nothing ends a reply.
        """
        self._tokenizer = tokenizer
        self._pieces: dict[tuple[int, bool], tuple[str, str]] = {}
        self.differences: list[str] = []
        self._source = self._read()
        self._merged = self._merged_later = not self._has_role()
        known = len(self.differences)
        if _SYSTEM.strip() in "".join(self._piece(1, _SYSTEM)):
            self.differences.append("the system text stays in the first user message")
            self._merged_later = True
        self.ending = self._end(special, end)
        self.lead, self._header = self._opening()
        if len(self.differences) == known and self._text() != self._render(3, _SYSTEM, self._merged):
            self.differences.append("earlier turns stay as they were when they were the last")

    def around(self, t: int, system: str) -> tuple[str, str]:
        """What stands before and after the user's message of turn T.

        Before it: all that comes first (t = 0), or the end of the last reply and what follows. After it: all up to the
        reply, as where a new one is asked for.
        """
        key = t, bool(system)
        if key not in self._pieces:
            before, after = self._piece(t, _SYSTEM if system else "")
            if t:
                bare = before.lstrip()
                before = bare if bare.startswith(self.ending) else self.ending + before
            self._pieces[key] = before, _closed(after + self._header)
        before, after = self._pieces[key]
        return (_put(system, before), _put(system, after)) if t == 0 and system else (before, after)

    def _read(self) -> str:
        """The template's source, with a date that stays."""
        if not self._tokenizer.chat_template:
            self.differences.append("the tokenizer has no template: turns begin with 'User:' and 'Assistant:'")
            return PLAIN
        try:
            source = str(self._tokenizer.get_chat_template())
        except ValueError as error:
            raise _refused(error) from error
        dated = _NOW.sub(lambda call: repr(TODAY.strftime(call[2])), source)
        if dated != source:
            self.differences.append(f"the date is always {TODAY}")
        if "enable_thinking" in source:
            self.differences.append("thinking is off")
        return dated

    def _has_role(self) -> bool:
        """Whether the template takes a system message; else its text opens the first user message."""
        try:
            if _SYSTEM.strip() in self._render(1, _SYSTEM, False):
                return True
        except ModelError:
            self._render(1, _SYSTEM, True)  # fails too where something else is wrong
        self.differences.append("it has no system role: the system text opens the first user message")
        return False

    def _end(self, special: Sequence[str], end: str | None) -> str:
        before, _ = self._piece(1, _SYSTEM)
        if found := next((token for token in special if before.lstrip().startswith(token)), None):
            if not before.startswith(found):
                self.differences.append(f"no white space stands before {found}")
            return found
        if not end:
            raise ModelError("nothing ends a reply: the chat template writes no special token there, and no end is set")
        if self._source != PLAIN:
            self.differences.append(f"replies end in {end}: it ends them in plain text")
        return end

    def _opening(self) -> tuple[str, str]:
        """What opens a reply, and what is missing of its header where the template asks for one."""
        _, after = self._piece(0, _SYSTEM)
        _, _, rest = self._render(2, _SYSTEM, self._merged_later).partition(_USER.format(0))
        before = rest.partition(_REPLY.format(0))[0]
        closed = _closed(after)
        if closed != after:
            self.differences.append("the thinking that it opens before a reply is closed at once")
        elif before.startswith(after):
            more = before.removeprefix(after)
            if not more.strip():
                return more, ""
            self.differences.append(f"replies are asked for with {more!r}, as before earlier ones")
            header = more.rstrip(" ")
            return more.removeprefix(header), header
        if before != closed:
            same = next(
                (i for i, pair in enumerate(zip(before, closed, strict=False)) if len({*pair}) > 1), len(before)
            )
            self.differences.append(f"earlier replies keep {closed[same:]!r} before them (it has {before[same:]!r})")
        return "", ""

    def _text(self) -> str:
        """A chat with three questions, as `around` has it."""
        out = ""
        for t in range(3):
            before, after = self.around(t, _SYSTEM)
            out += f"{before}{_USER.format(t)}{after}" + (f"{self.lead}{_REPLY.format(t)}" if t < 2 else "")
        return out

    def _piece(self, t: int, system: str) -> tuple[str, str]:
        """What the template has around the user's message of turn T, the last one, back to the reply before it."""
        text = self._render(t + 1, system, self._merged_later if t else self._merged)
        if t:
            _, found, text = text.rpartition(_REPLY.format(t - 1))
        before, user, after = text.partition(_USER.format(t))
        if not user or user in after or (t and not found):
            raise ModelError("this chat template changes what the user says, or leaves it out; use another one")
        return before, after

    def _render(self, turns: int, system: str, merged: bool) -> str:
        """Some turns, the last of which waits for its reply; the system text in a message of its own, or MERGED."""
        chat = [] if merged else [{"role": "system", "content": system}]
        for t in range(turns):
            said = f"{system.strip()}\n\n{_USER.format(t)}" if merged and system and t == 0 else _USER.format(t)
            chat.append({"role": "user", "content": said})
            chat.append({"role": "assistant", "content": _REPLY.format(t)})
        # A template may write tokens that its tokenizer lacks.
        lacking = {name: "" for name in ("bos_token", "eos_token") if name not in self._tokenizer.special_tokens_map}
        try:
            # Thinking would use up the few tokens that a reply may have; templates that do not ask ignore this.
            text = self._tokenizer.apply_chat_template(
                chat[:-1],
                chat_template=self._source,
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
                **lacking,
            )
        except Exception as error:  # whatever a template does
            raise _refused(error) from error
        return str(text)


def _put(system: str, text: str) -> str:
    """TEXT with the system text, trimmed where the template trims it."""
    return text.replace(_SYSTEM, system) if _SYSTEM in text else text.replace(_SYSTEM.strip(), system.strip())


def _closed(header: str) -> str:
    """A reply's header without thinking that waits to be written."""
    found = _THINKING.search(header)
    return f"{header[: found.start()]}<{found[1]}>\n\n</{found[1]}>\n\n" if found else header


def _refused(error: Exception) -> ModelError:
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ModelError(f"this chat template cannot be used: {said}; use another tokenizer's template")

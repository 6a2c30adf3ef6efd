"""Asking a chat model for something that can be used: an answer is parsed, and asked for again where that fails.

Owns retries of answers and what a refusal looks like. Knows nothing of what is asked for. Failures of calls are not its
business (limits.py).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pamdp.async_bridge import together
from pamdp.errors import AnswerError, ContextLengthError
from pamdp.llm.chat import ChatModel, Completion, Decoding
from pamdp.llm.thinking import without_thinking
from pamdp.progress import note
from pamdp.prompts.render import load
from pamdp.seeds import seed_of
from pamdp.types import Message

A = TypeVar("A")
T = TypeVar("T")

SILENCE = "..."
"""What is given in place of a message without words."""
CUT_OFF = "cut off by max_tokens"
"""Reason of an answer that the limit of tokens ended."""
ROOM = 4
"""How many times more tokens are allowed after an answer that was cut off."""
_LABEL = r"(?:(?:my |the )?(?:final |overall )?(?:verdict|answer|choice|decision|rating|score)(?: is)?)?"
_REFUSAL = re.compile(
    r"^\W*(i['’]?m sorry|i am sorry|sorry|i apologi[sz]e|unfortunately|i can ?not|i can['’]?t"
    r"|i['’]?m (not able|unable))"
    r"\b.{0,60}\b(assist|help with|comply|fulfil|provide that|do that|participate|engage|role-?play)",
    re.I | re.S,
)


@dataclass(frozen=True, slots=True)
class Asking:
    """How a chat model is asked."""

    temperature: float = 0.0  # of the first answer; 0 lets it be remembered (cache.py)
    max_tokens: int = 256  # of the first answer; one that it cuts off is asked for again with ROOM times as many
    attempts: int = 3  # most answers asked for where one cannot be used
    seed: int = 0

    def fingerprint(self, model: ChatModel, *prompts: str) -> dict[str, str]:
        """What identifies MODEL when it is asked like this, in the words of some prompts."""
        words = hashlib.sha256("".join(map(load, prompts)).encode()).hexdigest()[:12]
        drawn = {"temperature": f"{self.temperature:g}", "seed": str(self.seed)}
        return {**model.fingerprint, "prompt": words, **drawn}


def unquoted(text: str) -> str:
    """TEXT without the quotation marks around all of it."""
    text = text.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == '"' else text


def only(mark: re.Pattern[str], text: str, what: str) -> str:
    """What MARK finds in a text, once or several times, in capitals.

    Of several ones, the one counts that stands alone on the last line, or else the only one without quotation marks.

    Raises:
      AnswerError: there is no WHAT, or more than one.
    """
    found = {str(each).upper() for each in mark.findall(text)}
    if len(found) > 1:
        alone = re.fullmatch(rf"\W*{_LABEL}\W*{mark.pattern}\W*", text.strip().splitlines()[-1], re.I)
        said = re.findall(rf"(?<![\"'`“‘]){mark.pattern}(?![\"'`”’])", text, mark.flags)
        given = {alone[1].upper()} if alone else {str(each).upper() for each in said}
        found = given if len(given) == 1 else found
    if len(found) != 1:
        raise AnswerError(f"{len(found)} {what}s in an answer" if found else f"no {what} in an answer")
    return found.pop()


def refuses(text: str) -> bool:
    """Whether a text is the stock refusal of an assistant."""
    return _REFUSAL.search(text) is not None


def readable(text: str, least: int = 1) -> str:
    """TEXT, where it is words of somebody.

    Raises:
      AnswerError: there are not LEAST letters or digits in a row, or there are control characters.
    """
    if not re.search(rf"\w{{{least}}}", text) or any(ord(c) < 32 and c not in "\n\t" for c in text):
        raise AnswerError("a message without words", "no words")
    return text


async def ask(
    model: ChatModel,
    messages: Sequence[Message],
    parse: Callable[[str], T],
    how: Asking = Asking(),
    *about: object,
    reminder: str = "reminder",
    rejected: Callable[[str], object] = lambda _: None,
    whole: bool = False,
) -> T:
    """What PARSE makes of the model's answer; every further try has its own seed, and says what went wrong.

    Thinking is taken out first. Where the limit of tokens left nothing else, or cut off what has to be WHOLE, the same
    is asked again with ROOM times as many.

    Args:
      messages: a question; or a system message and a chat, whose last message is somebody's own. One without words is
        given as silence: no model of chats takes it.
      parse: raises AnswerError where a text cannot be used.
      about: what the seed of the draw is made of, beside the seed of HOW.
      reminder: prompt that is put behind the question, or the system message, after an answer that could not be used.
      rejected: told the reason of every answer that could not be used, also where a later one could.
      whole: an answer that is cut off cannot be used: what it comes to stands at its end.

    Raises:
      AnswerError: no answer could be used.
      EndpointError: the model cannot be reached.
    """
    given = [replace(m, content=m.content if m.content.strip() else SILENCE) for m in messages]
    asked, decoding = given, Decoding(how.temperature, how.max_tokens)
    seed = seed_of(how.seed, *about) if about else how.seed
    last = AnswerError("nothing was asked")
    for attempt in range(how.attempts):
        try:
            answer = await model.complete(asked, decoding, seed=seed_of(seed, attempt) if attempt else seed)
        except ContextLengthError as error:
            if decoding.max_tokens == how.max_tokens:
                raise
            raise AnswerError(f"{last}; no room for {decoding.max_tokens}: {error}", CUT_OFF) from error
        try:
            return parse(_said(answer, decoding.max_tokens, whole))
        except AnswerError as error:
            last = error
            rejected(error.reason)
        if last.reason == CUT_OFF:
            decoding = replace(decoding, max_tokens=decoding.max_tokens * ROOM)
            continue
        # A deterministic model would say the same again: the second question is another one, and its answer is drawn.
        behind = 0 if given[0].role == "system" else -1
        asked = given.copy()
        asked[behind] = replace(given[behind], content=f"{given[behind].content}\n\n{load(reminder)}")
        decoding = replace(decoding, temperature=max(decoding.temperature, 0.5))
    raise AnswerError(f"no usable answer in {how.attempts} tries, last: {last}", last.reason)


def _said(answer: Completion, tokens: int, whole: bool) -> str:
    """The text of an answer without its thinking; an AnswerError where it cannot be used, whatever was asked."""
    text = without_thinking(answer.text)
    if answer.refused or refuses(text):
        raise AnswerError("the model refuses", "refusal")
    if not text and (answer.cut or answer.text):
        raise AnswerError(f"thinking and no answer within {tokens} tokens (max_tokens)", CUT_OFF)
    if whole and answer.cut:
        raise AnswerError(f"an answer cut off after {tokens} tokens (max_tokens)", CUT_OFF)
    if not text:
        raise AnswerError("an empty answer", "no words")
    return text


@dataclass(slots=True)
class Masked:
    """How many answers of somebody could not be had, by reason; the first of each reason is told in a line."""

    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, whose: str, error: AnswerError) -> None:
        """One more."""
        if error.reason not in self.reasons:
            note(f"{whose}: an answer is masked: {error}; further ones are counted")
        self.reasons[error.reason] += 1

    def __str__(self) -> str:
        return ", ".join(f"{n} {reason}" for reason, n in self.reasons.items())


async def each(
    items: Iterable[A],
    answer: Callable[[A], Awaitable[T]],
    progress: Callable[[int], None] | None = None,
    masked: Callable[[AnswerError], object] = lambda _: None,
) -> list[T | None]:
    """ANSWER of every item, all at the same time; None where no usable one could be had, and MASKED is told why."""

    async def one(item: A) -> T | None:
        try:
            return await answer(item)
        except AnswerError as error:
            masked(error)
            return None
        finally:
            if progress is not None:
                progress(1)

    return await together(map(one, items))

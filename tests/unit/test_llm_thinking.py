"""Thinking is taken out of an answer, however it is marked; what is cut off gets more room, then is masked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from pamdp.errors import AnswerError, ContextLengthError
from pamdp.llm.ask import CUT_OFF, Asking, ask
from pamdp.llm.cache import Cached
from pamdp.llm.chat import Completion, Decoding
from pamdp.llm.thinking import without_thinking
from pamdp.types import Message
from tests.tools.scripted import ScriptedChat

ASKED = (Message("user", "Which one?"),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Tea.", "Tea."),
        ("<think>\nTea? No.\n</think>\n\nMilk.", "Milk."),
        ("<THINK>x</THINK>Milk. <thinking>y</thinking>", "Milk."),
        ("[THINK]x[/THINK]Milk.", "Milk."),
        ("Tea? No.\n</think>\nMilk.", "Milk."),  # the template opened it
        ('<think>They say "</think>Tea." No. </think>Milk.', "Milk."),  # a reply that quotes the end
        ("<think>a<think>b</think>c</think>Milk.", "Milk."),
        ("<think>\nTea, or", ""),
        ("Milk.\n<think>Or tea", "Milk."),
        ("I think <b>so</b> [thinking]", "I think <b>so</b> [thinking]"),
    ],
)
def test_what_is_thought_is_not_said(text: str, said: str) -> None:
    assert without_thinking(text) == said


class Cutting(ScriptedChat):
    """Says nothing to the end in less than NEEDS tokens; has no room for more than LIMIT."""

    def __init__(self, needs: int, limit: int = 10**9, part: str = "<think>Hm") -> None:
        super().__init__(lambda messages, seed: "")
        self.needs, self.limit, self.part = needs, limit, part
        self.given: list[Decoding] = []

    async def complete(self, messages: object, decoding: Decoding = Decoding(), *, seed: int = 0) -> Completion:
        self.given.append(decoding)
        if decoding.max_tokens > self.limit:
            raise ContextLengthError(f"no more than {self.limit}")
        done = decoding.max_tokens >= self.needs
        return Completion("<think>Hm</think>Tea." if done else self.part, cut=not done)


def _ask(model: ScriptedChat, how: Asking = Asking(max_tokens=10), whole: bool = False) -> str:
    return asyncio.run(ask(model, ASKED, str, how, whole=whole))


@pytest.mark.parametrize("part", ["<think>Hm", "", "<think>Hm</think>"])
def test_thinking_without_an_answer_is_asked_again_with_more_room_and_the_same_words(part: str) -> None:
    model = Cutting(100, part=part)
    assert _ask(model) == "Tea."
    assert model.given == [Decoding(0.0, 10), Decoding(0.0, 40), Decoding(0.0, 160)]


def test_what_has_to_be_whole_is_not_read_where_it_is_cut_off() -> None:
    assert _ask(Cutting(20, part="I like")) == "I like"
    assert _ask(Cutting(20, part="I like"), whole=True) == "Tea."


def test_it_is_masked_with_the_limit_as_reason() -> None:
    with pytest.raises(AnswerError, match="last: thinking and no answer within 40 tokens") as error:
        _ask(Cutting(100), Asking(max_tokens=10, attempts=2))
    assert error.value.reason == CUT_OFF
    with pytest.raises(AnswerError, match="cut off after 40 tokens"):
        _ask(Cutting(100, part="I like"), Asking(max_tokens=10, attempts=2), whole=True)


def test_where_more_does_not_fit_it_is_masked_and_where_the_first_does_not_it_is_the_end() -> None:
    with pytest.raises(AnswerError, match=r"within 10 tokens .*; no room for 40: no more than 20") as error:
        _ask(Cutting(100, limit=20))
    assert error.value.reason == CUT_OFF
    with pytest.raises(ContextLengthError):
        _ask(Cutting(100, limit=5))


def test_a_cut_answer_is_remembered_as_one(tmp_path: Path) -> None:
    model = Cutting(20)
    for _ in range(2):
        assert _ask(Cached(model, tmp_path)) == "Tea."  # type: ignore[arg-type]
    assert len(model.given) == 2
    stored = sorted((json.loads(file.read_bytes()) for file in tmp_path.rglob("*.json")), key=str)
    assert stored == [{"text": "<think>Hm", "cut": True}, {"text": "<think>Hm</think>Tea."}]

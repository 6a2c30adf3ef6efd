"""What holds for every chat model and every wrapper: one suite, run on each of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pamdp.llm.cache import Cached
from pamdp.llm.chat import ChatModel, Completion, Decoding
from pamdp.llm.ledger import Ledger, Metered
from pamdp.llm.limits import Limited, Retrying
from pamdp.llm.local import LocalChat
from pamdp.llm.scripted import Faulty, ScriptedChat
from pamdp.types import Message
from tests.tools.tiny import make_tiny_backbone

ASKED = (Message("system", "Be brief."), Message("user", "How do you like your tea?"))
OTHER = (Message("user", "What should I cook?"),)


def _scripted() -> ChatModel:
    return ScriptedChat(lambda messages, seed: f"{len(messages[-1].content)} of {seed}")


MODELS: dict[str, Callable[[Path], ChatModel]] = {
    "scripted": lambda _: _scripted(),
    "local": lambda _: LocalChat(make_tiny_backbone(), batch=2),
    "cached": lambda folder: Cached(_scripted(), folder),
    "metered": lambda _: Metered(_scripted(), Ledger(), "judge"),
    "limited": lambda _: Limited(_scripted(), concurrency=2),
    "retrying": lambda _: Retrying(_scripted()),
    "faulty": lambda _: Faulty(_scripted(), {}),
    "all": lambda folder: Cached(Retrying(Metered(Limited(_scripted()), Ledger(), "judge")), folder),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> ChatModel:
    return MODELS[request.param](tmp_path)


def _ask(model: ChatModel, *calls: tuple[tuple[Message, ...], Decoding, int]) -> list[Completion]:
    async def all_of_them() -> list[Completion]:
        return list(await asyncio.gather(*(model.complete(m, d, seed=s) for m, d, s in calls)))

    return asyncio.run(all_of_them())


GREEDY, DRAWN = Decoding(max_tokens=4), Decoding(temperature=1.0, max_tokens=4)


def test_it_is_a_chat_model_that_can_be_identified(model: ChatModel) -> None:
    assert isinstance(model, ChatModel)
    assert {"kind", "model"} <= set(model.fingerprint)
    assert json.loads(json.dumps(model.fingerprint)) == model.fingerprint


def test_an_answer_is_trimmed_text_with_its_tokens(model: ChatModel) -> None:
    (answer,) = _ask(model, (ASKED, DRAWN, 3))
    assert answer.text == answer.text.strip() and answer.text
    assert answer.prompt_tokens > 0 and answer.completion_tokens > 0 and not answer.refused


def test_the_same_call_has_the_same_answer_and_seeds_matter(model: ChatModel) -> None:
    first, again = (_ask(model, (ASKED, DRAWN, 3))[0].text for _ in range(2))
    assert first == again
    assert len({_ask(model, (ASKED, DRAWN, seed))[0].text for seed in range(6)}) > 1


def test_answers_belong_to_their_questions_whatever_is_asked_at_the_same_time(model: ChatModel) -> None:
    calls = [(ASKED, DRAWN, 1), (OTHER, GREEDY, 2), (OTHER, DRAWN, 3), (ASKED, GREEDY, 4), (ASKED, DRAWN, 5)]
    alone = [_ask(model, call)[0].text for call in calls]
    together = _ask(model, *calls)
    assert [answer.text for answer in together] == alone

"""What holds for every chat model and every wrapper: one suite, run on each of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from pamdp.async_bridge import run
from pamdp.llm.cache import Cached
from pamdp.llm.chat import ChatModel, Decoding
from pamdp.llm.ledger import Ledger, Metered
from pamdp.llm.limits import Limited, Limits, Retrying
from pamdp.llm.local import LocalChat
from pamdp.testing import check_chat_model
from pamdp.types import Message
from tests.tools.scripted import Answer, Faulty, ScriptedChat
from tests.tools.tiny import make_tiny_backbone


def _scripted() -> ChatModel:
    return ScriptedChat(lambda messages, seed: f"{len(messages[-1].content)} of {seed}")


MODELS: dict[str, Callable[[Path], ChatModel]] = {
    "scripted": lambda _: _scripted(),
    "local": lambda _: LocalChat(make_tiny_backbone(), batch=2),
    "cached": lambda folder: Cached(_scripted(), folder),
    "metered": lambda _: Metered(_scripted(), Ledger(), "judge"),
    "limited": lambda _: Limited(_scripted(), Limits(concurrency=2)),
    "retrying": lambda _: Retrying(_scripted()),
    "faulty": lambda _: Faulty(_scripted(), {}),
    "all": lambda folder: Cached(Retrying(Metered(Limited(_scripted()), Ledger(), "judge")), folder),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> ChatModel:
    return MODELS[request.param](tmp_path)


def test_it_keeps_the_contract(model: ChatModel) -> None:
    check_chat_model(model)


def test_tokens_are_counted(model: ChatModel) -> None:
    answer = run(model.complete((Message("user", "Tea?"),), Decoding(temperature=1.0, max_tokens=4), seed=3))
    assert answer.prompt_tokens > 0 and answer.completion_tokens > 0


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda messages, seed: "always", "differ between seeds"),
        (lambda messages, seed: "", "trimmed text"),
        (lambda messages, seed, n=count(): f"{next(n)}", "the same call"),
    ],
)
def test_who_breaks_the_contract_is_told_how(answer: Answer, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_chat_model(ScriptedChat(answer))
    with pytest.raises(AssertionError, match="a chat model has"):
        check_chat_model(object())  # type: ignore[arg-type]

"""Cache, ledger, questions, faults and local models: what is remembered, counted, asked again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from pamdp.errors import AnswerError, ContextLengthError
from pamdp.llm.ask import Asking, ask, readable, refuses
from pamdp.llm.cache import Cached
from pamdp.llm.chat import ChatModel, Completion, Decoding, TransientError
from pamdp.llm.ledger import Ledger, Metered, Price
from pamdp.llm.local import LocalChat
from pamdp.types import Message
from tests.tools.scripted import ERRORS, FAULTS, TEXTS, Faulty, ScriptedChat
from tests.tools.tiny import make_tiny_backbone

ASKED = (Message("user", "Which one?"),)
DRAWN = Decoding(temperature=0.5)


def _echo(messages: object, seed: int) -> str:
    return f"seed {seed}"


def _once(model: ChatModel, decoding: Decoding = Decoding(), seed: int = 0) -> Completion:
    return asyncio.run(model.complete(ASKED, decoding, seed=seed))


def test_what_a_deterministic_model_said_is_not_asked_again(tmp_path: Path) -> None:
    model = ScriptedChat(_echo)
    first = _once(Cached(model, tmp_path))
    again = Cached(model, tmp_path)
    assert _once(again).text == first.text and _once(again).prompt_tokens == 0
    assert len(model.asked) == 1


def test_a_draw_is_never_taken_for_another(tmp_path: Path) -> None:
    model = ScriptedChat(_echo)
    cached = Cached(model, tmp_path)
    assert [_once(cached, DRAWN, seed).text for seed in (1, 2, 1)] == ["seed 1", "seed 2", "seed 1"]
    assert len(model.asked) == 3 and not list(tmp_path.rglob("*.json"))


def test_other_models_messages_and_settings_have_other_keys(tmp_path: Path) -> None:
    a, b = Cached(ScriptedChat(_echo, "a"), tmp_path), Cached(ScriptedChat(_echo, "b"), tmp_path)
    keys = [
        a.key(ASKED, Decoding()),
        b.key(ASKED, Decoding()),
        a.key((Message("assistant", "Which one?"),), Decoding()),
        a.key(ASKED, Decoding(max_tokens=7)),
    ]
    assert len(set(keys)) == len(keys)


def test_equal_calls_at_the_same_time_are_one(tmp_path: Path) -> None:
    model = ScriptedChat(_echo)
    cached = Cached(model, tmp_path)

    async def many() -> list[Completion]:
        return list(await asyncio.gather(*(cached.complete(ASKED) for _ in range(5))))

    answers = asyncio.run(many())
    assert {a.text for a in answers} == {"seed 0"} and len(model.asked) == 1
    assert sum(a.prompt_tokens > 0 for a in answers) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b'{"text": 3}', b"[]"])
def test_a_damaged_answer_is_asked_for_again(tmp_path: Path, damage: bytes) -> None:
    model = ScriptedChat(_echo)
    _once(Cached(model, tmp_path))
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(damage)
    assert _once(Cached(model, tmp_path)).text == "seed 0"
    assert len(model.asked) == 2 and json.loads(file.read_bytes()) == {"text": "seed 0"}


def test_nothing_is_not_remembered(tmp_path: Path) -> None:
    model = ScriptedChat(lambda messages, seed: "")
    _once(Cached(model, tmp_path))
    assert not list(tmp_path.rglob("*.json"))


def test_costs_are_counted_by_role_and_priced_where_prices_are_known() -> None:
    ledger = Ledger()
    judge = Metered(ScriptedChat(lambda messages, seed: "a b c"), ledger, "judge", Price(1_000_000.0, 2_000_000.0))
    user = Metered(Faulty(ScriptedChat(_echo), {"500": 1.0}), ledger, "simulator")
    for _ in range(2):
        _once(judge)
    with pytest.raises(TransientError):
        _once(user)
    entry = ledger.entries["judge"]
    assert (entry.calls, entry.failed, entry.prompt_tokens, entry.completion_tokens) == (2, 0, 4, 6)
    assert entry.money == pytest.approx(4 + 12)
    assert ledger.entries["simulator"].failed == 1 and ledger.entries["simulator"].money is None
    taken_up = Ledger()
    taken_up.load(json.loads(json.dumps(ledger.to_json())))
    assert taken_up == ledger
    assert ledger.scalars() == {
        "judge_calls": 2, "judge_tokens": 10, "judge_money": 16, "simulator_calls": 1, "simulator_tokens": 0,
    }  # fmt: skip


def _number(text: str) -> int:
    if not text.isdigit():
        raise AnswerError("not a number")
    return int(text)


def _answers(*texts: str) -> ScriptedChat:
    left = list(texts)
    return ScriptedChat(lambda messages, seed: left.pop(0))


@pytest.mark.parametrize("bad", ["many", "", "I'm sorry, but I can't help with that.", *TEXTS.values()])
def test_an_answer_that_cannot_be_used_is_asked_for_again(bad: str) -> None:
    model = _answers(bad, bad, "3")
    assert asyncio.run(ask(model, ASKED, _number)) == 3
    first, *others = model.asked
    assert first == ASKED
    assert all(a[0].content.startswith("Which one?\n\nYour last answer could not be used.") for a in others)


def test_when_no_answer_can_be_used_it_says_why() -> None:
    model = _answers("many", "", "some", "5")
    with pytest.raises(AnswerError, match="no usable answer in 3 tries, last: not a number"):
        asyncio.run(ask(model, ASKED, _number))
    assert len(model.asked) == 3


def test_what_was_rejected_is_told_by_reason_also_where_a_later_answer_could_be_used() -> None:
    told = list[str]()
    refusal = "I'm sorry, but I can't help with that."
    model = _answers("many", refusal, "", "4")
    assert asyncio.run(ask(model, ASKED, _number, Asking(attempts=4), rejected=told.append)) == 4
    assert told == ["unreadable", "refusal", "no words"]
    with pytest.raises(AnswerError) as error:
        asyncio.run(ask(_answers(refusal), ASKED, _number, Asking(attempts=1)))
    assert error.value.reason == "refusal"


@pytest.mark.parametrize("text", ["Tea.", "5", "два\nтри"])
def test_words_are_told_from_noise(text: str) -> None:
    assert readable(text) == text
    for noise in ("...", f"\x1b[0m{text}", ""):
        with pytest.raises(AnswerError, match="without words"):
            readable(noise)


def test_a_second_try_is_drawn_with_a_seed_of_its_own() -> None:
    seen: list[tuple[float, int]] = []

    class Noting(ScriptedChat):
        async def complete(self, messages: object, decoding: Decoding = Decoding(), *, seed: int = 0) -> Completion:
            seen.append((decoding.temperature, seed))
            return Completion("no")

    with pytest.raises(AnswerError):
        asyncio.run(ask(Noting(_echo), ASKED, _number, Asking(seed=7)))
    assert seen[0] == (0.0, 7) and len(set(seen)) == 3 and min(t for t, _ in seen[1:]) > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm sorry, but I can't assist with that.", True),
        ("I cannot role-play as a person.", True),
        ("Unfortunately, I am unable to help with this request.", True),
        ("I’m sorry, I can’t comply.", True),
        ("Sorry to hear that! What happened to the soup?", False),
        ("I can't stand coffee in the morning.", False),
        ("[[A]]", False),
    ],
)
def test_refusals_are_told_from_chat(text: str, expected: bool) -> None:
    assert refuses(text) is expected


def test_faults_come_at_their_rates_and_are_what_they_say() -> None:
    model = Faulty(ScriptedChat(_echo), dict.fromkeys(FAULTS, 0.1), seed=1)
    texts: list[str] = []
    for _ in range(2000):
        try:
            texts.append(_once_text(model))
        except TransientError as error:
            assert str(error) in ERRORS.values()
    assert {*TEXTS.values(), "seed 0"} == set(texts)
    assert all(abs(model.seen[name] / 2000 - 0.1) < 0.03 for name in FAULTS)
    with pytest.raises(ValueError, match="no fault"):
        Faulty(model, {"fire": 0.1})


def _once_text(model: Faulty) -> str:
    coroutine = model.complete(ASKED)
    try:
        while True:
            coroutine.send(None)
    except StopIteration as end:
        return str(end.value.text)


def test_a_local_model_writes_together_what_waits_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LocalChat(make_tiny_backbone(), batch=3)
    sizes: list[int] = []
    write = model._write

    def spy(calls: list[object], decoding: Decoding) -> list[Completion]:
        sizes.append(len(calls))
        return write(calls, decoding)

    monkeypatch.setattr(model, "_write", spy)

    async def many() -> list[Completion]:
        calls = [model.complete(ASKED, Decoding(1.0, 4), seed=s) for s in range(5)]
        return list(await asyncio.gather(*calls, model.complete(ASKED, Decoding(max_tokens=2))))

    assert len(asyncio.run(many())) == 6
    assert sizes == [3, 2, 1]


def test_a_call_that_does_not_fit_costs_no_other_of_its_batch() -> None:
    model = LocalChat(make_tiny_backbone(), batch=3)
    calls = [ASKED, [Message("user", "tea " * 3000)], (Message("user", "Tea?"),)]

    async def together() -> list[Completion | BaseException]:
        return list(await asyncio.gather(*(model.complete(m, Decoding(0, 3)) for m in calls), return_exceptions=True))

    first, long, last = asyncio.run(together())
    assert isinstance(long, ContextLengthError)
    assert first == _once(model, Decoding(0, 3)) and last == asyncio.run(model.complete(calls[2], Decoding(0, 3)))
    assert isinstance(first, Completion) and first.cut == (first.completion_tokens == 3)


def test_a_local_model_says_when_a_dialogue_is_too_long_and_goes_on_after_it() -> None:
    model = LocalChat(make_tiny_backbone())
    with pytest.raises(ContextLengthError, match="do not fit"):
        asyncio.run(model.complete([Message("user", "tea " * 3000)]))
    assert _once(model, Decoding(1.0, 3)).completion_tokens <= 3

"""Simulated users and the profiler: what they are told, what they may say, and what is read from it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pamdp.data import load_sample
from pamdp.env.profile import Profiler, parse_profile
from pamdp.env.references import WrittenReferences
from pamdp.env.simulated import (
    BROKEN,
    ECHO,
    LONGEST,
    Difficulty,
    SimulatedUser,
    breaks_role,
    echoes,
    parse_message,
    sentences,
)
from pamdp.errors import AnswerError
from pamdp.llm.ask import SILENCE, Asking
from pamdp.types import History, Message, Persona, TimeStep
from tests.tools.chats import NURSE
from tests.tools.scripted import TEXTS, ScriptedChat

ANA = Persona("Ana is a nurse. She works nights. She keeps bees.", "She is brief.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tea, please.", "Tea, please."),
        ('"Tea, please."', "Tea, please."),
        ("You: Tea, please.\nFriend: Here it is.\nYou: Thanks", "Tea, please."),
        ("Me: My friend: a nurse {too}", "My friend: a nurse {too}"),
        ('He said "no".', 'He said "no".'),
        ("J'aime le thé 🙂", "J'aime le thé 🙂"),
    ],
)
def test_a_message_is_read_without_what_stands_around_it(text: str, expected: str) -> None:
    assert parse_message(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "...", '""', "x" * (LONGEST + 1), "As an AI, I have no tea.", "I'm an assistant, how can I help?",
     "My profile says I like tea.", "\x1b[0m tea", "Friend:"],
)  # fmt: skip
def test_what_is_no_message_of_a_person_is_refused(text: str) -> None:
    with pytest.raises(AnswerError):
        parse_message(text)


def test_role_breaks_are_told_from_talk() -> None:
    assert breaks_role("I am an AI language model") and breaks_role("as an assistant I can")
    assert not breaks_role("I work in a hospital") and not breaks_role("I love AI films")


def _facts(user: SimulatedUser, turns: int = 6) -> list[int]:
    return [user.may_show(t) for t in range(turns)]


@pytest.mark.parametrize(
    ("difficulty", "shown"),
    [("cooperative", [1, 2, 3, 3, 3, 3]), ("topic-changing", [1, 2, 3, 3, 3, 3]), ("reserved", [1, 1, 2, 2, 3, 3])],
)
def test_a_profile_shows_bit_by_bit(difficulty: Difficulty, shown: list[int]) -> None:
    user = SimulatedUser("d", ANA, ScriptedChat(lambda m, s: "yes, well"), difficulty=difficulty)
    assert user.facts == ("Ana is a nurse.", "She works nights.", "She keeps bees.")
    assert _facts(user) == shown


def _history(turns: int) -> History:
    messages = [Message("user", "hello")]
    for t in range(turns):
        messages += [Message("assistant", f"reply {t}"), Message("user", f"answer {t}")]
    return tuple(messages)


def _hint(difficulty: Difficulty, turn: int) -> str:
    model = ScriptedChat(lambda m, s: "yes, well")
    user = SimulatedUser("d", ANA, model, difficulty=difficulty)
    asyncio.run(user.answer(_history(turn - 1), "And?"))
    ((part, *chat),) = model.asked
    assert part.role == "system" and ANA.profile in part.content and ANA.personality in part.content
    assert not any(ANA.profile in message.content for message in chat)
    return part.content.rsplit("\n\n", 1)[1]


def test_the_hint_follows_the_difficulty() -> None:
    assert "let this show now: She works nights." in _hint("cooperative", 1)
    assert "Tell nothing new" in _hint("cooperative", 4)
    assert "Tell nothing new" in _hint("reserved", 1)
    assert "let this show now: She works nights." in _hint("reserved", 2)
    assert "Change the topic now" in _hint("topic-changing", 2) and "She keeps bees." in _hint("topic-changing", 2)


def test_the_user_sees_the_dialogue_from_its_own_side() -> None:
    model = ScriptedChat(lambda m, s: "yes, well")
    asyncio.run(SimulatedUser("d", ANA, model).answer(_history(1), "And?"))
    ((_, cue, *chat),) = model.asked
    assert cue.role == "user" and "first message" in cue.content
    assert [(m.role, m.content) for m in chat] == [
        ("assistant", "hello"), ("user", "reply 0"), ("assistant", "answer 0"), ("user", "And?"),
    ]  # fmt: skip


def test_who_is_asked_again_hears_why_from_nobody_in_the_chat() -> None:
    said = iter(["As an AI, no.", "I sleep by day."])
    model = ScriptedChat(lambda m, s: next(said))
    asyncio.run(SimulatedUser("d", ANA, model).answer(_history(0), "And you?"))
    first, second = model.asked
    assert second[1:] == first[1:] and second[0].content.startswith(first[0].content)
    assert "could not be used" in second[0].content


def test_silence_is_something_to_answer() -> None:
    model = ScriptedChat(lambda m, s: "yes, well")
    asyncio.run(SimulatedUser("d", ANA, model).answer(_history(0), " "))
    assert [m.content for m in model.asked[0][2:]] == ["hello", SILENCE]


def test_a_user_without_a_profile_can_be_played() -> None:
    user = SimulatedUser("d", Persona(), ScriptedChat(lambda m, s: "hello there"))
    assert asyncio.run(user.start())[0].content == "hello there"
    assert len(asyncio.run(user.answer(_history(0), "Hi."))) == 3


def test_dialogues_of_another_seed_are_others_and_turns_have_seeds_of_their_own() -> None:
    def at(seed: int, turn: int) -> str:
        user = SimulatedUser("d", ANA, ScriptedChat(lambda m, s: f"number {s}"), how=Asking(0.7, seed=seed))
        return asyncio.run(user.answer(_history(turn), "?"))[-1].content

    assert at(1, 0) == at(1, 0) and len({at(1, 0), at(2, 0), at(1, 1)}) == 3


def test_a_user_that_falls_out_of_its_part_is_asked_again_then_given_up() -> None:
    said = iter(["As an AI, no.", "I sleep by day."])
    user = SimulatedUser("d", ANA, ScriptedChat(lambda m, s: next(said)))
    assert asyncio.run(user.answer(_history(0), "?"))[-1].content == "I sleep by day."
    assert user.rejected(1) == (BROKEN,) and user.rejected(0) == ()
    lost = SimulatedUser("d", ANA, ScriptedChat(lambda m, s: "As an AI, no."))
    with pytest.raises(AnswerError, match="out of its part"):
        asyncio.run(lost.answer(_history(0), "?"))


def test_a_user_that_says_again_what_was_said_is_asked_again() -> None:
    said = iter(["Reply 0", "And you, what do you do at night?", "I keep bees."])
    user = SimulatedUser("d", ANA, ScriptedChat(lambda m, s: next(said)))
    history = (*_history(1), Message("assistant", "Well! And you, what do you do at night?"), Message("user", "Hm"))
    assert asyncio.run(user.answer(history, "Tell me"))[-1].content == "I keep bees."
    assert user.rejected(3) == (ECHO, ECHO)


def test_what_counts_as_said_again_by_hand() -> None:
    said = (Message("user", "one two three four five six seven eight"),)
    assert not echoes("one two three four five six x y", said)  # 3 of 5 runs of four words
    assert echoes("one two three four five six seven x", said)  # 4 of 5
    assert echoes("One, two: three", (Message("assistant", "one two three"),)) and not echoes("one two", said)


def test_people_hardly_ever_say_again_what_was_said() -> None:
    dialogues = load_sample("train").dialogues
    found = [
        echoes(d.turns[t].user, (*d.history(t - 1), Message("assistant", d.turns[t - 1].preferred or "")))
        for d in dialogues
        for t in range(1, len(d.turns))
    ]
    assert len(found) > 400 and sum(found) <= 0.002 * len(found)


def test_findings_cite_the_messages_they_rest_on() -> None:
    text = (
        "Here it is:\n[1] works nights.\n- [2, 1] likes plain answers\n[9] flies\n[0] sings\nmade up\n[1] Works nights."
    )
    assert parse_profile(text, 3, 8) == Persona("works nights. likes plain answers.")
    assert parse_profile(text, 3, 1) == parse_profile(text, 1, 8) == Persona("works nights.")
    assert "flies" in parse_profile(text, 9, 8).profile


@pytest.mark.parametrize("text", ["[none]", "none", "[None].", "[7] a message that is not there"])
def test_a_profiler_may_abstain(text: str) -> None:
    assert parse_profile(text, 3, 8) == Persona()


@pytest.mark.parametrize("text", ["", "She is a nurse.", "[x] nurse", "1: nurse"])
def test_an_answer_without_citations_is_no_profile(text: str) -> None:
    with pytest.raises(AnswerError):
        parse_profile(text, 3, 8)


def test_a_profile_is_inferred_from_the_history_so_far_alone() -> None:
    model = ScriptedChat(lambda m, s: "[1] a nurse")
    found = asyncio.run(Profiler(model).infer(NURSE[:3]))
    assert found == Persona("a nurse.")
    ((question,),) = model.asked
    assert "[1] Person: I am a nurse" in question.content and "[2] Person: Simple." in question.content
    assert not any(m.content in question.content for m in NURSE[3:])


def test_the_reference_s_writer_sees_the_history_and_not_the_profile() -> None:
    model = ScriptedChat(lambda m, s: "Soup.")
    step = TimeStep("d", 2, NURSE, Persona("a canary"))
    (waited,) = WrittenReferences(model)([step])
    assert asyncio.run(waited) == ["Soup."]
    ((part, *chat),) = model.asked
    assert part.role == "system" and tuple(chat) == NURSE and "canary" not in part.content


def test_noise_is_no_reference() -> None:
    step = TimeStep("d", 2, NURSE, Persona())
    (waited,) = WrittenReferences(ScriptedChat(lambda m, s: TEXTS["garbage"]))([step])
    with pytest.raises(AnswerError, match="without words"):
        asyncio.run(waited)


def test_sentences_of_a_profile() -> None:
    assert sentences(" One. Two!  Three? four; five ") == ("One.", "Two!", "Three?", "four;", "five")
    assert sentences("") == ()


def _unused(messages: Sequence[Message], seed: int) -> str:
    raise AssertionError("nobody should be asked")


def test_a_recorded_opening_costs_no_call() -> None:
    user = SimulatedUser("d", ANA, ScriptedChat(_unused), opening="Hi {there}")
    history = asyncio.run(user.start())
    assert history == (Message("user", "Hi {there}"),) and asyncio.run(user.profile(history)) == ANA

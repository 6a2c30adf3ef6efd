"""Telling users apart, and simulated against recorded messages, by hand and on the tiny backbone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import pytest
import torch

from pamdp.env.profile import Profiler
from pamdp.env.simulated import SimulatedUser
from pamdp.evaluation.imitation import Place, by_chat, by_likelihood, compare_places, imitation, places_of
from pamdp.evaluation.recoverability import (
    Likelihood,
    Question,
    Scores,
    accuracy,
    by_profile,
    by_words,
    draw_others,
    overlap,
    recognise,
)
from pamdp.evaluation.transcripts import Exchange, Transcript
from pamdp.llm.ask import Asking
from pamdp.types import Dialogue, Message, Persona, Turn
from tests.tools.scripted import ScriptedChat
from tests.tools.tiny import make_tiny_backbone

FACTS = ("Keeps bees in Leeds.", "Drives a tram.", "Paints cats.", "Bakes rye bread.")
PEOPLE = [Persona(fact) for fact in FACTS]


def _talk(i: int, *said: str) -> Transcript:
    messages = [m for text in said for m in (Message("user", text), Message("assistant", "Bees, trams, cats, bread?"))]
    return Transcript(f"d{i}", f"u{i}", PEOPLE[i], tuple(messages[:-1]), (Exchange(PEOPLE[i]),) * (len(said) - 1))


def test_shared_words_weigh_the_more_the_fewer_have_them() -> None:
    people = [Persona("tea and bees"), Persona("tea and cats"), Persona("tea")]
    assert overlap("I like tea.", people) == [0, 0, 0]
    assert overlap("Bees, tea!", people) == pytest.approx([math.log(3), 0, 0])
    assert overlap("Nothing of the kind.", people) == [0, 0, 0]


def test_accuracy_by_turn_and_ties_that_share_the_point() -> None:
    talks = [
        _talk(0, "Hello.", "My bees!"),
        _talk(1, "Hi.", "The tram was late."),
        _talk(2, "Good day.", "I bake bread."),
    ]
    found = accuracy(recognise(talks, "words", by_words, others=2))
    # Nothing is told at first: three candidates tie. Then two are told, and one speaks of nobody who is there.
    assert [e.value for e, _ in found] == pytest.approx([1 / 3, (1 + 1 + 1 / 3) / 3])
    assert [masked for _, masked in found] == [0, 0] and found[0][0].clusters == 3


def test_an_answer_that_cannot_be_had_is_left_out() -> None:
    def silent(questions: Sequence[Question]) -> list[Scores]:
        return [None if i % 2 else [1.0, *([0.0] * (len(c) - 1))] for i, (_, c) in enumerate(questions)]

    told = recognise([_talk(0, "a", "b"), _talk(1, "c", "d")], "silent", silent, others=1)
    (first, none), (second, both) = accuracy(told)
    assert {t.recogniser for t in told} == {"silent"}
    assert (none, both) == (0, 2) and first.value == 1 and math.isnan(second.value)


def test_the_others_are_other_people_and_stay_the_same() -> None:
    drawn = draw_others(PEOPLE[1], "d1", PEOPLE, 3)
    assert PEOPLE[1] not in drawn and len(set(drawn)) == 3 and drawn == draw_others(PEOPLE[1], "d1", PEOPLE, 3)
    with pytest.raises(ValueError, match="4 other personas are asked for, and there are 3"):
        draw_others(PEOPLE[1], "d1", PEOPLE, 4)


def test_a_profiler_tells_by_what_it_cites_and_a_failure_is_no_guess() -> None:
    def tell(messages: Sequence[Message], seed: int) -> str:
        text = messages[-1].content
        return "[1] keeps bees" if "My bees" in text else "no line at all" if "garbled" in text else "[none]"

    profiler = Profiler(ScriptedChat(tell), Asking(attempts=1))
    bees, garbled, nothing = (_talk(0, text).messages for text in ("My bees", "garbled", "Hello"))
    first, second, third = by_profile([(bees, PEOPLE), (garbled, PEOPLE), (nothing, PEOPLE)], profiler)
    assert first is not None and first.index(max(first)) == 0
    assert second is None and third == [0, 0, 0, 0]


def test_the_likelihood_is_that_of_the_words_after_the_persona_whatever_the_batch() -> None:
    backbone = make_tiny_backbone(dtype=torch.float64)
    alone = [Likelihood(backbone).of(PEOPLE[0], [m])[0] for m in ("Tea?", "My bees are well.")]
    together = Likelihood(backbone).of(PEOPLE[0], ["My bees are well.", "Tea?", "Tea?"])
    assert together == pytest.approx([alone[1], alone[0], alone[0]], rel=1e-9)
    assert all(x < 0 for x in alone) and Likelihood(backbone).of(PEOPLE[1], ["Tea?"])[0] != alone[0]
    reader, talk = Likelihood(backbone), _talk(0, "Tea?", "My bees are well.")
    (scores,) = reader.scores([(talk.messages, PEOPLE)])
    assert scores is not None and scores[0] == pytest.approx(sum(alone))  # what the assistant said is not in it


def _place(simulated: str | None, recorded: str = "I feed my bees.", user: str = "u") -> Place:
    return Place(
        user, f"d-{user}", PEOPLE[0], (Message("user", "Hi."), Message("assistant", "Hello?")), recorded, simulated
    )


class Lookup:
    """Likelihoods from a table: (persona, message) -> nats."""

    def __init__(self, own: dict[str, float]) -> None:
        self.own = own

    def read(self, pairs: object) -> None:
        pass

    def of(self, persona: Persona, messages: Sequence[str]) -> list[float]:
        return [self.own[m] if persona == PEOPLE[0] else -10.0 for m in messages]


def test_the_likelihood_auditor_by_hand() -> None:
    """The recorded message gains 3 nats by its persona in 15 characters, the simulated ones 5 in 5, and −1."""
    reader = Lookup({"I feed my bees.": -7.0, "Bees!": -5.0, "Trams": -11.0})
    auditor = partial(by_likelihood, reader=reader, pool=PEOPLE, others=3)
    places = [_place("Bees!"), _place(None, user="w"), _place("Trams", user="v")]
    compared = compare_places(places, auditor)
    assert [(c.user_id, c.better) for c in compared] == [("u", "win"), ("w", None), ("v", "loss")]
    found = imitation(compared, "likelihood")
    assert (found.aligned.value, found.recorded.value) == (0.5, 1.0)
    assert (found.won.value, found.lost.value) == (0.5, 0.5)
    assert found.places == 3 and found.masked == 1 and found.aligned.n == 2


def test_the_chat_auditor_asks_in_both_orders_and_masks_what_it_cannot_read() -> None:
    def answer(messages: Sequence[Message], seed: int) -> str:
        text = messages[-1].content
        if "Message A" not in text:
            return "[[no]]" if "Trams" in text else "no idea" if "odd" in text else "It fits. [[Yes]]"
        first = text[text.index("Message A") : text.index("Message B")]
        return "[[A]]" if "always first" in text or "Bees!" in first else "[[B]]"

    places = [_place("Bees!"), _place("Trams", user="v"), _place("odd", user="w"), _place("always first", user="x")]
    auditor = partial(by_chat, model=ScriptedChat(answer), how=Asking(attempts=1))
    compared = compare_places(places, auditor)
    assert [(c.aligned, c.recorded) for c in compared] == [(1.0, None), (0.0, None), (None, None), (1.0, None)]
    assert compared[0].better == "win" and compared[3].better == "tie"
    found = imitation(compared, "judge")
    assert found.masked == 1 and found.aligned.value == pytest.approx(2 / 3) and math.isnan(found.recorded.value)


def test_simulated_users_answer_the_recorded_reply_to_the_recorded_history() -> None:
    model = ScriptedChat(lambda messages, seed: "Well now." if "second" in messages[-1].content else "")
    turns = (Turn("first?", preferred="first!"), Turn("second?", preferred="second!"), Turn("third?"))
    dialogue, count = Dialogue("d", "u", PEOPLE[0], turns), list[int]()
    found = places_of([dialogue], lambda d: SimulatedUser(d.id, d.persona, model, how=Asking(attempts=1)), count.append)
    assert [p.simulated for p in found] == [None, "Well now."] and count == [1, 1]
    assert [p.recorded for p in found] == ["second?", "third?"]
    assert found[1].history == (*dialogue.history(1), Message("assistant", "second!"))

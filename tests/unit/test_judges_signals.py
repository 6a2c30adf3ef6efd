"""The signals judge: its numbers by hand, the sign of a number that decides, and that it knows no person."""

from __future__ import annotations

import math

import pytest
import torch

from pamdp.errors import DataError
from pamdp.judges.signals import DEPTH, NUMBERS, Signals, SignalsScorer, text_numbers, train_signals
from pamdp.models.adapters import add_adapter
from pamdp.models.backbone import Backbone
from pamdp.prompts.render import load
from pamdp.types import History, Message, Persona
from tests.tools.chats import LONE, NURSE
from tests.tools.read_states import FOOD, of_two_kinds, read_state

REPLIES = ["Soup, then tea.", "How about a very long breakfast?", "ok"]

# ---- numbers of texts


def _numbers(message: str, reply: str) -> dict[str, float]:
    return dict(zip(NUMBERS[:-1], text_numbers(message, reply), strict=True))


NOTHING = dict.fromkeys(NUMBERS[:-1], 0.0)


@pytest.mark.parametrize(
    ("message", "reply", "expected"),
    [
        # Three words, "i do" is no self, and it is a capital as the user's.
        (
            "Do you like tea?", "Yes, I do.",
            {"words": math.log(3), "short": 1, "ends whole": 1, "exclaims as the user": 1, "lower case as the user": 1},
        ),
        # goats-eat twice among seven pairs; four of them are the message's; of goat, eat, bread and honey three are.
        (
            "my goats eat bread", "goats eat bread! my goats eat 3 honey",
            {
                "words": math.log(8), "digits": 1, "repeats itself": 1 / 7, "takes up": 3 / 4, "echoes": 4 / 8,
                "lower case as the user": 1, "speaks of itself": 1 / 8,
            },
        ),
        # A small first letter after a message with a capital: a stray start. I'm, we.
        (
            "Really?!", "and I'm sure we can! What's yours?",
            {
                "words": math.log(7), "ends whole": 1, "stray start": 1, "asks": 1, "exclaims as the user": 1,
                "speaks of itself": 2 / 7,
            },
        ),
        # A mark in front is stray whatever the user does; "I am" and "mine" are two of six words.
        (
            "so?", ", I am off, mine Tom and",
            {"words": math.log(6), "stray start": 1, "exclaims as the user": 1, "speaks of itself": 2 / 6},
        ),
        # Quotes and brackets are no stray start, and the end inside of them is one.
        (
            "Tea!", '"Tea (green) it is."',
            {"words": math.log(4), "short": 1, "ends whole": 1, "takes up": 1 / 2, "lower case as the user": 1},
        ),
    ],
)  # fmt: skip
def test_numbers_by_hand(message: str, reply: str, expected: dict[str, float]) -> None:
    assert _numbers(message, reply) == pytest.approx({**NOTHING, **expected}, abs=1e-12)


def test_an_empty_reply_has_numbers() -> None:
    found = _numbers("Tea?", "")
    assert all(map(math.isfinite, found.values())) and (found["words"], found["short"], found["ends whole"]) == (
        0,
        1,
        0,
    )


@pytest.mark.parametrize(("n", "short", "long"), [(4, 1, 0), (5, 0, 0), (35, 0, 0), (36, 0, 1)])
def test_where_a_reply_is_short_and_long(n: int, short: int, long: int) -> None:
    found = _numbers("Tea?", " ".join(["la"] * n))
    assert (found["short"], found["long"], found["words"]) == (short, long, pytest.approx(math.log(n)))
    assert found["repeats itself"] == pytest.approx(1 - 1 / (n - 1))


@pytest.mark.parametrize("reply", ["Yes.", ""])
def test_who_says_one_word_does_not_repeat_it(reply: str) -> None:
    assert _numbers("Tea?", reply)["repeats itself"] == 0


# ---- numbers of the model


def _mean_log_prob(backbone: Backbone, history: History, reply: str) -> float:
    """Of a reply's tokens, its end included: one plain pass over everything."""
    before, own = backbone.chat.history(history, load("assistant")).ids, backbone.chat.reply(reply)
    with torch.no_grad():
        logits = backbone.model(torch.tensor([[*before, *own]])).logits[0]
    found = logits.log_softmax(-1)[len(before) - 1 : -1].gather(1, torch.tensor(own)[:, None])
    assert len(found) == len(own)
    return float(found.mean())


def test_features_are_those_of_a_plain_pass(tiny_backbone: Backbone) -> None:
    found = SignalsScorer(tiny_backbone, Signals(tiny_backbone.d)).features(NURSE, REPLIES)
    n, layer = len(NUMBERS), tiny_backbone.layer_at(DEPTH)
    assert found.shape == (3, n + tiny_backbone.d) and layer == 1
    before = tiny_backbone.chat.history(NURSE, load("assistant")).ids
    for features, reply in zip(found, REPLIES, strict=True):
        assert features[: n - 1].tolist() == pytest.approx(text_numbers(NURSE[-1].content, reply), abs=1e-6)
        assert float(features[n - 1]) == pytest.approx(_mean_log_prob(tiny_backbone, NURSE, reply), abs=1e-4)
        ids = torch.tensor([[*before, *tiny_backbone.chat.reply(reply)]])
        with torch.no_grad():
            states = tiny_backbone.model(ids, output_hidden_states=True).hidden_states[layer][0]
        torch.testing.assert_close(features[n:], states[len(before) :].mean(0), atol=1e-5, rtol=1e-4)


def test_five_messages_are_read(tiny_backbone: Backbone) -> None:
    scorer = SignalsScorer(tiny_backbone, Signals(tiny_backbone.d))
    assert scorer.messages == len(NURSE) == 5
    before = scorer.features(NURSE, REPLIES)
    for which in range(5):
        talk = [Message(m.role, "Else.") if i == which else m for i, m in enumerate(NURSE)]
        assert (scorer.features(tuple(talk), REPLIES) - before)[:, len(NUMBERS) - 1 :].any(1).all()
    longer = (*NURSE[:2], *NURSE)
    assert torch.equal(scorer.features(longer, REPLIES), before)


def test_the_clone_is_asked_whatever_adapter_is_in_use(tiny_backbone: Backbone) -> None:
    bare = SignalsScorer(tiny_backbone, Signals(tiny_backbone.d)).features(NURSE, REPLIES)
    add_adapter(tiny_backbone, "clone", 2)
    add_adapter(tiny_backbone, "mine", 2)
    for name, weight in tiny_backbone.model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.3)
    n = len(NUMBERS)
    found = SignalsScorer(tiny_backbone, Signals(tiny_backbone.d), "clone").features(NURSE, REPLIES)
    torch.testing.assert_close(found[:, : n - 1], bare[:, : n - 1])
    with tiny_backbone.adapter("clone"):
        expected = [_mean_log_prob(tiny_backbone, NURSE, reply) for reply in REPLIES]
    assert found[:, n - 1].tolist() == pytest.approx(expected, abs=1e-4)
    assert float((found - bare)[:, n - 1 :].abs().amax(1).min()) > 1e-3
    with tiny_backbone.adapter("mine"):
        again = SignalsScorer(tiny_backbone, Signals(tiny_backbone.d), "clone").features(NURSE, REPLIES)
        plain = SignalsScorer(tiny_backbone, Signals(tiny_backbone.d)).features(NURSE, REPLIES)
    torch.testing.assert_close(again, found)
    torch.testing.assert_close(plain, bare)


# ---- scores


def test_a_score_is_the_weighed_sum_of_numbers_in_their_units(tiny_backbone: Backbone) -> None:
    signals = Signals(tiny_backbone.d)
    signals.whiten.mean[: len(NUMBERS)] = 1.0
    signals.whiten.scale.fill_(2.0)
    signals.weight[NUMBERS.index("digits")] = 3.0
    signals.weight[NUMBERS.index("asks")] = -1.0
    found = SignalsScorer(tiny_backbone, signals).score(Persona(), LONE, ["4 cups.", "4 cups?", "Cups?", "Cups."])
    # (3·digits − asks − (3 − 1)·1) / 2
    assert found == pytest.approx([0.5, 0.0, -1.5, -1.0])


DECIDE = {
    "digits": ("Take 2 {food}.", "Take two {food}."),
    "asks": ("Is it {food}?", "Is it {food}."),
    "ends whole": ("It is {food} now.", "It is {food} now"),
    "exclaims as the user": ("It is {food} now.", "It is {food} now!"),
}


@pytest.mark.parametrize("name", DECIDE)
def test_the_sign_of_a_number_that_decides_is_found(name: str, tiny_backbone: Backbone) -> None:
    more, less = DECIDE[name]
    seen = list[int]()
    liked = train_signals(tiny_backbone, of_two_kinds(more, less), progress=seen.append)
    disliked = train_signals(tiny_backbone, of_two_kinds(less, more), progress=seen.append)
    assert sum(seen) == 2 * len(FOOD)
    at = NUMBERS.index(name)
    assert liked.signals.weight[at] > 0.3 and disliked.signals.weight[at] < -0.3
    # What is the same in both replies of every pair explains nothing; likelihoods and states always differ.
    idle = [i for i in range(len(NUMBERS) - 1) if i != at]
    assert not liked.signals.weight[idle].any()
    new = [more.format(food="figs"), less.format(food="figs")]
    for scorer, sign in ((liked, 1), (disliked, -1)):
        a, b = scorer.score(Persona(), LONE, new)
        assert sign * (a - b) > 1


def test_weights_are_those_of_the_regression_in_units_of_spread(tiny_backbone: Backbone) -> None:
    """At the best weights the gradient is zero: mean (σ(Δ) − share)·x = −2·decay·w."""
    texts, decay = ["Take 2 figs.", "Well, how about a few figs?", "no"], 0.01
    said = [{"A-B": "A", "B-C": "B", "A-C": "tie"}, {"A-B": "B", "A-C": "A"}, {"A-B": "A"}]
    states = [read_state(str(i), texts, said, messages=(f"Hello {i}?",)) for i in range(2)]
    other = 0.2
    scorer = train_signals(tiny_backbone, states, decay=decay, decay_states=other, progress=lambda _: None)
    total, spread = torch.zeros(len(NUMBERS) + tiny_backbone.d), scorer.signals.whiten.scale
    for state in states:
        score, numbers = scorer.score(Persona(), state.history, texts), scorer.features(state.history, texts)
        for a, b, share in ((0, 1, 2 / 3), (1, 2, 1.0), (0, 2, 0.75)):
            chance = 1 / (1 + math.exp(score[b] - score[a]))
            total += (chance - share) * (numbers[a] - numbers[b]) / spread / 6
    decays = torch.tensor([decay] * len(NUMBERS) + [other] * tiny_backbone.d)
    torch.testing.assert_close(total, -2 * decays * scorer.signals.weight, atol=2e-5, rtol=0)
    assert float((other * scorer.signals.weight[len(NUMBERS) :]).abs().max()) > 1e-3
    assert float((decay * scorer.signals.weight).abs().max()) > 1e-3
    torch.testing.assert_close(spread[0], torch.cat([scorer.features(s.history, texts) for s in states])[:, 0].std())


def test_readers_who_are_divided_give_no_weight(tiny_backbone: Backbone) -> None:
    texts = ["Take 2 figs.", "Take two figs."]
    divided = [read_state(str(i), texts, [{"A-B": "A"}, {"A-B": "B"}, {"A-B": "tie"}]) for i in range(3)]
    found = train_signals(tiny_backbone, divided, progress=lambda _: None)
    assert float(found.signals.weight.abs().max()) < 1e-4


def test_the_score_is_the_same_for_every_person(tiny_backbone: Backbone) -> None:
    scorer = train_signals(tiny_backbone, of_two_kinds(*DECIDE["digits"]), progress=lambda _: None)
    nobody = scorer.score(Persona(), NURSE, REPLIES)
    assert scorer.score(Persona("A nurse who works nights.", "Curt."), NURSE, REPLIES) == nobody
    assert len(set(nobody)) == 3


def test_nothing_of_the_backbone_learns(tiny_backbone: Backbone) -> None:
    before = {name: weight.clone() for name, weight in tiny_backbone.model.named_parameters()}
    scorer = train_signals(tiny_backbone, of_two_kinds(*DECIDE["digits"]), progress=lambda _: None)
    after = dict(tiny_backbone.model.named_parameters())
    assert after.keys() == before.keys() and all(torch.equal(after[name], w) for name, w in before.items())
    assert not any(w.requires_grad for w in [*after.values(), scorer.signals.weight])


def test_without_a_comparison_nothing_is_learned(tiny_backbone: Backbone) -> None:
    graded = [read_state("1", ["a", "b"], grades=[{"A": {"form": 2}}])]
    for states in (graded, []):
        with pytest.raises(DataError, match="no reader compared two replies"):
            train_signals(tiny_backbone, states, progress=lambda _: None)

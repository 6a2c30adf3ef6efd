"""The reward model: its loss by hand, and what training on readings does to it and leaves as it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from pamdp.data.readings import Grades, ReadState
from pamdp.errors import DataError
from pamdp.judges.reward_model import ADAPTER, Lesson, RewardHead, RewardModel, reading_loss, train_reward_model
from pamdp.models.adapters import adapter_tensors, add_adapter
from pamdp.models.backbone import Backbone
from pamdp.types import History, Message, Persona, PreferencePair
from tests.tools.chats import LONE, NURSE, chat
from tests.tools.read_states import FOOD, of_two_kinds, read_state
from tests.tools.tiny import make_tiny_backbone

NAN, LN3 = math.nan, math.log(3)
PERSON = Persona("A nurse who works nights.", "Curt.")
WARM, DIGITS = "Yes, with {food} please.", "4 9 {food} 33"
NEW = (WARM.format(food="jam"), DIGITS.format(food="jam"))

# ---- the loss


def _lesson(pairs: list[tuple[int, int, float]], grades: list[list[float]]) -> Lesson:
    texts = [f"reply {i}" for i in range(len(grades))]
    a, b, share = zip(*pairs, strict=True)
    return Lesson(
        PERSON, LONE, texts, torch.tensor(a), torch.tensor(b), torch.tensor(share, dtype=torch.float64),
        torch.tensor(grades, dtype=torch.float64),
    )  # fmt: skip


def _loss(out: list[list[float]], lesson: Lesson, weight: float = 0.5) -> float:
    return float(reading_loss(torch.tensor(out, dtype=torch.float64), lesson, weight))


UNGRADED = [[NAN, NAN]] * 3
OUT = [[LN3, 7.0, -7.0], [0.0, 5.0, 5.0], [0.0, 0.0, 3.0]]
"""σ(ln 3) = 3/4."""


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(0, 1, 1.0)], math.log(4 / 3)),
        ([(0, 1, 0.0)], math.log(4)),
        ([(1, 0, 1.0)], math.log(4)),
        ([(1, 2, 0.5)], math.log(2)),  # a tie of equals
        ([(0, 1, 0.5)], (math.log(4 / 3) + math.log(4)) / 2),  # a tie of unequals
        ([(0, 1, 2 / 3)], (2 * math.log(4 / 3) + math.log(4)) / 3),  # two readers of three
        ([(0, 1, 1.0), (2, 0, 1.0), (1, 2, 0.5)], math.log(4 / 3 * 4 * 2) / 3),
    ],
)
def test_loss_of_pairs_alone_by_hand(pairs: list[tuple[int, int, float]], expected: float) -> None:
    for weight in (0.0, 0.5, 100.0):
        assert _loss(OUT, _lesson(pairs, UNGRADED), weight) == pytest.approx(expected, rel=1e-12)


def test_grades_that_were_given_add_their_mean_squared_error() -> None:
    out = [[LN3, 1.5, 9.0], [0.0, 3.0, 0.5], [0.0, 9.0, 9.0]]
    lesson = _lesson([(0, 1, 1.0)], [[2.0, NAN], [1.0, 0.0], [NAN, NAN]])
    # (0.5² + 2² + 0.5²) / 3 = 1.5
    for weight in (0.0, 0.5, 2.0):
        assert _loss(out, lesson, weight) == pytest.approx(math.log(4 / 3) + 1.5 * weight, rel=1e-12)


def test_grades_as_they_were_given_add_nothing() -> None:
    out = [[0.0, 2.0, 1.0], [0.0, 0.0, 0.0]]
    assert _loss(out, _lesson([(0, 1, 0.5)], [[2.0, 1.0], [0.0, 0.0]])) == pytest.approx(math.log(2), rel=1e-12)


def test_gradients_by_hand() -> None:
    out = torch.tensor([[LN3, 1.5, 9.0], [0.0, 9.0, 0.5]], dtype=torch.float64, requires_grad=True)
    reading_loss(out, _lesson([(0, 1, 1.0)], [[2.0, NAN], [NAN, 0.0]]), 0.5).backward()  # type: ignore[no-untyped-call]
    # of the pair σ(ln 3) − 1; of a grade 0.5 · 2 · error / 2; nothing where nobody gave one
    expected = torch.tensor([[-0.25, -0.25, 0.0], [0.25, 0.0, 0.25]], dtype=torch.float64)
    torch.testing.assert_close(out.grad, expected)


def test_the_odds_of_the_readers_are_the_best_odds() -> None:
    score = torch.tensor([[math.log(2), 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    reading_loss(score, _lesson([(0, 1, 2 / 3)], UNGRADED[:2]), 0.5).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(score.grad, torch.zeros(2, 3, dtype=torch.float64))


# ---- training

GRADES: tuple[Grades, ...] = ({"L": {"sense": 2, "form": 0}, "O": {"sense": 0, "form": 2}},)


def _train(
    states: list[ReadState],
    pairs: Sequence[PreferencePair] = (),
    backbone: Backbone | None = None,
    **options: Any,
) -> RewardModel:
    settings = {"first": 1, "last": 2, "rank": 2, "epochs": 12, "lr": 3e-3, **options}
    return train_reward_model(backbone or make_tiny_backbone(), states, pairs, **settings)


@pytest.fixture(scope="module")
def trained() -> RewardModel:
    """Who likes words, and dislikes digits; the words make sense, and the digits are well formed."""
    return _train(of_two_kinds(WARM, DIGITS, GRADES), epochs=25)


def _margin(model: RewardModel, persona: Persona = PERSON, history: History = LONE) -> float:
    a, b = model.score(persona, history, NEW)
    return a - b


def test_one_kind_of_reply_is_learned_to_be_better(trained: RewardModel) -> None:
    other = _train(of_two_kinds(DIGITS, WARM), epochs=25)
    for persona in (PERSON, Persona()):
        for history in (LONE, NURSE):
            assert _margin(trained, persona, history) > 0.1 and _margin(other, persona, history) < -0.1


def test_grades_are_learned_by_their_question(trained: RewardModel) -> None:
    row = trained.row(PERSON, LONE, NEW)
    with torch.no_grad():
        (_, sense, form), (_, other_sense, other_form) = trained.head(trained.features(row, trained.lower(row)))
    assert sense > other_sense + 0.1 and form < other_form - 0.1


def test_untrained_it_prefers_nothing() -> None:
    model = _train(of_two_kinds(WARM, DIGITS), epochs=0)
    assert model.score(PERSON, LONE, NEW) == [0.0, 0.0]


def test_every_state_is_read_once_and_then_in_every_epoch() -> None:
    states = [*of_two_kinds(WARM, DIGITS)[:3], read_state("graded", ["a", "b"], grades=[{"A": {"form": 1}}])]
    seen = list[int]()
    _train(states, epochs=2, progress=seen.append)
    assert sum(seen) == 3 * (2 + 1)


def _written(preferred: str, rejected: str) -> list[PreferencePair]:
    return [
        PreferencePair(food, PERSON, LONE, preferred.format(food=food), rejected.format(food=food)) for food in FOOD
    ]


def test_written_pairs_are_learned_beside() -> None:
    tied = [read_state(food, ["Yes.", "No."], [{"A-B": "tie"}]) for food in FOOD[:2]]
    liked, disliked = (_train(tied, _written(*kinds), epochs=25) for kinds in ((WARM, DIGITS), (DIGITS, WARM)))
    assert _margin(liked) > 0.1 and _margin(disliked) < -0.1
    seen = list[int]()
    _train(tied, _written(WARM, DIGITS), epochs=2, progress=seen.append)
    assert sum(seen) == (2 + len(FOOD)) * (2 + 1)


def test_the_same_seed_gives_the_same_model() -> None:
    one, two, other = (_train(of_two_kinds(WARM, DIGITS), epochs=2, seed=seed) for seed in (0, 0, 1))
    assert one.score(PERSON, LONE, NEW) == two.score(PERSON, LONE, NEW) != other.score(PERSON, LONE, NEW)


def test_the_backbone_is_left_frozen_without_an_active_adapter(tiny_backbone: Backbone) -> None:
    before = {name: weight.clone() for name, weight in tiny_backbone.model.named_parameters()}
    bare = tiny_backbone.model(torch.tensor([[5, 6, 7]])).logits
    model = _train(of_two_kinds(WARM, DIGITS), backbone=tiny_backbone, epochs=1)
    after = dict(tiny_backbone.model.named_parameters())
    assert tiny_backbone.active is None
    assert not any(weight.requires_grad for weight in [*after.values(), *model.head.parameters()])
    assert all(any(torch.equal(weight, own) for own in after.values()) for weight in before.values())
    torch.testing.assert_close(tiny_backbone.model(torch.tensor([[5, 6, 7]])).logits, bare)
    model.score(PERSON, LONE, NEW)
    assert tiny_backbone.active is None and not any(weight.requires_grad for weight in after.values())


def _adapted(backbone: Backbone, name: str = ADAPTER) -> set[int]:
    """Layers that carry an adapter."""
    return {int(key.split("layers.")[1].split(".")[0]) for key in adapter_tensors(backbone, name)}


@pytest.mark.parametrize(("first", "last", "layers"), [(0, 1, {0}), (1, 2, {1}), (0, 2, {0, 1})])
def test_the_adapter_is_on_the_layers_from_first_to_last_and_learns_there(
    first: int, last: int, layers: set[int], tiny_backbone: Backbone
) -> None:
    model = _train(of_two_kinds(WARM, DIGITS), backbone=tiny_backbone, first=first, last=last, epochs=1)
    assert (model.first, model.last) == (first, last) and _adapted(tiny_backbone) == layers
    learned = [value for key, value in adapter_tensors(tiny_backbone, ADAPTER).items() if "lora_B" in key]
    assert len(learned) == 7 * len(layers) and all(value.any() for value in learned)


def test_other_adapters_stay_as_they_are(tiny_backbone: Backbone) -> None:
    add_adapter(tiny_backbone, "policy", 2)
    before = adapter_tensors(tiny_backbone, "policy")
    _train(of_two_kinds(WARM, DIGITS), backbone=tiny_backbone, epochs=1)
    after = adapter_tensors(tiny_backbone, "policy")
    assert all(torch.equal(after[key], value) for key, value in before.items()) and _adapted(tiny_backbone) == {1}


def test_it_is_trained_anew_where_it_was_trained_before(tiny_backbone: Backbone) -> None:
    _train(of_two_kinds(DIGITS, WARM), backbone=tiny_backbone, rank=4, epochs=2)
    again = _train(of_two_kinds(WARM, DIGITS), backbone=tiny_backbone, epochs=2)
    assert again.score(PERSON, LONE, NEW) == _train(of_two_kinds(WARM, DIGITS), epochs=2).score(PERSON, LONE, NEW)


def test_nobody_compared_anything(tiny_backbone: Backbone) -> None:
    graded = [read_state(food, [food, "no"], grades=[{"A": {"sense": 2, "form": 2}}]) for food in FOOD]
    for states in (graded, []):
        with pytest.raises(DataError, match="no reader compared two replies") as caught:
            _train(states, _written(WARM, DIGITS), tiny_backbone)
        assert "\n" not in str(caught.value)
    assert ADAPTER not in getattr(tiny_backbone.model, "peft_config", {})


def test_ties_alone_teach_nothing() -> None:
    tied = [read_state(food, [food, "4 9"], [{"A-B": "tie"}, {"A-B": "tie"}]) for food in FOOD]
    assert _train(tied, epochs=3).score(PERSON, LONE, NEW) == [0.0, 0.0]


def test_grades_that_some_replies_lack_spoil_nothing() -> None:
    texts, grades = ["Yes.", "4 9", "No."], ({"A": {"form": 2}}, {"B": {"sense": 0}})
    states = [read_state(food, texts, [{"A-B": "A"}], grades, (f"{food}?",)) for food in FOOD]
    yes, digits, no = _train(states).score(PERSON, LONE, texts)
    assert yes > digits + 0.02 and math.isfinite(no)


# ---- scores


@pytest.fixture
def lively(tiny_backbone: Backbone) -> RewardModel:
    """A random model whose adapter and read-out do something."""
    add_adapter(tiny_backbone, ADAPTER, 2, 1)
    generator = torch.Generator().manual_seed(3)
    for name, weight in tiny_backbone.model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.3, generator=generator)
    head = RewardHead(2 * tiny_backbone.d)
    head.readout.weight.data.normal_(generator=generator)
    return RewardModel(tiny_backbone, head.requires_grad_(False), 1, 2)


def test_a_score_is_read_of_the_mean_and_the_last_state_under_the_adapter(lively: RewardModel) -> None:
    chats, reply = lively.backbone.chat, NEW[0]
    system = "You are chatting with somebody.\nReply the way this person would like."
    ids = [*chats.history(LONE, system).ids, *(own := chats.reply(reply))]
    with torch.no_grad(), lively.backbone.adapter(ADAPTER), lively.backbone.reading(1) as below:
        # What follows the first layer; the second is the last, and is read before the final norm.
        caught = list[Tensor]()
        with lively.backbone.trunk.get_submodule("layers.1").register_forward_hook(
            lambda *given: caught.append(given[2][0] if isinstance(given[2], tuple) else given[2])
        ):
            lively.backbone.model(torch.tensor([ids]))
    states = caught[0].reshape(-1, lively.backbone.d)[-len(own) :]
    features = torch.cat([states.mean(0), states[-1]])
    weight, bias = lively.head.readout.weight[0], lively.head.readout.bias[0]
    expected = float(3 * features @ weight / math.sqrt(len(features)) + bias)
    assert lively.score(Persona(), LONE, [reply]) == pytest.approx([expected], abs=1e-4) and len(below) == 1


def test_the_adapter_matters_above_first_only(lively: RewardModel) -> None:
    row = lively.row(PERSON, LONE, NEW)
    before, lower = lively.score(PERSON, LONE, NEW), lively.lower(row)
    add_adapter(lively.backbone, ADAPTER, 2, 1)  # zero again
    assert lively.score(PERSON, LONE, NEW) != pytest.approx(before, abs=1e-2)
    torch.testing.assert_close(lively.lower(row), lower)


TALK = chat("One?", "Two.", "Three?", "Four.", "Five?", "Six.", "Seven?")


def test_the_last_five_messages_are_read(lively: RewardModel) -> None:
    own = lively.score(PERSON, TALK, NEW)

    def changed(which: int) -> list[float]:
        talk = [Message(m.role, "Else, and longer.") if i == which else m for i, m in enumerate(TALK)]
        return lively.score(PERSON, tuple(talk), NEW)

    assert lively.messages == 5
    assert changed(0) == changed(1) == lively.score(PERSON, TALK[2:], NEW) == own
    for which in range(2, 7):
        assert changed(which) != pytest.approx(own, abs=1e-3)


def test_the_person_is_read(lively: RewardModel) -> None:
    scores = [lively.score(who, LONE, NEW) for who in (Persona(), PERSON, Persona("A baker.", "Curt."))]
    assert all(a != pytest.approx(b, abs=1e-3) for a, b in zip(scores, scores[1:] + scores[:1], strict=True))
    assert lively.score(Persona(" ", ""), LONE, NEW) == scores[0]


@pytest.mark.parametrize(
    ("persona", "says"), [(PERSON, "this person: A nurse who works nights. Curt."), (Persona(), "")]
)
def test_what_is_read_of_a_person(lively: RewardModel, persona: Persona, says: str) -> None:
    text = lively.backbone.tokenizer.decode(lively.row(persona, LONE, NEW).ids)
    assert f"You are chatting with {says or 'somebody.'}\nReply the way this person would like." in text


def test_a_score_does_not_depend_on_the_other_replies(lively: RewardModel) -> None:
    replies = [*NEW, "A long reply about soup, bread and what the night brings. 🙂"]
    together = lively.score(PERSON, NURSE, replies)
    assert [lively.score(PERSON, NURSE, [x])[0] for x in replies] == pytest.approx(together, abs=1e-4)
    assert lively.score(PERSON, NURSE, replies[::-1]) == pytest.approx(together[::-1], abs=1e-4)


@pytest.mark.parametrize("within", [lambda b: b.adapter(ADAPTER), lambda b: b.adapter("other")])
def test_a_score_does_not_depend_on_the_adapter_in_use(lively: RewardModel, within: Callable[..., Any]) -> None:
    own = lively.score(PERSON, LONE, NEW)
    add_adapter(lively.backbone, "other", 2)
    for name, weight in lively.backbone.model.named_parameters():
        if ".other." in name:
            weight.data.fill_(0.1)
    with within(lively.backbone):
        before = lively.backbone.active
        assert lively.score(PERSON, LONE, NEW) == own
        assert lively.backbone.active == before

"""From what users said to transitions: rewards by hand, the chats they stand in, and what cannot be learned from."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pamdp.config import CloneConfig, Config, ModelConfig, RLConfig
from pamdp.data import load_dialogues, load_pairs
from pamdp.data.load import load_rated
from pamdp.data.rated import RatedDialogue, RatedReply
from pamdp.errors import DataError, RunError, StoreError
from pamdp.fingerprint import Fingerprint
from pamdp.models.adapters import adapter_tensors, load_adapter
from pamdp.models.critics import DualCritic
from pamdp.models.policy import Policy
from pamdp.rl.returns import max_value
from pamdp.runs import Run
from pamdp.serve.erasing import know_version
from pamdp.serve.export import FILE, export, rewards
from pamdp.serve.profiles import Change, Profiles
from pamdp.serve.store import Feedback, Store
from pamdp.serve.value import value_of
from pamdp.train.action_space import action_space
from pamdp.train.factory import load_policy, new_policy, save_policy
from pamdp.train.feedback import feedback_rollout, learn, usable
from pamdp.transitions import to_batch
from pamdp.types import Dialogue, Persona, Turn
from tests.tools.spies import spy_on_reading
from tests.tools.storing import served
from tests.tools.tiny import make_tiny_backbone

CANARY = "Marzipan"
PRINT = Fingerprint(data="0", model="tiny", revision="0")
CONFIG = Config(
    model=ModelConfig(d_a=2, depth=0.5), clone=CloneConfig(backbone="frozen", steer=0),
    rl=RLConfig(epochs=4, batch_size=8, actor_every=1, lr_actor=1e-2, max_reply=6, form_states=2, clip=0.2),
)  # fmt: skip


@pytest.fixture
def policy() -> Policy:
    policy = new_policy(make_tiny_backbone(), CONFIG)
    policy.trained_planner.actor.sigma.fill_(0.5)
    return policy


@pytest.fixture
def store(tmp_path: Path, policy: Policy) -> Store:
    """A chat of two turns, the first with three replies, and one of another user."""
    store = Store(tmp_path / "store.db")
    know_version(store, "v1", "runs/rl", action_space(policy))
    store.served(served("a1", "shop:ann", "Tea?", text="Green."))
    store.served(served("a2", "shop:ann", "Tea?", text="Black.", sigma=0.25))
    store.served(served("a3", "shop:ann", "Tea?", text="None.", sigma=0.0))
    store.served(served("a4", "shop:ann", "Tea?", "Black.", "I like black tea.", text="So you do.", created=1001.0))
    store.served(served("b1", "shop:bob", "Milk?", text="Never.", version="elsewhere"))
    for said in (
        Feedback("", "shop:ann", "a2", "thumb", -1), Feedback("", "shop:ann", "a2", "thumb", 1),
        Feedback("", "shop:ann", "a2", "preferred", over="a1"), Feedback("", "shop:ann", "a3", "thumb", -1),
        Feedback("", "shop:ann", "a4", "correction", text="Black it is."),
        Feedback("", "shop:bob", "b1", "thumb", -1),
    ):  # fmt: skip
        store.rate(said)
    Profiles(store).edit("shop:ann", [Change(f"likes {CANARY}")], "shop")
    return store


def _rated(store: Store, out: Path) -> tuple[RatedDialogue, ...]:
    export(store, out)
    return load_rated(out)


def test_rewards_by_hand() -> None:
    def said(kind: str, reply: str, **more: object) -> Feedback:
        return Feedback("", "u", reply, kind, **more)  # type: ignore[arg-type]

    found = rewards([
        said("thumb", "a", thumb=1), said("thumb", "a", thumb=-1), said("preferred", "b", over="a"),
        said("preferred", "b", over="c"), said("preferred", "c", over="d"), said("correction", "d", text="x"),
    ])  # fmt: skip
    assert {name: [value for value, _ in own.values()] for name, own in found.items()} == {
        "a": [-1, -1], "b": [1, 1], "c": [-1, 1], "d": [-1, -1],
    }  # fmt: skip


def test_the_export_is_data_of_the_project(store: Store, tmp_path: Path) -> None:
    ann, bob = _rated(store, tmp_path / "out")
    assert [(r.t, r.text, r.reward, r.by, r.sigma) for r in ann.replies] == [
        (0, "Green.", -1, ("passed over",), 0.5), (0, "Black.", 1, ("thumb", "preferred"), 0.25),
        (0, "None.", -1, ("thumb",), 0), (1, "So you do.", -1, ("corrected",), 0.5),
        (1, "Black it is.", 1, ("correction",), 0),
    ]  # fmt: skip
    assert ann.replies[1] == RatedReply(
        0, "Black.", 1.0, ("thumb", "preferred"), "a2", (0.5, 1.0), (0.0, 1.0), 0.25, "v1", ann.replies[1].space, 1000.0
    )
    assert ann.replies[1].space and not bob.replies[0].space
    # read as any other data it is dialogues, with the best and the worst reply of each turn
    dialogues = load_dialogues(tmp_path / "out").dialogues
    assert dialogues == (ann.dialogue, bob.dialogue)
    assert [(t.user, t.preferred, t.rejected, t.chosen) for t in ann.dialogue.turns] == [
        ("Tea?", "Black.", "Green.", "preferred"), ("I like black tea.", "Black it is.", "So you do.", "preferred"),
    ]  # fmt: skip
    assert ann.dialogue.history(1) == served("x", "u", "Tea?", "Black.", "I like black tea.").history
    text = (tmp_path / "out" / FILE).read_text()
    assert "shop:" not in text and ann.dialogue.user_id == store.alias("shop:ann")
    export(store, tmp_path / "plain", plain_ids=True)
    assert [d.user_id for d in load_dialogues(tmp_path / "plain")] == ["shop:ann", "shop:bob"]


def test_the_path_of_a_chat_is_what_was_said(tmp_path: Path) -> None:
    """Went on with the reply that another was preferred over, and with one that nobody rated."""
    store = Store(tmp_path / "s.db")
    for id, text in (("r1", "One."), ("r2", "Two."), ("r3", "Three.")):
        store.served(served(id, "u", "Hi", text=text))
    store.served(served("r4", "u", "Hi", "One.", "And?", created=2000.0))
    store.served(served("r5", "u", "Hi", "Three.", "And?", created=3000.0))
    store.rate(Feedback("", "u", "r2", "preferred", over="r1"))
    store.rate(Feedback("", "u", "r5", "thumb", 1))
    first, second = _rated(store, tmp_path / "out")
    assert first.dialogue.turns[0] == Turn("Hi", "Two.", "One.", "rejected")
    assert second.dialogue.turns[0] == Turn("Hi", "Three.") and len(second.replies) == 1
    assert first.dialogue.history(1)[1].content == "One." and second.dialogue.history(1)[1].content == "Three."


def test_preferences_and_corrections_are_trls_pairs(store: Store, tmp_path: Path) -> None:
    assert export(store, tmp_path / "trl", "trl") == 2
    lines = [json.loads(line) for line in (tmp_path / "trl" / FILE).read_text().splitlines()]
    assert [(line["replies"], line["versions"], line["kind"]) for line in lines] == [
        (["a2", "a1"], ["v1", "v1"], "preferred"), (["a4"], ["v1"], "correction"),
    ]  # fmt: skip
    assert lines[0]["chosen"] == [{"role": "assistant", "content": "Black."}] and "shop:" not in str(lines)
    assert [(p.preferred, p.rejected) for p in load_pairs(tmp_path / "trl")] == [
        ("Black.", "Green."), ("Black it is.", "So you do."),
    ]  # fmt: skip


def test_an_export_of_nothing_or_over_something_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.db")
    with pytest.raises(StoreError, match="no feedback"):
        export(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(RunError, match="holds"):
        export(store, tmp_path)


def test_transitions_by_hand(store: Store, policy: Policy, tmp_path: Path) -> None:
    found = usable(policy, _rated(store, tmp_path / "out"))
    assert sorted(found.counts.values()) == [1, 2, 3]
    assert found.counts["left out, since their actions are of another adapter or A2"] == 1
    rollout = feedback_rollout(policy, found.dialogues)
    name = found.dialogues[0].id
    assert [(t.t, t.reply, t.sigma, t.reward, t.next) for t in rollout.transitions] == [
        (0, "Green.", 0.5, -1, (name, 1)), (0, "Black.", 0.25, 1, (name, 1)), (0, "None.", 0, -1, (name, 1)),
        (1, "So you do.", 0.5, -1, None), (1, "Black it is.", 0, 1, None),
    ]  # fmt: skip
    batch = to_batch([rollout])
    assert batch.acts.tolist() == [True, True, False, True, False] and bool(batch.kept.all())
    assert batch.action[1].tolist() == [0.5, 1.0] and batch.mean[1].tolist() == [0.0, 1.0]
    prefix = policy.prefix(found.dialogues[0].dialogue.history(1))
    torch.testing.assert_close(rollout.features_h[name, 1], policy.features(prefix))


def test_the_space_of_actions_is_a2_and_what_it_acts_on(policy: Policy) -> None:
    moved = policy.with_actor(policy.trained_planner.actor)
    torch.nn.init.ones_(moved.trained_planner.actor.a1.weight)
    assert action_space(moved) == action_space(policy)  # A1 may differ: that is what the ratio is for
    assert moved.trained_planner.injector is not None
    torch.nn.init.ones_(moved.trained_planner.injector.a2.bias)
    assert action_space(moved) != action_space(policy)
    assert action_space(replace(policy, system="Be rude.")) != action_space(policy)


def test_a_policy_loaded_twice_acts_in_one_space(tmp_path: Path) -> None:
    lora = CONFIG.model_copy(update={"clone": CloneConfig(steer=0)})
    save_policy(new_policy(make_tiny_backbone(), lora), tmp_path / "policy")
    backbone = make_tiny_backbone()
    one, two = (load_policy(tmp_path / "policy", backbone) for _ in range(2))
    assert one.adapter is not None and two.adapter is not None and one.adapter.name != two.adapter.name
    assert action_space(one) == action_space(two)
    with torch.no_grad():
        weights = adapter_tensors(backbone, two.adapter.name)
        load_adapter(backbone, two.adapter.name, {name: value + 0.1 for name, value in weights.items()})
    assert action_space(one) != action_space(two)


def test_no_profile_reaches_what_the_policy_reads(
    store: Store, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rated = _rated(store, tmp_path / "out")
    assert CANARY in rated[0].dialogue.persona.profile
    read = spy_on_reading(monkeypatch)
    config = CONFIG.model_copy(update={"data": CONFIG.data.model_copy(update={"path": "x"})})
    with Run.create(tmp_path / "rl", config, PRINT) as run:
        learn(policy, rated, config, run)
    decode = policy.backbone.chat.tokenizer.decode
    assert read.policy and not [ids for ids in read.policy if CANARY in decode(list(ids))]
    assert [ids for ids in read.backbone if CANARY in decode(list(ids))]  # the critic's own passes: the spy sees them


def test_an_edited_profile_changes_the_value_to_this_user_alone(policy: Policy) -> None:
    critics = DualCritic(policy.width, policy.width, max_value(1.0, 0.99, 6))
    for critic in (critics.v_h, critics.v_hw):
        torch.nn.init.normal_(critic.head.weight)
    history = served().history
    one, two = (value_of(policy, critics, history, Persona(text)) for text in ("likes tea", f"likes {CANARY}"))
    assert one.v_h == two.v_h and one.v_hw != two.v_hw


def test_nothing_usable_is_one_line_that_says_why(store: Store, policy: Policy, tmp_path: Path) -> None:
    with Run.create(tmp_path / "rl", CONFIG, PRINT) as run, pytest.raises(DataError, match="another adapter or A2"):
        learn(policy, _rated(store, tmp_path / "out")[1:], CONFIG, run)


@pytest.mark.parametrize("change", [{"mean": None}, {"mean": [1.0]}, {"action": []}, {"reward": 2}, {"sigma": -1}])
def test_a_wrong_line_is_told_with_its_place(store: Store, tmp_path: Path, change: dict[str, object]) -> None:
    export(store, tmp_path / "out")
    file = tmp_path / "out" / FILE
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["turns"][0]["rated"][0].update(change)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=r"feedback\.jsonl:1"):
        load_rated(tmp_path / "out")


def test_other_data_are_not_rated(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"turns": [{"user": "Hi", "preferred": "Yes."}]}) + "\n")
    assert load_rated(tmp_path / "x.jsonl") == ()
    empty = RatedDialogue(Dialogue("d", "u", Persona(), (Turn("Hi"),)), ())
    assert usable(new_policy(make_tiny_backbone(), CONFIG), [empty]).counts == Counter()

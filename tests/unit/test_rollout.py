"""The rollout: the same whatever the batch, seeded, and no profile on its way to the policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pamdp.env.dialogue import DialogueEnv
from pamdp.env.reward import Reward
from pamdp.env.user import RecordedUser
from pamdp.errors import ModelError
from pamdp.judges.base import Case, Verdict
from pamdp.models.actor import Planner
from pamdp.models.backbone import Readout
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy
from pamdp.prompts.render import render
from pamdp.rollout import collect
from pamdp.seeds import seed_of
from pamdp.transitions import Rollout
from pamdp.types import Dialogue, Persona, Turn
from tests.tools.spies import spy_on_reading
from tests.tools.tiny import make_tiny_backbone

CANARY = "xyzzy"


class LengthJudge:
    name = "length"
    fingerprint = {"name": "length"}  # noqa: RUF012

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        return [Verdict(0.8, 0.2) if len(c.a) > len(c.b) else Verdict(0.2, 0.8) for c in cases]


def _dialogues(person: str = "She is a nurse.") -> list[Dialogue]:
    return [
        Dialogue(
            f"d{i}",
            f"u{i}",
            Persona(f"{person} {i}", "brief"),
            tuple(Turn(f"{'So ' * i}what about day {t}?", f"Tea, {i} of {t}.", "No.") for t in range(1 + i)),
        )
        for i in range(3)
    ]


def _policy(planner: bool = True) -> Policy:
    torch.manual_seed(0)
    backbone = make_tiny_backbone(dtype=torch.float64)  # so precise that the padding of a batch never shows
    readout = Readout(layer=1)
    made = Planner(2 * backbone.d, backbone.d, 4) if planner else None
    if made is not None:
        made.actor.sigma.fill_(1.0)
        torch.nn.init.normal_(made.injector.a2.weight)
    return Policy(backbone, made, None, readout)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return _policy()


def _play(policy: Policy, dialogues: Sequence[Dialogue], horizon: int | None = None, **settings: object) -> Rollout:
    references = {d.history(t): ["a few words"] for d in dialogues for t in range(len(d.turns))}
    env = DialogueEnv([RecordedUser(d) for d in dialogues], Reward(LengthJudge(), references), horizon)
    given: dict[str, object] = {"samples": 2, "privileged": {}, "seed": 3, "batch": 64} | settings
    return collect(policy, env, Sampling(5, temperature=1.0), **given)


def _said(rollout: Rollout) -> dict[tuple[str, int, int], tuple[str, float | None, tuple[str, int] | None]]:
    return {(t.key, t.t, t.k): (t.reply, t.reward, t.next) for t in rollout.transitions}


def test_every_state_has_its_samples_rewards_and_features(policy: Policy) -> None:
    rollout = _play(policy, _dialogues())
    states = {(f"d{i}", t) for i in range(3) for t in range(1 + i)}
    assert set(_said(rollout)) == {(*state, k) for state in states for k in range(2)}
    assert set(rollout.moments) == set(rollout.features_h) == set(rollout.features_hw) == states
    assert _said(rollout)["d2", 0, 1][2] == ("d2", 1) and _said(rollout)["d2", 2, 0][2] is None
    assert {t.reward for t in rollout.transitions} <= {0.8 - 0.2, 0.2 - 0.8}
    assert len({t.reply for t in rollout.transitions}) > 3  # the test would see replies that got mixed up


def test_the_horizon_leaves_features_to_bootstrap_from(policy: Policy) -> None:
    rollout = _play(policy, _dialogues(), horizon=1)
    assert {t.key: t.next for t in rollout.transitions} == {"d0": None, "d1": ("d1", 1), "d2": ("d2", 1)}
    assert {t.t for t in rollout.transitions} == {0}
    assert ("d2", 1) in rollout.features_h and ("d2", 1) in rollout.features_hw
    assert {(t.key, t.truncated) for t in rollout.transitions} == {("d0", False), ("d1", True), ("d2", True)}


def test_results_do_not_depend_on_the_batch(policy: Policy) -> None:
    whole = _play(policy, _dialogues())
    for other in (
        _play(policy, _dialogues(), batch=1),
        _play(policy, _dialogues()[::-1], batch=3),
        _play(policy, _dialogues(), groups=2),
        _play(policy, _dialogues(), groups=9),
    ):
        assert _said(other) == _said(whole)
    parts = [_play(policy, [d]) for d in _dialogues()]
    assert {k: v for part in parts for k, v in _said(part).items()} == _said(whole)
    for part in parts:
        for name, features in part.features_h.items():
            assert torch.allclose(features, whole.features_h[name], atol=1e-6)
            assert torch.allclose(part.features_hw[name], whole.features_hw[name], atol=1e-6)


def test_features_are_those_of_a_pass_from_scratch(policy: Policy) -> None:
    rollout = _play(policy, _dialogues())
    for (key, t), features in rollout.features_h.items():
        alone = policy.features(policy.prefix(_dialogues()[int(key[1])].history(t)))
        assert torch.allclose(features, alone, atol=1e-6)


def test_seeds_decide_actions_and_tokens(policy: Policy) -> None:
    first, again, other = (_play(policy, _dialogues(), seed=s) for s in (3, 3, 4))
    assert _said(first) == _said(again) != _said(other)
    for a, b, c in zip(first.transitions, again.transitions, other.transitions, strict=True):
        assert torch.equal(_action(a.action), _action(b.action))
        assert not torch.equal(_action(a.action), _action(c.action))
    assert seed_of(1, "a") == seed_of(1, "a") != seed_of("1a") and 0 <= seed_of("x") < 2**63


def _action(action: Tensor | None) -> Tensor:
    assert action is not None
    return action


def test_exploring_samples_differ_and_are_drawn_around_the_mean(policy: Policy) -> None:
    rollout = _play(policy, _dialogues(), samples=40, privileged=None)
    actions = torch.stack([_action(t.action) - _action(t.mean) for t in rollout.transitions])
    assert len({tuple(a.tolist()) for a in actions}) == len(actions)
    assert abs(float(actions.mean())) < 0.1 and 0.9 < float(actions.std()) < 1.1  # σ = 1
    assert rollout.features_hw == {}


def test_without_exploring_the_action_is_the_mean(policy: Policy) -> None:
    assert policy.planner is not None
    rollout = _play(policy, _dialogues(), explore=False)
    for t in rollout.transitions:
        with torch.no_grad():
            mean = policy.planner.actor(rollout.features_h[t.key, t.t])
        assert torch.equal(_action(t.action), mean) and torch.equal(_action(t.mean), mean)


def test_vanilla_has_no_actions() -> None:
    rollout = _play(_policy(planner=False), _dialogues()[:2])
    assert all(t.action is None and t.mean is None for t in rollout.transitions)


def test_no_profile_reaches_the_policy(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    read = spy_on_reading(monkeypatch)
    seen = _play(policy, _dialogues(CANARY))
    decode = policy.backbone.tokenizer.decode
    assert len(read.policy) >= 9 and not any(CANARY in decode(list(ids)) for ids in read.policy)
    assert any(CANARY in decode(list(ids)) for ids in read.backbone)  # the critic's input has it: the test can fail

    plain = _play(policy, _dialogues())
    assert [(t.reply, t.reward) for t in seen.transitions] == [(t.reply, t.reward) for t in plain.transitions]
    for name, features in plain.features_h.items():
        assert torch.equal(features, seen.features_h[name])
        assert not torch.allclose(plain.features_hw[name], seen.features_hw[name])


def test_privileged_features_are_kept_for_the_next_round(policy: Policy) -> None:
    known: dict[tuple[str, int], Tensor] = {}
    first = _play(policy, _dialogues(), privileged=known)
    assert known.keys() == first.features_hw.keys()
    known["d1", 0] = torch.full_like(known["d1", 0], 7.0)
    assert bool((_play(policy, _dialogues(), privileged=known).features_hw["d1", 0] == 7).all())


def test_the_critics_features_are_those_of_one_deep_pass(policy: Policy) -> None:
    """Shallow passes that continue one another read what a whole pass from scratch reads."""
    rollout = _play(policy, _dialogues())
    for name, moment in rollout.moments.items():
        encoded = policy.backbone.chat.history(moment.history, render("assistant_for", persona=moment.privileged.text))
        with torch.no_grad():
            deep = policy.features(policy.backbone.prefix(encoded, policy.readout.layer))
        torch.testing.assert_close(rollout.features_hw[name], deep)


def test_states_too_long_for_the_backbone_are_read_without_their_first_turns(
    policy: Policy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the dialogue had begun later; what was left out is counted."""
    dialogue = _dialogues()[2]
    system = render("assistant_for", persona=dialogue.persona.text)
    model = policy.config.model.model_copy(update={"overflow": "drop"})
    short = replace(policy, system=system, config=policy.config.model_copy(update={"model": model}))
    room = short.config.clone.max_reply + model.n_embeddings
    limit = len(policy.backbone.chat.history(dialogue.history(2)[2:], system).ids) + room
    monkeypatch.setattr(policy.backbone.model.config, "max_position_embeddings", limit)
    rollout = _play(short, [dialogue])
    assert rollout.dropped == {("d2", 2): 1}
    assert "model.overflow=drop: 1 first turns of 1 histories" in capsys.readouterr().err
    later = _play(short, [replace(dialogue, turns=dialogue.turns[1:])])
    assert not later.dropped
    for features, alone in ((rollout.features_h, later.features_h), (rollout.features_hw, later.features_hw)):
        assert torch.allclose(features["d2", 2], alone["d2", 1], atol=1e-9)
    with pytest.raises(ModelError, match=r"model\.overflow=drop"):
        _play(replace(policy, system=system), [dialogue])

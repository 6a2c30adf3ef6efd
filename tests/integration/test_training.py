"""The main job on a random two-layer backbone: clone, reinforce, evaluate, report; interrupted runs end the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pamdp.config import CloneConfig, Config, ModelConfig, RLConfig
from pamdp.data import load_sample
from pamdp.evaluation.offline_eval import action_controls, evaluate, write_replies
from pamdp.evaluation.report import write_report
from pamdp.fingerprint import Fingerprint
from pamdp.judges.base import Case, Verdict
from pamdp.models.backbone import Backbone
from pamdp.models.policy import Policy
from pamdp.runs import Run
from pamdp.train import reinforce
from pamdp.train.bc import Cloner
from pamdp.train.clone import clone
from pamdp.train.factory import load_policy, new_policy
from pamdp.train.offline import offline
from pamdp.train.policy_metadata import read_metadata
from pamdp.transitions import Batch, Rollout, to_batch
from pamdp.types import Dialogue
from tests.tools.tiny import make_tiny_backbone

PRINT = Fingerprint(data="0", model="tiny", revision="0")


class VowelJudge:
    """Prefers the reply with the larger share of vowels: a rule that any policy can be measured by."""

    name = "vowels"
    fingerprint = {"name": "vowels"}  # noqa: RUF012

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        return [self._verdict(_share(c.a) - _share(c.b)) for c in cases]

    def _verdict(self, gap: float) -> Verdict:
        return Verdict(0.0, 0.0, 1.0) if gap == 0 else Verdict(0.9, 0.1) if gap > 0 else Verdict(0.1, 0.9)


class TiringJudge(VowelJudge):
    """Is less sure of itself with every question, until it forgets them: stands for digits that depend on the past."""

    def __init__(self) -> None:
        self.asked = 0

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        self.asked += len(cases)
        return [Verdict(v.p_a * 0.99**self.asked, v.p_b, v.p_tie) for v in super().judge(cases)]

    def forget(self) -> None:
        self.asked = 0


def _share(text: str) -> float:
    return sum(c in "aeiou" for c in text) / max(len(text), 1)


def _config(**clone_settings: object) -> Config:
    return Config(
        model=ModelConfig(d_a=8, depth=0.5),
        clone=CloneConfig(epochs=2, batch_size=2, save_every=1, **clone_settings),
        rl=RLConfig(
            rounds=2, samples=2, epochs=2, batch_size=4, actor_every=1, lr_actor=1e-2, max_reply=6, dialogues=2
        ),
    )


@pytest.fixture(scope="module")
def dialogues() -> tuple[Dialogue, ...]:
    return tuple(Dialogue(d.id, d.user_id, d.persona, d.turns[:2]) for d in load_sample("train").dialogues[:4])


def _clone(
    backbone: Backbone, config: Config, path: Path, dialogues: Sequence[Dialogue], stop: int | None = None
) -> Policy:
    policy = new_policy(backbone, config)
    run = Run.resume(path, config, PRINT) if path.exists() else Run.create(path, config, PRINT)
    if stop is not None:
        _interrupt(run, stop)
    with run:
        return clone(policy, dialogues[:3], dialogues[3:], config, run)


def _interrupt(run: Run, calls: int) -> None:
    """Make the run die, as by kill -9, at its CALLS-th log entry."""
    log, seen = run.log, []

    def dying(*args: object, **kwargs: object) -> None:
        seen.append(1)
        if len(seen) >= calls:
            raise KeyboardInterrupt
        log(*args, **kwargs)

    run.log = dying


BACKBONES: list[dict[str, object]] = [
    {"backbone": "frozen"},
    {"backbone": "lora"},
    {"backbone": "lora", "lora_layers": "all"},
    {"backbone": "full"},
]


@pytest.mark.parametrize("settings", BACKBONES)
def test_cloning_steps_lower_the_loss(
    make_backbone: Callable[..., Backbone], dialogues: tuple[Dialogue, ...], settings: dict[str, object]
) -> None:
    """Measured before and after with the same replies, actions and noise."""
    config = _config(**settings)
    cloner = Cloner(new_policy(make_backbone(), config), config.clone)
    examples, _ = cloner.prepare(dialogues)

    def loss() -> float:
        rng, noise = random.Random(1), torch.Generator().manual_seed(1)
        with torch.no_grad():
            return sum(float(cloner.loss(e, rng, noise)) for e in examples * 4)

    before, rng, noise = loss(), random.Random(0), torch.Generator().manual_seed(0)
    for _ in range(30):
        cloner.update(examples, rng, noise, 30)
    assert loss() < before - 0.1


@pytest.mark.parametrize("settings", BACKBONES)
def test_cloned_policies_can_be_loaded(
    make_backbone: Callable[..., Backbone], tmp_path: Path, dialogues: tuple[Dialogue, ...], settings: dict[str, object]
) -> None:
    config = _config(**settings)
    policy = _clone(make_backbone(), config, tmp_path / "run", dialogues)
    assert read_metadata(tmp_path / "run" / "policy").users == tuple(sorted(d.user_id for d in dialogues[:3]))
    if settings["backbone"] == "full":
        return  # another full backbone has another revision; loading it is tested by its weights
    loaded = load_policy(tmp_path / "run" / "policy", make_backbone())
    replies = [write_replies(p, dialogues[:1], config.rl) for p in (policy, loaded)]
    assert replies[0] == replies[1]


def test_cloning_resumes_to_the_same_planner(
    make_backbone: Callable[..., Backbone], tmp_path: Path, dialogues: tuple[Dialogue, ...]
) -> None:
    config = _config()
    whole = _clone(make_backbone(), config, tmp_path / "whole", dialogues)
    with pytest.raises(KeyboardInterrupt):
        _clone(make_backbone(), config, tmp_path / "cut", dialogues, stop=3)
    resumed = _clone(make_backbone(), config, tmp_path / "cut", dialogues)
    assert whole.planner is not None and resumed.planner is not None
    for name, value in whole.planner.state_dict().items():
        assert torch.equal(value, resumed.planner.state_dict()[name]), name
    assert Run(tmp_path / "whole").metrics() == Run(tmp_path / "cut").metrics()


def test_reinforcement_resumes_to_the_same_actor(
    make_backbone: Callable[..., Backbone], tmp_path: Path, dialogues: tuple[Dialogue, ...]
) -> None:
    config = _config()
    _clone(make_backbone(), config, tmp_path / "bc", dialogues)
    ends = []
    for name, stop in (("whole", None), ("cut", 3), ("cut", None)):
        policy = load_policy(tmp_path / "bc" / "policy", make_backbone())
        path = tmp_path / name
        run = Run.resume(path, config, PRINT) if path.exists() else Run.create(path, config, PRINT)
        if stop is not None:
            _interrupt(run, stop)
            with pytest.raises(KeyboardInterrupt):
                offline(policy, dialogues[:3], TiringJudge(), config, run)
            run.close()
            continue
        with run:
            offline(policy, dialogues[:3], TiringJudge(), config, run)
        assert policy.planner is not None
        ends.append(policy.planner.state_dict())
    for key, value in ends[0].items():
        assert torch.equal(value, ends[1][key]), key
    assert Run(tmp_path / "whole").traces() == Run(tmp_path / "cut").traces()


@pytest.mark.parametrize("literal", [False, True])
def test_to_the_letter_of_the_paper_the_horizon_ends_a_dialogue(
    tmp_path: Path, dialogues: tuple[Dialogue, ...], monkeypatch: pytest.MonkeyPatch, literal: bool
) -> None:
    config = _config(backbone="frozen")
    config = config.model_copy(update={"rl": config.rl.model_copy(update={"paper_literal": literal, "rounds": 1})})
    policy = new_policy(make_tiny_backbone(), config)
    assert policy.planner is not None
    policy.planner.actor.sigma.fill_(1.0)
    batches: list[Batch] = []

    def cut(rollouts: Sequence[Rollout], **settings: bool) -> Batch:
        """The same dialogues, as if a horizon had cut them off after their first turn."""
        ends = [replace(r, transitions=[replace(t, truncated=t.t == 0) for t in r.transitions]) for r in rollouts]
        batches.append(to_batch(ends, **settings))
        return batches[-1]

    monkeypatch.setattr(reinforce, "to_batch", cut)
    with Run.create(tmp_path / "rl", config, PRINT) as run:
        offline(policy, dialogues[:2], VowelJudge(), config, run)
    assert int((batches[0].after >= 0).sum()) == (0 if literal else 4)


def test_evaluation_writes_a_report(
    make_backbone: Callable[..., Backbone], tmp_path: Path, dialogues: tuple[Dialogue, ...]
) -> None:
    config = _config()
    policy = _clone(make_backbone(), config, tmp_path / "run", dialogues)
    vanilla = Policy(policy.backbone, None, None, policy.readout)
    replies = {name: write_replies(p, dialogues, config.rl) for name, p in (("Vanilla", vanilla), ("BC", policy))}
    controls = action_controls(policy, dialogues, [VowelJudge()], config.rl, replies["BC"], "BC")
    assert {c.judge for c in controls} == {"vowels", "reference NLL"}
    found = evaluate(replies, [("BC", "Vanilla")], dialogues, [VowelJudge()], controls, tmp_path / "run")
    assert len(found) == sum(len(d.turns) for d in dialogues)
    text = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "BC" in text and "vowels" in text

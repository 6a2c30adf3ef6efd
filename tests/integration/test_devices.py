"""Everything on another device and in another type: nothing stays behind, nothing waits, what learns is float32."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pamdp.config import CloneConfig, Config, ModelConfig, RLConfig
from pamdp.evaluation.offline_eval import action_controls, write_replies
from pamdp.judges.likelihood import LikelihoodHead, LikelihoodScorer
from pamdp.judges.match import MatchHead, MatchScorer
from pamdp.judges.reward_model import RewardHead, RewardModel
from pamdp.judges.signals import Signals, SignalsScorer
from pamdp.models.adapters import add_adapter
from pamdp.models.backbone import Backbone
from pamdp.runs import Run
from pamdp.train.bc import Cloner
from pamdp.train.clone import clone
from pamdp.train.factory import load_policy, new_policy
from pamdp.train.offline import offline
from pamdp.train.online import online
from pamdp.types import Dialogue
from tests.integration.test_training import PRINT, VowelJudge
from tests.tools.learning import make_dialogues, make_learning, make_world
from tests.tools.tiny import make_tiny_backbone

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU with CUDA is here"))


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tiny_bf16(device: str) -> Callable[[], Backbone]:
    def make() -> Backbone:
        tiny = make_tiny_backbone(dtype=torch.bfloat16)
        return Backbone(tiny.model.to(device), tiny.tokenizer, tiny.name, tiny.revision)

    return make


def _config(**clone_settings: object) -> Config:
    return Config(
        model=ModelConfig(d_a=8, depth=0.5),
        clone=CloneConfig(epochs=1, batch_size=2, save_every=1, **clone_settings),
        rl=RLConfig(samples=2, epochs=2, batch_size=4, actor_every=1, lr_actor=1e-2, max_reply=6, dialogues=2),
    )


KINDS: list[dict[str, object]] = [
    {"backbone": "frozen"},
    {"backbone": "lora"},
    {"backbone": "lora", "lora_layers": "all"},
    {"backbone": "full"},
    {"backbone": "frozen", "steer": 0.0},
]


def _float32(folder: Path, but: str = "backbone") -> None:
    for file in folder.rglob("*.safetensors"):
        if file.stem not in (but, "state"):
            assert {x.dtype for x in load_file(file).values() if x.is_floating_point()} == {torch.float32}, file


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_cloning_and_reinforcement_in_bfloat16(
    tmp_path: Path, tiny_bf16: Callable[[], Backbone], kind: dict[str, object]
) -> None:
    """Clone, reinforce, evaluate, talk; whatever learned is float32 in every file."""
    config, dialogues = _config(**kind), make_dialogues()[:3]
    policy = new_policy(tiny_bf16(), config)
    assert policy.trained_planner.actor.a1.weight.dtype == torch.float32
    with Run.create(tmp_path / "bc", config, PRINT) as run:
        cloned = clone(policy, dialogues[:2], dialogues[2:], config, run)
    if kind["backbone"] != "full":  # every weight changed: another backbone would be needed, with its revision
        cloned = load_policy(tmp_path / "bc" / "policy", tiny_bf16())
    with Run.create(tmp_path / "rl", config, PRINT) as run:
        trained = offline(cloned, dialogues[:2], VowelJudge(), config, run)
    replies = write_replies(trained, dialogues, config.rl)
    assert len(replies) == sum(len(d.turns) for d in dialogues)
    controls = action_controls(trained, dialogues, [VowelJudge()], config.rl, replies, "PAMDP")
    assert controls and isinstance(trained.reply("Hello?", max_tokens=4), str)
    _float32(tmp_path)
    assert policy.backbone.dtype == torch.bfloat16


def test_online_learning_in_bfloat16(tmp_path: Path, tiny_bf16: Callable[[], Backbone]) -> None:
    config = make_learning()
    policy = new_policy(tiny_bf16(), config)
    policy.trained_planner.actor.sigma.fill_(1.0)
    with Run.create(tmp_path / "run", config, PRINT) as run:
        online(policy, make_dialogues(), make_world(config), config, run)
    _float32(tmp_path)


def test_full_cloning_in_bfloat16_keeps_what_rounding_loses(tmp_path: Path) -> None:
    """Steps far below a bfloat16 number's last digit add up; a resumed run has the same twins."""
    dialogues, config = make_dialogues()[:2], _config(backbone="full", lr_backbone=1e-6)
    cloner = Cloner(new_policy(make_tiny_backbone(dtype=torch.bfloat16), config), config.clone)
    before = [twin.clone() for twin in cloner.master.state()]
    examples, _ = cloner.prepare(dialogues)
    for _ in range(3):
        cloner.update(examples, random.Random(0), torch.Generator().manual_seed(0), 3)
    after = cloner.master.state()
    assert before and all(twin.dtype == torch.float32 for twin in after)
    assert sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) > len(before) // 2
    weights = [p for p in cloner.policy.backbone.model.parameters() if p.requires_grad]
    assert all(torch.equal(w, twin.to(w)) for w, twin in zip(weights, after, strict=True))
    ends = []
    for name, stop in (("whole", None), ("cut", 2), ("cut", None)):
        policy, path = new_policy(make_tiny_backbone(dtype=torch.bfloat16), config), tmp_path / name
        with Run.resume(path, config, PRINT) if path.exists() else Run.create(path, config, PRINT) as run:
            if stop is None:
                clone(policy, dialogues, (), config, run)
                ends.append(load_file(max((path / "checkpoints" / "clone").iterdir()) / "state.safetensors"))
            else:
                _interrupt(run)
                with pytest.raises(KeyboardInterrupt):
                    clone(policy, dialogues, (), config, run)
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])


def _interrupt(run: Run) -> None:
    def dying(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    run.log = dying


def _scores(backbone: Backbone, dialogue: Dialogue) -> list[float]:
    """What every kind of embedded scorer says of two replies."""
    torch.manual_seed(0)
    d, history, replies = backbone.d, dialogue.history(1), ("Have a tea.", "Do go away.")
    for name in ("judge", "reward"):
        add_adapter(backbone, name, 2)
    reward, signals = RewardHead(2 * d), Signals(d)
    torch.nn.init.normal_(reward.readout.weight)
    signals.weight.fill_(1.0)
    scorers = [
        LikelihoodScorer(backbone, LikelihoodHead(d).requires_grad_(False), 1),
        MatchScorer(backbone, MatchHead(2 * d, d).requires_grad_(False), [1]),
        RewardModel(backbone, reward.requires_grad_(False), 1, 2), SignalsScorer(backbone, signals),
    ]  # fmt: skip
    return [score for scorer in scorers for score in scorer.score(dialogue.persona, history, replies)]


def test_judges_in_bfloat16(tiny_bf16: Callable[[], Backbone]) -> None:
    dialogue = make_dialogues()[0]
    assert _scores(tiny_bf16(), dialogue) == pytest.approx(_scores(make_tiny_backbone(), dialogue), rel=0.3, abs=0.5)

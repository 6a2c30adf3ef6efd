"""Everything on a device that is none: no tensor is left on the CPU, and the CPU does not wait for each number."""

from __future__ import annotations

import copy
import queue
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from pamdp import learner
from pamdp.config import CloneConfig, Config, ModelConfig, RLConfig
from pamdp.engines.engine import Engine
from pamdp.engines.job import Ended, Failed, Job
from pamdp.env.reward import Reward
from pamdp.evaluation.offline_eval import action_controls, write_replies
from pamdp.judges.likelihood import LikelihoodHead, LikelihoodScorer
from pamdp.judges.match import MatchHead, MatchScorer
from pamdp.judges.reward_model import RewardHead, RewardModel
from pamdp.judges.signals import Signals, SignalsScorer
from pamdp.models import attention, packed_branches, slots
from pamdp.models.actor import Actor, Injector, Planner
from pamdp.models.adapters import add_adapter
from pamdp.models.backbone import Backbone
from pamdp.models.critics import Critic, DualCritic
from pamdp.models.embedded import load_backbone
from pamdp.models.generate import DecodeRow, Sampling, generate
from pamdp.models.policy import Policy
from pamdp.runs import Run
from pamdp.train.bc import Cloner
from pamdp.train.clone import clone
from pamdp.train.examples import CloneExample
from pamdp.train.factory import load_policy, new_policy, policy_weights, set_weights
from pamdp.train.offline import offline, rollout_recorded
from pamdp.transitions import Batch, Rollout
from pamdp.types import Dialogue, Message
from tests.integration.test_devices import _scores
from tests.integration.test_training import PRINT, VowelJudge
from tests.tools.fake_device import DEVICE, waits
from tests.tools.learning import make_dialogues
from tests.tools.tiny import make_tiny_backbone

T = TypeVar("T")
CPU = torch.device("cpu")
DIALOGUES = make_dialogues()[:2]
KINDS: list[dict[str, object]] = [
    {"backbone": "frozen"},
    {"backbone": "lora"},
    {"backbone": "lora", "lora_layers": "all", "steer": 0.0},
    {"backbone": "full"},
]


def _backbone(device: torch.device, dtype: torch.dtype = torch.float64) -> Backbone:
    tiny = make_tiny_backbone(dtype=dtype)  # in float64 the two ways in which CPU and device attend agree
    return Backbone(tiny.model.to(device), tiny.tokenizer, tiny.name, tiny.revision)


def _config(n_embeddings: int = 1, rl: dict[str, object] | None = None, **clone_settings: object) -> Config:
    return Config(
        model=ModelConfig(d_a=8, depth=0.5, n_embeddings=n_embeddings),
        clone=CloneConfig(epochs=1, batch_size=2, lora_rank=2, **clone_settings),
        rl=RLConfig(samples=2, epochs=2, batch_size=4, actor_every=1, lr_actor=1e-2, max_reply=6, **(rl or {})),
    )


def _policy(device: torch.device, config: Config) -> Policy:
    """A random policy whose actions and adapter change what is said."""
    policy = new_policy(_backbone(device), config)
    generator, weights = torch.Generator().manual_seed(0), policy_weights(policy)
    for tensor in [*weights["planner"].values(), *weights.get("adapter", {}).values()]:
        if tensor.dim() == 2:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    set_weights(policy, weights)
    policy.trained_planner.actor.sigma.fill_(0.5)
    return policy


def _both(run: Callable[[torch.device], T]) -> tuple[T, T]:
    """The same on the device and on the CPU."""
    return run(DEVICE), run(CPU)


def _same(found: Tensor | None, wanted: Tensor | None) -> None:
    """Equal but for the last digits, and where it was asked for."""
    assert (found is None) == (wanted is None)
    if found is not None and wanted is not None:
        gap = (found.detach().cpu() - wanted.detach()).norm() / wanted.norm().clamp_min(1e-3)
        assert gap <= 1e-6, gap


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_cloning(kind: dict[str, object]) -> None:
    """Features, regression, loss, gradients and the step are the CPU's, and all of it is on the device."""

    def step(device: torch.device) -> tuple[Cloner, dict[str, float]]:
        cloner, examples = _cloner(device, _config(**kind))
        known = [x for e in examples for x in (e.states, *e.meanings) if x is not None and x.numel()]
        assert {x.device.type for x in known} <= {device.type}
        return cloner, _step(cloner, examples)

    (ours, log), (plain, wanted) = _both(step)
    assert log == pytest.approx(wanted, rel=1e-6)
    for group, other in zip(ours.optimizer.param_groups, plain.optimizer.param_groups, strict=True):
        for weight, same in zip(group["params"], other["params"], strict=True):
            assert weight.device == DEVICE
            _same(weight.grad, same.grad)
            _same(weight, same)


ACTING: dict[str, Config] = {
    "embeddings": _config(2, steer=0.0, backbone="frozen"),
    "steering": _config(0, backbone="frozen", rl={"temperature": 1.0}),
    "both, LoRA, scored": _config(backbone="lora", lora_layers="all", rl={"gradient": "reply"}),
}


def _rollout(policy: Policy, rl: RLConfig, dialogues: Sequence[Dialogue] = DIALOGUES) -> Rollout:
    reward = Reward(VowelJudge(), {d.history(t): ["Have a tea."] for d in dialogues for t in range(len(d.turns))})
    [rollout] = rollout_recorded(policy, dialogues, rl, reward, {}, seed=1)
    return rollout


def _cloner(device: torch.device, config: Config) -> tuple[Cloner, list[CloneExample]]:
    cloner = Cloner(new_policy(_backbone(device), config), config.clone)
    return cloner, cloner.prepare(DIALOGUES)[0]


def _step(cloner: Cloner, examples: Sequence[CloneExample]) -> dict[str, float]:
    return cloner.update(examples, random.Random(0), torch.Generator().manual_seed(0), 3)


@pytest.mark.parametrize("how", ACTING)
def test_rollouts(how: str) -> None:
    """Replies to the token, actions, features and scores; what comes of a rollout is on the CPU, where one learns."""
    ours, plain = _both(lambda device: _rollout(_policy(device, ACTING[how]), ACTING[how].rl))
    assert [(t.reply, t.reward) for t in ours.transitions] == [(t.reply, t.reward) for t in plain.transitions]
    assert len({t.reply for t in plain.transitions}) > 2
    for t, same in zip(ours.transitions, plain.transitions, strict=True):
        for found, wanted in ((t.action, same.action), (t.mean, same.mean), (t.score, same.score)):
            assert found is None or found.device == CPU
            _same(found, wanted)
        assert (same.score is not None) == (how == "both, LoRA, scored")
    for features, others in ((ours.features_h, plain.features_h), (ours.features_hw, plain.features_hw)):
        for name, feature in features.items():
            assert feature.device == CPU
            _same(feature, others[name])


def test_a_run_from_cloning_to_evaluation(tmp_path: Path) -> None:
    """`train bc`, `train offline` with its trust region, stored policies and `eval`: as on the CPU."""
    rl = {"advantage": "odc", "gradient": "reply", "form_states": 2, "reference": "clone"}
    config = _config(rl=rl, backbone="lora", lora_layers="all")

    def run(device: torch.device) -> tuple[Policy, dict[tuple[str, int], str], list[float]]:
        with Run.create(tmp_path / device.type / "bc", config, PRINT) as one:
            clone(new_policy(_backbone(device), config), DIALOGUES, DIALOGUES, config, one)
            rows = one.metrics()
        cloned = load_policy(tmp_path / device.type / "bc" / "policy", _backbone(device))
        with Run.create(tmp_path / device.type / "rl", config, PRINT) as one:
            trained = offline(cloned, DIALOGUES, VowelJudge(), config, one)
            rows += one.metrics()
        replies = write_replies(trained, DIALOGUES, config.rl)
        controls = action_controls(trained, DIALOGUES, [VowelJudge()], config.rl, replies, "PAMDP")
        numbers = [x for row in rows for key, x in sorted(row.items()) if isinstance(x, float) and key != "time"]
        return trained, replies, [*numbers, *(control.mean for control in controls)]

    (ours, said, numbers), (plain, wanted, others) = _both(run)
    weights = plain.trained_planner.state_dict()
    for name, tensor in ours.trained_planner.state_dict().items():
        assert tensor.device == DEVICE
        _same(tensor, weights[name])
    assert said == wanted and numbers == pytest.approx(others, rel=1e-6, abs=1e-6, nan_ok=True)


def _batch(device: torch.device, n: int, scored: bool) -> Batch:
    generator = torch.Generator().manual_seed(0)
    at = torch.arange(n)
    one = Batch(
        torch.randn(n, 16, generator=generator), torch.randn(n, 16, generator=generator), at // 2,
        torch.where(at % 3 == 0, -1, (at // 2 + 1) % n), torch.randn(n, 8, generator=generator),
        torch.randn(n, 8, generator=generator), torch.full((n,), 0.5), torch.rand(n, generator=generator), at % 4 != 3,
        torch.randn(n, 8, generator=generator) if scored else None,
    )  # fmt: skip
    moved = {f.name: getattr(one, f.name) for f in fields(one)}
    return Batch(**{name: x if x is None else x.to(device) for name, x in moved.items()})


LEARNING: dict[str, dict[str, object]] = {
    "odc": {"advantage": "odc", "moves": "components"},
    "odc, leave one out": {"advantage": "odc", "leave_one_out": True, "moves": "gains"},
    "eq. 6, clipped": {"advantage": "pamdp", "clip": 0.2, "moves": "all"},
    "replies": {"advantage": "odc_safe", "gradient": "reply"},
    "permuted, to the letter": {"advantage": "a2c", "permute": True, "paper_literal": True},
}


def _learn(device: torch.device, how: str, n: int = 8) -> tuple[list[dict[str, float]], list[Tensor]]:
    """An update of two passes in two steps each, with the learner where its actor is."""
    config = RLConfig(epochs=2, batch_size=n // 2, actor_every=1, lr_actor=1e-2, **LEARNING[how])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = Actor(16, 8)
    reference.sigma.fill_(0.5)
    found = learner.Learner(reference.to(device), DualCritic(16, 16, 3.0).to(device), config)
    batch = _batch(device, n, "gradient" in LEARNING[how])
    found.fit(batch)
    logs = found.update(batch, torch.Generator().manual_seed(0))
    return logs, [*found.delta.parameters(), *found.critics.parameters(), found.actor().a1.weight]


@pytest.mark.parametrize("how", LEARNING)
def test_the_learner(how: str) -> None:
    """It runs where its actor is (in training, the CPU), and moves as there."""
    (logs, ours), (wanted, plain) = _both(lambda device: _learn(device, how))
    for log, same in zip(logs, wanted, strict=True):
        assert log == pytest.approx(same, rel=1e-6, abs=1e-6)
    for weight, other in zip(ours, plain, strict=True):
        assert weight.device == DEVICE
        _same(weight, other)


def test_judges() -> None:
    ours, plain = _both(lambda device: _scores(_backbone(device, torch.float32), DIALOGUES[0]))
    assert ours == pytest.approx(plain, rel=1e-5, abs=1e-5)


def test_a_model_that_settings_put_there(tmp_path: Path) -> None:
    """Loading, the check of an unknown family, and a reply."""
    tiny = make_tiny_backbone()
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    settings = ModelConfig(name=str(tmp_path), dtype="float32")
    ours, plain = _both(lambda device: Policy(load_backbone(settings.model_copy(update={"device": str(device)}))))
    assert ours.backbone.device == DEVICE
    assert ours.reply("Hello?", max_tokens=8) == plain.reply("Hello?", max_tokens=8)


def _asked(engine: Engine, policy: Policy, n: int, **more: object) -> list[Ended]:
    """Replies of an engine, in their order."""
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    sampling = Sampling(9, temperature=float(n > 1))
    engine.submit(Job(policy, (Message("user", "Hello?"),), sampling, ("user",), events.put, n=n, **more))
    ended: list[Ended] = []
    while len(ended) < n:
        match events.get(timeout=300):
            case Ended() as one:
                ended.append(one)
            case Failed(error):
                raise error
    return sorted(ended, key=lambda one: one.index)


def test_the_engine_of_the_server() -> None:
    def run(device: torch.device) -> list[tuple[object, ...]]:
        policy, engine = _policy(device, ACTING["both, LoRA, scored"]), Engine(places=4, context=400, tokens=64)
        try:
            asked = _asked(engine, policy, 3, explore=1.0, seed=3) + _asked(
                engine, policy, 1, stream=True, stop=("zz",)
            )
        finally:
            engine.stop()
        assert all(one.action is not None for one in asked)
        return [(one.text, one.action, one.mean, one.sigma) for one in asked]

    ours, plain = _both(run)
    assert [one[0] for one in ours] == [one[0] for one in plain]
    assert [x for one in ours for x in (*one[1], *one[2], one[3])] == pytest.approx(
        [x for one in plain for x in (*one[1], *one[2], one[3])], rel=1e-6
    )


def _endless(config: Config) -> Policy:
    """A policy on the device none of whose replies ends before its budget does."""
    policy = _policy(DEVICE, config)
    policy.backbone.chat.ends = [-1]
    return policy


def _decoding(rows: int) -> int:
    policy = _endless(ACTING["steering"])
    with torch.no_grad():
        prefix = policy.prefix(DIALOGUES[0].history(0))
    [head] = prefix.encoded.heads
    with waits() as found:
        said = generate(policy.backbone, [prefix], [DecodeRow(0, head, seed=i) for i in range(rows)], Sampling(12))
    assert [len(ids) for ids in said] == [12] * rows
    return found.total()


def _rolling(states: int) -> int:
    config = ACTING["both, LoRA, scored"]
    policy = _endless(config)
    with waits() as found:
        rollout = _rollout(policy, config.rl.model_copy(update={"samples": states}), DIALOGUES[: states // 2])
    assert len(rollout.transitions) == states**2
    return found.total()


def _cloning(max_reply: int) -> int:
    cloner, examples = _cloner(DEVICE, _config(backbone="lora", max_reply=max_reply))
    with waits() as found:
        _step(cloner, examples[: 1 if max_reply < 8 else 2])
    return found.total()


def _learning(n: int) -> int:
    with waits() as found:
        _learn(DEVICE, "odc, leave one out", n)
    return found.total()


def _judging(replies: int) -> int:
    backbone = _backbone(DEVICE, torch.float32)
    for name in ("judge", "reward"):
        add_adapter(backbone, name, 2)
    scorers = [
        LikelihoodScorer(backbone, LikelihoodHead(backbone.d), 1), MatchScorer(backbone, MatchHead(64, 32), [1]),
        RewardModel(backbone, RewardHead(64), 1, 2), SignalsScorer(backbone, Signals(backbone.d)),
    ]  # fmt: skip
    with waits() as found:
        for scorer in scorers:
            scorer.score(DIALOGUES[0].persona, DIALOGUES[0].history(1), [f"Have {n} teas." for n in range(replies)])
    return found.total()


def _serving(n: int) -> int:
    policy, engine = _endless(ACTING["both, LoRA, scored"]), Engine(places=8, context=400, tokens=64)
    try:
        with waits() as found:
            _asked(engine, policy, n, explore=1.0)
            engine.stop()  # when a reply is told its thread still is in the turn
    finally:
        engine.stop()
    return found.total()


@pytest.mark.parametrize(
    ("count", "few", "many", "most"),
    [
        (_decoding, 2, 12, 12),  # at most one for each token, whatever the number of rows
        (_rolling, 2, 4, 30),
        (_cloning, 4, 16, 1),
        (_learning, 4, 8, 200),
        (_judging, 2, 5, 10),
        (_serving, 2, 6, 15),
    ],
)
def test_the_cpu_waits_no_more_for_more(count: Callable[[int], int], few: int, many: int, most: int) -> None:
    """Rows, samples of a state, tokens, transitions and replies: none of them is waited for by itself."""
    assert 0 < count(many) == count(few) <= most


REFUSED = r"(on|of) the CPU|at least two devices|indices should be either on cpu or"
"""How PyTorch, or the device, refuses a tensor of the CPU."""
FAULTS = {
    "rollout": [(Policy, "features"), (Backbone, "head"), (slots, "penalised"), (attention, "additive")],
    "cloning": [(Backbone, "embed_ids"), (Injector, "forward"), (packed_branches, "_mask"), (Planner, "steer")],
    "learner": [(Actor, "forward"), (Critic, "forward"), (learner, "td_target"), (learner, "gaussian_log_prob")],
}


@pytest.mark.parametrize(("part", "owner", "name"), [(part, *fault) for part in FAULTS for fault in FAULTS[part]])
def test_a_tensor_left_on_the_cpu_is_found(
    monkeypatch: pytest.MonkeyPatch, part: str, owner: object, name: str
) -> None:
    # A shift alone has the header's last token run again; beside action embeddings no reply begins with a token.
    config = _config(n_embeddings=int(name != "embed_ids"), backbone="frozen")
    run: dict[str, Callable[[], object]] = {
        "rollout": lambda: _rollout(_policy(DEVICE, config), config.rl),
        "cloning": lambda: _step(*_cloner(DEVICE, config)),
        "learner": lambda: _learn(DEVICE, "odc"),
    }
    right = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda *given, **named: right(*given, **named).cpu())
    with pytest.raises(RuntimeError, match=REFUSED):
        run[part]()


def test_what_cuda_refuses_and_what_it_allows() -> None:
    here, there = torch.arange(6.0, device=DEVICE).reshape(2, 3), torch.ones(2, 3)
    refused: list[Callable[[], object]] = [
        lambda: here + there, lambda: there @ here.T, lambda: torch.cat([here, there]), lambda: there[here.bool()],
        lambda: torch.where(there > 0, here, 0), lambda: here.index_put((torch.tensor([0]),), there[:1]),
        lambda: nn.functional.embedding(torch.tensor([0]), here), lambda: nn.functional.linear(here, there),
        lambda: torch.rand(2, generator=torch.Generator(), device=DEVICE),
        lambda: here.gather(1, torch.zeros(2, 1).long()),
    ]  # fmt: skip
    for work in refused:
        with pytest.raises(RuntimeError, match=REFUSED):
            work()
    with waits() as found:
        assert (here * torch.tensor(2.0))[torch.tensor([1])].shape == (1, 3)
        here.copy_(there * 3)
        changed = copy.deepcopy(here).mul_(2)
    assert not found
    with waits() as found:
        assert (float(here.sum()), changed.tolist()[0], bool(here.any())) == (18.0, [6.0] * 3, True)
        assert here.cpu().equal(there * 3) and len(here[here > 0]) == 6
    assert found == Counter(_local_scalar_dense=2, _copy_from=2, nonzero=1)
    with pytest.raises(TypeError):
        here.numpy()


def test_gradients_of_views_and_of_what_is_kept() -> None:
    def gradients(device: torch.device) -> list[Tensor]:
        x = torch.linspace(-1, 1, 12).to(device).requires_grad_()
        y = x.view(3, 4).T.softmax(-1).exp()
        z = torch.utils.checkpoint.checkpoint(lambda y: (y[1:] * y[:-1]).tanh(), y, use_reentrant=False,
                                              preserve_rng_state=False)  # fmt: skip
        out = y.clone()
        out[0] = z[0]
        (out.norm() + z.sum().detach() * y.data.sum() + x[[0, 0, 1]].sum()).backward()
        return [y.detach(), z.detach(), x.grad]

    for ours, plain in zip(*_both(gradients), strict=True):
        assert ours.device == DEVICE
        _same(ours, plain)

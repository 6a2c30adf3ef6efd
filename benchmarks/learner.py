"""Reinforcement learning from stored features: `python -m benchmarks.learner`.

Ours is a whole offline update: features, actions and rewards of 2,000 replies read from disk, then five epochs of both
critics and the actor. Their values do not change the time, so states of a few dialogues are repeated with noise. The
peer is one step of TRL's GRPO with LoRA, for each of its turns (prompts); its step writes its replies too, ours has
them in store, and `update_only` says how the ratio would be without TRL's writing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks import inputs
from benchmarks.arena import Duel, Options, main
from benchmarks.measure import Facts, Measured, Prepared
from pamdp.baselines.config import GrpoConfig
from pamdp.baselines.preference import messages
from pamdp.baselines.tune import make_trainer, require_trl
from pamdp.config import CloneConfig, Config, RLConfig
from pamdp.learner import Learner
from pamdp.models.actor import Actor
from pamdp.models.critics import DualCritic
from pamdp.models.features import FeatureStore
from pamdp.models.policy import Policy, path
from pamdp.rl.returns import max_value
from pamdp.train.factory import new_policy
from pamdp.transitions import Rollout, Transition, to_batch

STORED = 2000
"""Replies of an offline run."""
EPOCHS = 5
"""Passes over them, in batches of 32 (Table 4)."""
HORIZON = 6
DEFAULT = Options(users=8, turns=4, tokens=48, batch=8, replies=4)
QUICK = Options(users=2, turns=2, tokens=16, batch=2, replies=4, repeats=1)


def ours(options: Options) -> Prepared:
    """Read STORED replies and learn from them."""
    backbone, chosen = inputs.backbone(), inputs.dialogues(options)
    policy = new_policy(backbone, Config(clone=CloneConfig(backbone="frozen")))
    actor, rl = policy.trained_planner.actor, RLConfig(samples=options.replies, epochs=EPOCHS, batch_size=32)
    with torch.no_grad():
        prefixes = [policy.prefix(path(d), shallow=True) for d in chosen]
        states = torch.stack([policy.features(p, t) for p in prefixes for t in range(len(p.encoded.heads))])
    actor.whiten.fit(states)
    actor.sigma.fill_(0.5)
    count = STORED // options.replies
    store = FeatureStore(Path(tempfile.mkdtemp(prefix="pamdp-benchmark")))
    generator = torch.Generator().manual_seed(0)
    for start in range(0, count, HORIZON):
        rows = states[torch.arange(start, min(start + HORIZON, count)) % len(states)]
        noise = torch.randn(2, *rows.shape, generator=generator)
        reward = torch.rand(len(rows), options.replies, generator=generator) * 2 - 1
        action = torch.randn(len(rows), options.replies, actor.a1.out_features, generator=generator)
        store.get([start], lambda r=rows, n=noise, a=action, w=reward: {  # type: ignore[misc]
            "h": r + n[0], "hw": r + n[1], "action": a, "reward": w,
        })  # fmt: skip

    def work() -> Facts:
        start = time.perf_counter()
        batch = to_batch([_rollout(store, first, actor, count) for first in range(0, count, HORIZON)])
        read = time.perf_counter() - start
        critics = DualCritic(policy.width, policy.width, max_value(1.0, rl.gamma, rl.horizon))
        learner = Learner(actor, critics, rl)
        learner.fit(batch)
        log = learner.update(batch, torch.Generator().manual_seed(0))
        return {"replies": len(batch.state), "epochs": len(log), "read_s": round(read, 3)}

    return Prepared(backbone.model, work, count)


def _rollout(store: FeatureStore, first: int, actor: Actor, count: int) -> Rollout:
    """One stored dialogue; its last state ends it."""
    found = store.get([first], dict)
    names = [(str(first), t) for t in range(min(HORIZON, count - first))]
    with torch.no_grad():
        mean = actor(found["h"])
    transitions = [
        Transition(
            *names[t], k, "", action, mean[t], float(actor.sigma), reward, names[t + 1] if t + 1 < len(names) else None
        )
        for t in range(len(names))
        for k, (action, reward) in enumerate(zip(found["action"][t], found["reward"][t].tolist(), strict=True))
    ]
    return Rollout(
        transitions, {}, dict(zip(names, found["h"], strict=True)), dict(zip(names, found["hw"], strict=True))
    )


def grpo(options: Options) -> Prepared:
    """One step of TRL's GRPOTrainer on as many prompts as a batch holds, each with a group of replies."""
    require_trl()
    from transformers.trainer_callback import PrinterCallback

    backbone, chosen = inputs.plain_backbone(), inputs.dialogues(options)
    system = Policy(backbone).system
    prompts = [messages(d.history(t), system) for d in chosen for t in range(len(d.turns))][: options.batch]
    config = GrpoConfig(epochs=1, batch_size=len(prompts))
    ended: list[float] = []

    def reward(completions: Sequence[Sequence[Mapping[str, str]]], **_: object) -> list[float]:
        ended.append(time.perf_counter())
        return [float(len(said[0]["content"])) for said in completions]

    trainer = make_trainer(
        "GRPO", backbone, [{"prompt": prompt} for prompt in prompts], config,
        Path(tempfile.mkdtemp(prefix="pamdp-benchmark")), 0, given={"reward_funcs": reward},
        per_device_train_batch_size=options.replies, max_steps=1,
        loss_type="grpo", beta=config.beta, num_generations=options.replies, max_completion_length=options.tokens,
        temperature=config.temperature,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)

    def work() -> Facts:
        start = time.perf_counter()
        trainer.train()
        return {"writing_s": round(ended[-1] - start, 2), "steps": trainer.state.global_step}

    return Prepared(backbone.model, work, len(prompts))


def whole_run(run: Mapping[str, Measured]) -> Facts:
    """The offline run as a whole, and the ratio without the peer's writing of replies."""
    mine, peer = run["ours"], run["TRL, GRPO"]
    writing = peer.facts["writing_s"]
    assert isinstance(writing, float)
    update_only = ((peer.seconds - writing) / peer.units) / (mine.seconds / mine.units)
    return {
        "offline_run": {"seconds": round(mine.seconds, 2), "target_seconds": 20, **mine.facts},
        "update_only": {"ratio": round(update_only, 1), "peer_writing_s": writing},
    }


if __name__ == "__main__":
    main("learner", {"ours": ours, "TRL, GRPO": grpo}, [Duel("ours", "TRL, GRPO", 100.0)], DEFAULT, QUICK, whole_run)

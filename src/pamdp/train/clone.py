"""`pamdp train bc`: the main loop of behaviour cloning.

Owns order, checkpoints, validation and logs. The step itself is Cloner in train/bc.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pamdp import checkpoint, ranks
from pamdp.config import Config
from pamdp.models.adapters import train_backbone
from pamdp.models.features import FeatureStore
from pamdp.models.policy import Policy, path
from pamdp.models.recorded import mean_actions, reference_log_probs, totals_of
from pamdp.progress import Progress
from pamdp.runs import Run
from pamdp.train.bc import Cloner
from pamdp.train.examples import CloneExample, with_synthetic_rejected, within_context
from pamdp.train.factory import policy_weights, save_policy, set_weights
from pamdp.train.parallel import require_launch
from pamdp.train.positions import fitting
from pamdp.train.ridge import Ridge
from pamdp.types import Dialogue, PreferencePair


def clone(
    policy: Policy,
    train: Sequence[Dialogue],
    test: Sequence[Dialogue],
    config: Config,
    run: Run,
    pairs: Sequence[PreferencePair] = (),
    store: FeatureStore | None = None,
) -> Policy:
    """Clone POLICY on TRAIN, resuming from the run's last checkpoint; TEST is only ever measured.

    POLICY is one that nobody has trained yet (factory.new_policy): it is what learns.

    Args:
      pairs: their replies teach what actions mean.
      store: keeps features across runs.

    Returns:
      The cloned policy, also written to RUN/policy.
    """
    settings = config.clone
    require_launch(policy.backbone.identity["quantization"])
    chat, limit = policy.backbone.chat, settings.max_context
    train, test = (fitting(policy, within_context(chat, part, limit, policy.system)) for part in (train, test))
    pairs = [replace(pair, history=policy.fitted(pair.history)) for pair in pairs]
    if settings.rejected == "backbone":
        train = with_synthetic_rejected(policy, train, settings.max_reply)
    cloner = Cloner(policy, settings, store)
    rng, generator = random.Random(config.seed), torch.Generator().manual_seed(config.seed)
    folder = run.path / "checkpoints" / "clone"
    with Progress("features", len(train) + len(pairs), share=True) as bar:
        examples, fitted = cloner.prepare(train, pairs, bar.advance)
    order = _order(examples, settings.epochs, random.Random(config.seed))
    total = -(-len(order) // settings.batch_size)
    done = checkpoint.latest(folder)
    ranks.require_same("last checkpoint", None if done is None else done.name)
    if done is not None:
        _restore(cloner, checkpoint.load(done), rng, generator)
    run.rewind(cloner.step, "clone")
    with Progress("cloning", total, cloner.step) as bar:
        while cloner.step < total:
            chosen = order[cloner.step * settings.batch_size :][: settings.batch_size]
            log = cloner.update([examples[i] for i in chosen], rng, generator, total)
            run.log(cloner.step, log, "clone")
            bar.advance(1, f"nll {log['nll']:.3f}")
            if cloner.step % settings.save_every == 0 or cloner.step == total:
                _save(cloner, folder, rng, generator)
    cloner.parallel.end()
    if cloner.late:
        with Progress("directions", len(train) + len(pairs), share=True) as bar:
            examples, fitted = cloner.prepare(train, pairs, bar.advance, done=True)
    for log in _of_fit(fitted, settings.steer):
        run.log(cloner.step, log, "clone")
    _set_sigma(policy, examples, config, train)
    if test:
        run.log(cloner.step, {f"test_{k}": v for k, v in held_out_nll(policy, test).items()}, "clone")
    train_backbone(policy.backbone, "frozen")
    cloned = replace(policy, config=config, users=frozenset(d.user_id for d in train))
    save_policy(cloned, run.path / "policy")
    return cloned


def _of_fit(fitted: Ridge | None, steer: float) -> Iterator[dict[str, float]]:
    """What is logged of A1's fit."""
    if fitted is not None:
        yield {"a1_r2": fitted.r2, "a1_penalty": fitted.penalty}
    if steer:
        yield {"steered": float(fitted is not None)}


@torch.no_grad()
def _set_sigma(policy: Policy, examples: Sequence[CloneExample], config: Config, train: Sequence[Dialogue]) -> None:
    """σ relative to the RMS of the cloned action over the training states."""
    actor = policy.trained_planner.actor
    known = [e.states for e in examples if e.cloned and e.states is not None]
    states = torch.cat(known or [
        torch.stack([policy.features(prefix, t) for t in range(len(dialogue.turns))])
        for dialogue in train
        for prefix in [policy.prefix(path(dialogue), shallow=True)]
    ])  # fmt: skip
    actor.sigma.fill_(config.rl.sigma * float(actor(states).square().mean().sqrt()))


def held_out_nll(policy: Policy, dialogues: Sequence[Dialogue]) -> dict[str, float]:
    """Reference NLL per token under the state's own action, another user's and the mean action."""
    own = mean_actions(policy, dialogues)
    mean = torch.stack(list(own.values())).mean(0)
    sums, tokens = dict.fromkeys(("nll", "nll_other", "nll_mean"), 0.0), 0
    for i, dialogue in enumerate(dialogues):
        other = dialogues[(i + 1) % len(dialogues)]
        keys = [(dialogue.id, t) for t in range(len(dialogue.turns))]
        others = {key: own[other.id, min(key[1], len(other.turns) - 1)] for key in keys}
        found = reference_log_probs(policy, dialogue, own, others, dict.fromkeys(keys, mean))
        for scores, totals in zip(found.values(), totals_of(found.values()), strict=True):
            for name, total in zip(sums, totals, strict=True):
                sums[name] -= total
            tokens += len(scores[0])
    return {name: value / max(tokens, 1) for name, value in sums.items()}


def _order(examples: Sequence[CloneExample], epochs: int, rng: random.Random) -> list[int]:
    """Which example comes when: a dialogue once an epoch, a pair once in all (there are many, and all are alike)."""
    pairs = [i for i, example in enumerate(examples) if not example.cloned]
    rng.shuffle(pairs)
    order: list[int] = []
    for epoch in range(epochs):
        part = [i for i, example in enumerate(examples) if example.cloned] + pairs[epoch::epochs]
        rng.shuffle(part)
        order += part
    return order


def _save(cloner: Cloner, folder: Path, rng: random.Random, generator: torch.Generator) -> None:
    parallel = cloner.parallel
    weights = {
        group: {name: parallel.whole(tensor) for name, tensor in tensors.items()}
        for group, tensors in policy_weights(parallel.policy).items()
    }
    state: dict[str, checkpoint.Tree] = {"random": rng.getstate(), "generator": generator.get_state()}
    checkpoint.save(folder, cloner.step, weights, state | cloner.state())  # type: ignore[arg-type]  # whole tensors


def _restore(cloner: Cloner, saved: checkpoint.Checkpoint, rng: random.Random, generator: torch.Generator) -> None:
    set_weights(cloner.policy, dict(saved.weights))
    cloner.load_state(saved.state)
    # What was stored comes back equal, but as a Tree: its own type is lost on the way.
    rng.setstate(saved.state["random"])  # type: ignore[arg-type]
    generator.set_state(saved.state["generator"])  # type: ignore[arg-type]
    cloner.step = saved.step

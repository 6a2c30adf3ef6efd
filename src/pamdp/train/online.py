"""`pamdp train online`: reinforcement learning from dialogues with simulated users (paper, section 4.2).

Owns the simulated source of rollouts (whose turn it is in a round), and the record of where a policy came from. The
loop is reinforce.py's. Dialogues go where the assistant's replies take them, so there is one reply for each state.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pamdp import ranks
from pamdp.config import Config
from pamdp.env.dialogue import DialogueEnv
from pamdp.env.reward import References, Reward
from pamdp.errors import RunError
from pamdp.files import Json, write_json
from pamdp.judges.base import forget
from pamdp.models.backbone import Backbone
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy
from pamdp.progress import Progress
from pamdp.rollout import collect
from pamdp.rollout_shards import played
from pamdp.runs import Run
from pamdp.seeds import seed_of
from pamdp.train.calls import Calls
from pamdp.train.env_factory import EnvFactory
from pamdp.train.factory import policy_weights, vanilla
from pamdp.train.positions import require_positions
from pamdp.train.reinforce import reinforce
from pamdp.transitions import Rollout
from pamdp.types import Dialogue, TimeStep

STAGE = "online"
ORIGIN = "origin.json"
"""Who taught a policy, and which cloned one it was: settings do not say which users a share or a count came to."""


def online(
    policy: Policy,
    dialogues: Sequence[Dialogue],
    world: EnvFactory,
    config: Config,
    run: Run,
    bare: Backbone | None = None,
) -> Policy:
    """Improve a cloned POLICY by talking with the users of some dialogues; resumes at the turn it stopped at.

    All else is as in `reinforce`; BARE is for `vanilla` references. An EndpointError where a model cannot be reached;
    what is done is saved.
    """
    require_positions(policy, dialogues, config)
    calls = Calls(run, world.ledger, lambda: world.fingerprints(dialogues))
    references = _references(policy, world, config, bare)
    if not ranks.rank() and not (origin := run.path / ORIGIN).is_file():  # a resumed run comes from where it came from
        write_json(origin, provenance_of(policy, dialogues))
    source = _Simulated(dialogues, world, config, calls, references)
    try:
        return reinforce(
            policy, dialogues, source.collect, config.online.rounds, config, run, STAGE, source.scalars, calls.learned
        )
    finally:
        calls.save()


def users_of(dialogues: Sequence[Dialogue], step: int, users: int, seed: int) -> list[Dialogue]:
    """The users of round STEP: all take their turns, in an order that changes whenever all had theirs."""
    n = min(users, len(dialogues))
    rounds = len(dialogues) // n
    order = list(dialogues)
    random.Random(seed_of(seed, "users", step // rounds)).shuffle(order)
    return order[(step % rounds) * n :][:n]


@dataclass(slots=True)
class _Simulated:
    dialogues: Sequence[Dialogue]
    world: EnvFactory
    config: Config
    calls: Calls
    references: References
    last: dict[str, float] = field(default_factory=dict)

    def collect(self, policy: Policy, step: int) -> list[Rollout]:
        online, settings = self.config.online, self.config.rl
        chosen = users_of(self.dialogues, step, online.users, self.config.seed)
        seed = self.config.seed + 1000 * (step + 1)
        forget(self.world.judge)
        reward = Reward(self.world.judge, self.references, settings.soft)
        users = [self.world.user(d, seed) for d in chosen]
        total = len(chosen) * settings.horizon
        with (
            self.calls.journal(step) as journal,
            Progress(f"round {step + 1}/{online.rounds}", total, len(journal.turns), share=True) as bar,
        ):
            rollout = played(
                users,
                lambda own: collect(
                    policy, DialogueEnv(own, reward, settings.horizon),
                    Sampling(settings.max_reply, settings.temperature), privileged={}, seed=seed, groups=online.groups,
                    scored=settings.gradient == "reply", journal=journal, progress=bar.advance,
                ),
                online.groups,
            )  # fmt: skip
        self.last = returns(rollout) | {f"{name}_failures": float(n) for name, n in failures(rollout).items()}
        return [rollout]

    def scalars(self) -> dict[str, float]:
        return self.last | self.calls.total().scalars()


def returns(rollout: Rollout) -> dict[str, float]:
    """Mean reward at each turn and their sum: the return of a dialogue, undiscounted as in Table 3; masked ones out."""
    turns: dict[int, list[float]] = {}
    for transition in rollout.transitions:
        if transition.reward is not None:
            turns.setdefault(transition.t, []).append(transition.reward)
    means = {t: sum(values) / len(values) for t, values in sorted(turns.items())}
    return {f"reward_{t + 1}": mean for t, mean in means.items()} | {"return": sum(means.values())}


def failures(rollout: Rollout) -> dict[str, int]:
    """How often the user, its profile or the reward could not be had, by "user", "profile" and "judge".

    It is told from what the journal keeps, so a round that was taken up again counts like one that was not. A masked
    reply whose user or profile failed as well counts there and not for the judge.
    """
    return {
        "user": sum(moment.stock for moment in rollout.moments.values()),
        "profile": sum(not moment.known for moment in rollout.moments.values()),
        "judge": sum(t.reward is None and rollout.answered(t) for t in rollout.transitions),
    }


def _references(policy: Policy, world: EnvFactory, config: Config, bare: Backbone | None) -> References:
    """Who writes u_g: a model of the world, or the cloned policy or Vanilla under the mean action."""
    if world.writer is not None:
        return world.writer
    author = vanilla(policy, bare, config, "online") if config.online.reference == "vanilla" else policy

    def write(steps: Sequence[TimeStep]) -> list[list[str]]:
        return [[u] for u in author.replies([step.history for step in steps], Sampling(config.rl.max_reply))]

    return write


def provenance_of(policy: Policy, dialogues: Sequence[Dialogue]) -> dict[str, Json]:
    """What POLICY is about to become: users that teach it, ids of their records, sha256 of its weights."""
    digest = hashlib.sha256()
    for group, weights in sorted(policy_weights(policy).items()):
        for name, tensor in sorted(weights.items()):
            digest.update(json.dumps([group, name, list(tensor.shape)]).encode())
            # As bytes: not every kind of number has a counterpart in numpy.
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    users = sorted({d.user_id for d in dialogues})
    return {"users": users, "dialogues": [d.id for d in dialogues], "policy": digest.hexdigest()}


def read_provenance(path: Path) -> dict[str, Json]:
    """What is stored in the run at PATH; a RunError where nothing is, or it is damaged."""
    try:
        return dict(json.loads((path / ORIGIN).read_bytes()))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} does not say who taught it ({ORIGIN}: {error}); train it anew") from error

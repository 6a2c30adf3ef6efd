"""`pamdp train online`: reinforcement learning from dialogues with simulated users (paper, section 4.2).

Owns the simulated source of rollouts (whose turn it is in a round), and the record of where a policy came from. The
loop is reinforce.py's. Dialogues go where the assistant's replies take them, so there is one reply for each state.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from pamdp import ranks, shards
from pamdp.config import Config
from pamdp.env.dialogue import DialogueEnv
from pamdp.env.reward import References, Reward
from pamdp.errors import RunError
from pamdp.files import Json, write_json
from pamdp.journal import Journal
from pamdp.launch import Launcher, Local, Tell
from pamdp.models.backbone import Backbone
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy
from pamdp.progress import Progress
from pamdp.rollout import collect
from pamdp.runs import Run
from pamdp.seeds import seed_of
from pamdp.train.calls import Calls
from pamdp.train.env_factory import EnvFactory
from pamdp.train.factory import policy_weights, vanilla
from pamdp.train.positions import require_positions
from pamdp.train.reinforce import reinforce
from pamdp.train.site import Known, Round, Site, listener, named
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
    launcher: Launcher[Site] | None = None,
) -> Policy:
    """Improve a cloned POLICY by talking with the users of some dialogues; resumes at the turn it stopped at.

    All else is as in `reinforce`; BARE is for `vanilla` references. An EndpointError where a model cannot be reached;
    what is done is saved. LAUNCHER: who plays the dialogues; None: this process.
    """
    require_positions(policy, dialogues, config)
    calls = Calls(run, world.ledger, lambda: world.fingerprints(dialogues))
    if not ranks.rank() and not (origin := run.path / ORIGIN).is_file():  # a resumed run comes from where it came from
        write_json(origin, provenance_of(policy, dialogues))
    launcher = launcher or Local(Site(policy, bare, world.ledger, world))
    _references(policy, world, config, bare)  # refused now where Vanilla cannot write them
    source = _Simulated(dialogues, world, config, calls, launcher)
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
    launcher: Launcher[Site]
    last: dict[str, float] = field(default_factory=dict)

    def collect(self, policy: Policy, step: int) -> list[Rollout]:
        online, settings = self.config.online, self.config.rl
        chosen = users_of(self.dialogues, step, online.users, self.config.seed)
        seed = self.config.seed + 1000 * (step + 1)
        written = self.world.writer is not None
        total = len(chosen) * settings.horizon
        with (
            self.calls.journal(step) as journal,
            Progress(f"round {step + 1}/{online.rounds}", total, len(journal.turns), share=True) as bar,
        ):
            shared = Round(named(policy, self.launcher), self.config, seed, written=written)
            rollout = played(self.launcher, shared, chosen, journal, bar.advance)
        self.last = returns(rollout) | {f"{name}_failures": float(n) for name, n in failures(rollout).items()}
        return [rollout]

    def scalars(self) -> dict[str, float]:
        return self.last | self.calls.total().scalars()


def played(
    launcher: Launcher[Site],
    shared: Round,
    dialogues: Sequence[Dialogue],
    journal: Journal | None = None,
    progress: Callable[[int, str], None] = lambda *_: None,
) -> Rollout:
    """Dialogues with the users of DIALOGUES: the same, whoever plays which of them.

    The setting `online.groups` is of all of them together: each of several workers has its part of the groups.
    """

    def part(some: Sequence[Dialogue]) -> tuple[Sequence[Dialogue], Known | None, int]:
        return some, Known.of(journal, some) if journal else None, max(1, groups // parts)

    groups, parts = shared.config.online.groups, max(launcher.workers, 1)
    items = [partial(part, some) for some in shards.deal(dialogues, parts)]
    found = launcher.map(play, shared, items, listener(launcher, journal, progress))
    return found[0] if len(found) == 1 else shards.merged(found, [d.id for d in dialogues], groups)


def play(site: Site, shared: Round, part: tuple[Sequence[Dialogue], Known | None, int], tell: Tell) -> Rollout:
    """Play some dialogues of a round at a site, with the users of its world; see `collect`."""
    assert site.world is not None
    world, config = replace(site.world, config=shared.config), shared.config
    (dialogues, known, groups), settings = part, config.rl
    policy, reward = site.policy_of(shared.policy), None
    if shared.learns:
        site.begin(shared.name, world.judge)
        references = _references(site.policy, world, config, site.bare, shared.written)
        reward = Reward(world.judge, references, settings.soft)
    learns, journal = shared.learns, known.telling(tell) if known else None
    return shards.played(
        [world.user(d, shared.seed) for d in dialogues],
        lambda own: collect(
            policy, DialogueEnv(own, reward, settings.horizon),
            Sampling(settings.max_reply, settings.temperature if learns else 0.0), explore=learns,
            privileged={} if learns else None, seed=shared.seed, groups=groups,
            scored=learns and settings.gradient == "reply", journal=journal, progress=tell,
        ),
        groups,
    )  # fmt: skip


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


def _references(
    policy: Policy, world: EnvFactory, config: Config, bare: Backbone | None, written: bool = True
) -> References:
    """Who writes u_g: a model of the world, or the cloned policy or Vanilla under the mean action."""
    if written and world.writer is not None:
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

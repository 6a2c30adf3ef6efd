"""`pamdp train offline`: reinforcement learning on recorded dialogues (paper, section 4.1).

Owns the recorded source of rollouts. States are the dataset's histories along the chosen path; the actor draws actions,
the backbone writes, a judge compares with the reference u_g, h′ is the dataset's next history. The loop is that of
reinforce.py. Verdicts that have to be waited for are asked for at the same time, and a turn that has them all is stored
(journal.py): a round that was killed goes on there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from pamdp.config import Config, RLConfig
from pamdp.env.dialogue import DialogueEnv
from pamdp.env.reward import Reward
from pamdp.env.user import RecordedUser
from pamdp.journal import Turns
from pamdp.judges.base import Judge, LiveJudge, in_role
from pamdp.launch import Launcher, Local, Tell
from pamdp.llm.ledger import Ledger
from pamdp.models.backbone import Backbone
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy
from pamdp.progress import Progress
from pamdp.rollout import collect
from pamdp.runs import Run
from pamdp.shards import blocks, played
from pamdp.train.calls import Calls
from pamdp.train.factory import vanilla
from pamdp.train.positions import fitting
from pamdp.train.reinforce import reinforce
from pamdp.train.site import Known, Round, Site, listener, named, replies_to
from pamdp.transitions import Rollout
from pamdp.types import Dialogue, History

REWARD = "reward"
"""Name of the judge who rewards, among those of a site."""


def offline(
    policy: Policy,
    dialogues: Sequence[Dialogue],
    judge: Judge,
    config: Config,
    run: Run,
    folder: str = "offline",
    bare: Backbone | None = None,
    ledger: Ledger | None = None,
    launcher: Launcher[Site] | None = None,
) -> Policy:
    """Improve a cloned POLICY on recorded dialogues, as `reinforce` does; BARE is for `vanilla` references.

    LEDGER is the account of a judge that is asked; an EndpointError where it cannot be reached; what is done is saved.
    LAUNCHER: who writes and judges replies; None: this process.
    """
    dialogues = fitting(policy, dialogues)
    launcher = launcher or Local(Site(policy, bare, ledger or Ledger(), judges={REWARD: judge}))
    references = reference_replies(policy, dialogues, config, bare, launcher)
    states, privileged = sum(len(d.turns) for d in dialogues), dict[tuple[str, int], Tensor]()
    # Verdicts of a model here are found anew: their last digits may depend on what is scored beside them.
    calls = Calls(run, ledger or Ledger(), lambda: [in_role(judge, "reward")]) if isinstance(judge, LiveJudge) else None
    failed = dict[str, float]()

    def with_failures(found: list[Rollout]) -> list[Rollout]:
        masked = (r.moments[t.key, t.t].history for r in found for t in r.transitions if t.reward is None)
        failed["judge_failures"] = float(sum(bool(references[history]) for history in masked))
        return found

    def rollouts(policy: Policy, step: int) -> list[Rollout]:
        seed, samples = config.seed + 1000 * (step + 1), config.rl.samples
        with calls.journal(step) if calls else nullcontext() as journal:
            done = len(journal.turns) * samples if journal else 0

            def part(some: Sequence[Dialogue]) -> _Part:
                ids = {d.id for d in some}
                told = {d.history(t): references[d.history(t)] for d in some for t in range(len(d.turns))}
                known = {state: x for state, x in privileged.items() if state[0] in ids}
                return _Part(some, told, known, Known.of(journal, some) if journal else None)

            with Progress(f"round {step + 1}/{config.rl.rounds}", states * samples, done, share=True) as bar:
                parts = blocks(dialogues, launcher.workers, config.rl.dialogues if launcher.workers else len(dialogues))
                found = launcher.map(
                    play, Round(named(policy, launcher), config, seed), [partial(part, some) for some in parts],
                    listener(launcher, journal, bar.advance),
                )  # fmt: skip
        out = [rollout for rollouts in found for rollout in rollouts]
        privileged.update((state, x) for rollout in out for state, x in rollout.features_hw.items())
        return with_failures(out)

    def scalars() -> dict[str, float]:
        return failed | calls.total().scalars() if calls else {}

    try:
        return reinforce(
            policy, dialogues, rollouts, config.rl.rounds, config, run, folder, scalars,
            calls.learned if calls else lambda _: None,
        )  # fmt: skip
    finally:
        if calls:
            calls.save()


@dataclass(frozen=True, slots=True)
class _Part:
    """Dialogues of a round, u_g of their states, their known H(h, ω), and what was played of them."""

    dialogues: Sequence[Dialogue]
    references: Mapping[History, Sequence[str]]
    privileged: dict[tuple[str, int], Tensor]
    known: Known | None


def play(site: Site, shared: Round, part: _Part, tell: Tell) -> list[Rollout]:
    """Replies to the states of some dialogues at a site, rewarded by its judge."""
    judge, config = site.judges[REWARD], shared.config
    site.begin(shared.name, judge)
    return rollout_recorded(
        site.policy_of(shared.policy), part.dialogues, config.rl, Reward(judge, part.references, config.rl.soft),
        part.privileged, seed=shared.seed, progress=tell, journal=part.known.telling(tell) if part.known else None,
        groups=config.online.groups if isinstance(judge, LiveJudge) else 1,
    )  # fmt: skip


def rollout_recorded(
    policy: Policy,
    dialogues: Sequence[Dialogue],
    config: RLConfig,
    reward: Reward | None = None,
    privileged: dict[tuple[str, int], Tensor] | None = None,
    *,
    seed: int,
    progress: Callable[[int], None] | None = None,
    journal: Turns | None = None,
    groups: int = 1,
) -> list[Rollout]:
    """`config.samples` explored replies to every state along the chosen paths, in batches that fit in memory.

    Args:
      reward: None: replies are not rewarded.
      privileged: also give H(h, ω); features that are known, to which new ones are added.
      journal, groups: as of `collect`.
    """
    users = [RecordedUser(dialogue, config.profile == "inferred") for dialogue in dialogues]
    return [
        played(
            users[start : start + config.dialogues],
            lambda own: collect(
                policy, DialogueEnv(own, reward), Sampling(config.max_reply, config.temperature),
                samples=config.samples, privileged=privileged, seed=seed, progress=progress, journal=journal,
                scored=config.gradient == "reply" and reward is not None, groups=groups,
            ),
            groups,
        )
        for start in range(0, len(users), config.dialogues)
    ]  # fmt: skip


def reference_replies(
    policy: Policy,
    dialogues: Sequence[Dialogue],
    config: Config,
    bare: Backbone | None = None,
    launcher: Launcher[Site] | None = None,
) -> dict[History, list[str]]:
    """u_g for every state: the cloned policy's own reply, Vanilla's (see `vanilla`), or the record's preferred one."""
    if config.rl.reference == "preferred":
        # A turn without a preferred reply has nothing to compare with: its reward is None.
        return {
            d.history(t): [turn.preferred] if turn.preferred else []
            for d in dialogues
            for t, turn in enumerate(d.turns)
        }
    writer = vanilla(policy, bare, config, "rl") if config.rl.reference == "vanilla" else policy
    replies = replies_to(launcher or Local(Site(policy)), writer, dialogues, config.rl.max_reply, "references")
    return {d.history(t): [replies[d.id, t]] for d in dialogues for t in range(len(d.turns))}


def drawn_replies(policy: Policy, dialogues: Sequence[Dialogue], config: Config) -> list[tuple[History, list[str]]]:
    """The replies that a first round of learning would draw, for scorers that learn what a model's replies are like."""
    with Progress("drawing", sum(len(d.turns) for d in dialogues) * config.rl.samples, share=True) as bar:
        drawn = rollout_recorded(policy, dialogues, config.rl, seed=config.seed + 1000, progress=bar.advance)
    out: dict[History, list[str]] = {}
    for rollout in drawn:
        for t in rollout.transitions:
            out.setdefault(rollout.moments[t.key, t.t].history, []).append(t.reply)
    return list(out.items())

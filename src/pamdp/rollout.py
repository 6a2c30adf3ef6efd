"""One rollout for every kind of user: policies reply, environments answer, transitions come out.

Owns batching, prefix reuse across turns and the features that learning needs. Knows nothing of advantages or of who the
user is. Each state's actions and tokens come from seeds of its own, so results do not depend on the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pamdp.env.dialogue import DialogueEnv
from pamdp.models.backbone import Prefix
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy, Request
from pamdp.prompts.render import render
from pamdp.types import TimeStep


@dataclass(frozen=True, slots=True)
class Transition:
    """One reply and what came of it.

    Attributes:
      key, t, k: dialogue, turn and sample.
      action: a, [d_a]; None where the policy has no planner.
      mean: mean of the action's distribution when it was drawn, [d_a].
      reward: r, or None: masked.
      next: (dialogue, turn) of h′, or None where the dialogue ended for good.
    """

    key: str
    t: int
    k: int
    reply: str
    action: Tensor | None
    mean: Tensor | None
    reward: float | None
    next: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class Rollout:
    """Transitions, and the features of every state that they name."""

    transitions: list[Transition]
    moments: dict[tuple[str, int], TimeStep]
    features_h: dict[tuple[str, int], Tensor]
    features_hw: dict[tuple[str, int], Tensor]


def seed_of(*parts: object) -> int:
    """A 63-bit seed from names and numbers, the same on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@torch.no_grad()
def collect(
    policy: Policy,
    env: DialogueEnv,
    sampling: Sampling,
    *,
    samples: int = 1,
    explore: bool = True,
    privileged: dict[tuple[str, int], Tensor] | None = None,
    seed: int = 0,
    batch: int = 64,
    progress: Callable[[int], None] | None = None,
) -> Rollout:
    """Play every dialogue of ENV to its end or horizon.

    Args:
      samples: replies for each state; the first one is said (with a recorded user all are alternatives).
      explore: draw a ~ q(a|h); otherwise the mean action.
      privileged: also give H(h, ω), for the critic that sees the profile: known features by (dialogue, turn), to which
        new ones are added; None computes none.
      progress: called with the number of replies just written.
    """
    moments = env.reset()
    prefixes: dict[str, Prefix] = {}
    seen: dict[str, Prefix] = {}
    out = Rollout([], {}, {}, {})
    while moments:
        for moment in moments:
            _features(policy, moment, prefixes, seen, privileged, out)
        waves = [_actions(policy, moment, out, samples, explore, seed) for moment in moments]
        requests = [
            Request(i, -1, None if action is None else action, seed_of(seed, moment.key, moment.t, k))
            for i, (moment, (_, actions)) in enumerate(zip(moments, waves, strict=True))
            for k, action in enumerate(actions)
        ]
        replies = policy.write([prefixes[m.key] for m in moments], requests, sampling, batch, progress)
        groups = [replies[i : i + samples] for i in range(0, len(replies), samples)]
        following = []
        for moment, (mean, actions), group, outcomes in zip(
            moments, waves, groups, env.step(moments, groups), strict=True
        ):
            after = outcomes[0].next
            name = None if after is None else (after.key, after.t)
            for k, (reply, action, outcome) in enumerate(zip(group, actions, outcomes, strict=True)):
                out.transitions.append(Transition(moment.key, moment.t, k, reply, action, mean, outcome.reward, name))
            if after is not None:
                if outcomes[0].truncated:
                    _features(policy, after, prefixes, seen, privileged, out)
                else:
                    following.append(after)
        done = {m.key for m in moments} - {m.key for m in following}
        for key in done:
            prefixes.pop(key, None)
            seen.pop(key, None)
        moments = following
    return out


def _features(
    policy: Policy,
    moment: TimeStep,
    prefixes: dict[str, Prefix],
    seen: dict[str, Prefix],
    privileged: dict[tuple[str, int], Tensor] | None,
    out: Rollout,
) -> None:
    """H(h) and H(h, ω) of a moment; prefixes of the same dialogue are extended, not computed again."""
    name = (moment.key, moment.t)
    out.moments[name] = moment
    prefixes[moment.key] = prefix = policy.prefix(moment.history, prefixes.get(moment.key))
    out.features_h[name] = policy.features(prefix)
    if privileged is None:
        return
    if name not in privileged:
        with policy.backbone.adapter(policy.adapter):
            privileged[name], seen[moment.key] = observe(policy, moment, seen.get(moment.key))
    out.features_hw[name] = privileged[name]


def observe(policy: Policy, moment: TimeStep, before: Prefix | None = None) -> tuple[Tensor, Prefix]:
    """H(h, ω): the history again, with the profile in front; for critics only."""
    system = render("assistant_for", persona=moment.privileged.text)
    encoded = policy.backbone.chat.history(moment.history, system)
    if before is not None and encoded.ids[: len(before.encoded.ids)] != before.encoded.ids:
        before = None  # the profile changed since the last turn
    prefix = policy.backbone.prefix(encoded, policy.readout.layer, before)
    return policy.features(prefix), prefix


def _actions(
    policy: Policy, moment: TimeStep, out: Rollout, samples: int, explore: bool, seed: int
) -> tuple[Tensor | None, Sequence[Tensor | None]]:
    if policy.planner is None:
        return None, [None] * samples
    actor = policy.planner.actor
    mean = actor(out.features_h[moment.key, moment.t])
    if not explore:
        return mean, [mean] * samples
    generator = torch.Generator().manual_seed(seed_of(seed, "action", moment.key, moment.t))
    noise = torch.randn(samples, len(mean), generator=generator).to(mean)
    return mean, list(mean + actor.sigma * noise)

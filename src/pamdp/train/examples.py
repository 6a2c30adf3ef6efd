"""What cloning learns from: dialogues and preference pairs as tokens, with features that are computed once.

Owns examples and the fit of the whitenings on them. Knows nothing of losses and steps (bc.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pamdp.config import CloneConfig
from pamdp.models.features import FeatureStore
from pamdp.models.packing import Branch, reply_features
from pamdp.models.policy import Policy, path
from pamdp.models.posterior import Posterior
from pamdp.types import Dialogue, History, PreferencePair


@dataclass(frozen=True, slots=True)
class Example:
    """A history with what never changes while cloning: features of states and of replies.

    Attributes:
      messages: the whole chosen path of a dialogue, or the history of a preference pair.
      states: H(h_t) of every turn, [turns, width]; None where the gradient must reach H.
      replies: for every turn token ids of the preferred reply and, where there is one, of the rejected one.
      meanings: features of those replies for the posterior, [replies, d], of the turns that have any.
      cloned: whether A1 learns from it; a pair's history need not tell whose it is, so its replies only teach what
        actions mean.
    """

    messages: History
    states: Tensor | None
    replies: list[list[list[int]]]
    meanings: list[Tensor]
    cloned: bool = True


def prepare(
    policy: Policy,
    posterior: Posterior,
    config: CloneConfig,
    dialogues: Sequence[Dialogue],
    pairs: Sequence[PreferencePair] = (),
    store: FeatureStore | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Example]:
    """Examples with features from the policy as it is; fits the whitenings of its actor and of the posterior.

    Args:
      pairs: twins may be given whole: what two users prefer in one scene is learned once.
      store: keeps features across runs where nothing that learns can change them.
    """
    assert policy.planner is not None
    fixed = policy.fixed_features(config.backbone, config.lora_layers)
    kept = store if store is not None and fixed else FeatureStore(None)
    histories = [(path(d), [(turn.preferred, turn.rejected) for turn in d.turns], True) for d in dialogues]
    scenes = {(pair.history, frozenset((pair.preferred, pair.rejected))): pair for pair in pairs}
    for pair in scenes.values():
        earlier = sum(message.role == "user" for message in pair.history) - 1
        silent: list[tuple[str | None, str | None]] = [(None, None)] * earlier
        histories.append((pair.history, [*silent, (pair.preferred, pair.rejected)], False))
    examples = []
    for history in histories:
        examples.append(_example(policy, kept, config.max_reply, *history))
        if progress is not None:
            progress(1)
    states = torch.cat([e.states for e in examples if e.cloned and e.states is not None])
    policy.planner.actor.whiten.fit(states)
    posterior.whiten.fit(torch.cat([m for e in examples for m in e.meanings]))
    return examples if fixed else [replace(e, states=None) for e in examples]


def _example(
    policy: Policy,
    store: FeatureStore,
    longest: int,
    messages: History,
    texts: Sequence[tuple[str | None, str | None]],
    cloned: bool,
) -> Example:
    backbone = policy.backbone
    replies = [
        # Without a preferred reply there is nothing to clone: the first of a turn's replies is the one that is.
        [backbone.chat.reply(text)[:longest] for text in group if text] if group[0] else []
        for group in texts
    ]
    key = ("clone", backbone.revision, policy.readout, policy.system, messages, replies)
    found = store.get(key, lambda: _features(policy, messages, replies))
    meanings = torch.split(found["replies"], [len(group) for group in replies if group])
    return Example(messages, found["states"], replies, list(meanings), cloned)


@torch.no_grad()
def _features(policy: Policy, messages: History, replies: Sequence[Sequence[list[int]]]) -> dict[str, Tensor]:
    prefix = policy.prefix(messages, shallow=True)
    branches = [Branch(prefix.encoded.heads[t], ids) for t, group in enumerate(replies) for ids in group]
    with policy.backbone.adapter(policy.adapter):
        means = reply_features(policy.backbone, prefix, branches, policy.readout.layer)
    states = torch.stack([policy.features(prefix, t) for t in range(len(replies))])
    return {"states": states, "replies": torch.stack(means)}

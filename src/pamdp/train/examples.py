"""What cloning learns from: histories with their replies, and the features that never change meanwhile.

Owns the way from dialogues and preference pairs to examples, and what stands in for rejected replies. Knows nothing of
losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from pamdp import ranks
from pamdp.errors import DataError
from pamdp.models.chat import ChatEncoder
from pamdp.models.features import FeatureStore
from pamdp.models.packed_branches import Branch, reply_features
from pamdp.models.policy import Policy, path
from pamdp.models.recorded import greedy_replies
from pamdp.progress import Progress, note
from pamdp.types import Dialogue, History, PreferencePair, Turn


@dataclass(frozen=True, slots=True)
class CloneExample:
    """A history with what never changes while cloning: features of states and of replies.

    Attributes:
      messages: the whole chosen path of a dialogue, or the history of a preference pair.
      states: H(h_t) of every turn, [turns, width]; None where the gradient must reach H, or where left out.
      replies: for every turn token ids of the preferred reply and, where there is one, of the rejected one.
      meanings: features of those replies, [replies, d], for the turns that have any; [replies, 0] where left out.
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
    dialogues: Sequence[Dialogue],
    pairs: Sequence[PreferencePair],
    max_reply: int,
    store: FeatureStore | None,
    progress: Callable[[int], None] | None = None,
) -> list[CloneExample]:
    """Examples with features from the policy as it is; turns and dialogues without a preferred reply teach nothing.

    Twins among PAIRS may be given whole: what two users prefer in one scene is learned once. Without a STORE features
    are left out: nothing will ask for them. A DataError where no dialogue has a preferred reply.
    """
    told = [dialogue for dialogue in dialogues if any(turn.preferred for turn in dialogue.turns)]
    if not told:
        raise DataError("no training turn has a preferred reply", fix="cloning needs dialogues with good replies")
    histories = [(path(d), [(turn.preferred, turn.rejected) for turn in d.turns], True) for d in told]
    scenes = {(pair.history, frozenset((pair.preferred, pair.rejected))): pair for pair in pairs}
    for pair in scenes.values():
        earlier = sum(message.role == "user" for message in pair.history) - 1
        silent: list[tuple[str | None, str | None]] = [(None, None)] * earlier
        histories.append((pair.history, [*silent, (pair.preferred, pair.rejected)], False))
    chat = policy.backbone.chat
    replies = [
        [[chat.reply(text)[:max_reply] for text in group if text] if group[0] else [] for group in texts]
        for _, texts, _ in histories
    ]
    model = (policy.backbone.revision, *policy.backbone.numbers)

    def read(own: Sequence[int]) -> list[dict[str, Tensor]]:
        found = []
        for i in own:
            messages = histories[i][0]
            key = ("clone", *model, policy.readout, policy.system, messages, replies[i])
            found.append({} if store is None else store.get(key, partial(_features, policy, messages, replies[i])))
            if progress is not None:
                progress(1)
        return found

    found = ranks.shared(range(len(histories)), read)
    examples = []
    for i, (messages, _, cloned) in enumerate(histories):
        sizes = [len(group) for group in replies[i] if group]
        if store is None:
            examples.append(CloneExample(messages, None, replies[i], [torch.empty(n, 0) for n in sizes], cloned))
        else:
            states, means = (found[i][name].to(policy.backbone.device) for name in ("states", "replies"))
            examples.append(CloneExample(messages, states, replies[i], list(torch.split(means, sizes)), cloned))
    return examples


def within_context(chat: ChatEncoder, dialogues: Sequence[Dialogue], limit: int, system: str) -> tuple[Dialogue, ...]:
    """The dialogues, each cut before the first turn whose history, SYSTEM included, has more than LIMIT tokens.

    What is cut off is counted in a note; a DataError where nothing is left.
    """
    kept, cut = list[Dialogue](), 0
    for dialogue in dialogues:
        heads = chat.history(path(dialogue), system).heads
        fit = sum(head <= limit for head in heads)
        cut += len(heads) - fit
        if fit:
            kept.append(dialogue if fit == len(heads) else replace(dialogue, turns=dialogue.turns[:fit]))
    if dialogues and not kept:
        raise DataError(f"no history fits into {limit} tokens", fix="raise clone.max_context")
    if cut:
        note(f"clone.max_context={limit}: {cut} turns with longer histories are left out")
    return tuple(kept)


def with_synthetic_rejected(policy: Policy, dialogues: Sequence[Dialogue], max_reply: int) -> tuple[Dialogue, ...]:
    """The dialogues with a rejected reply at every turn that has a preferred one: what the bare backbone says there.

    Steering needs two replies to one history (steering.py), and PrefEval labels no bad one. The preferred reply is then
    contrasted with the model's own, as self-play fine-tuning does (Chen et al. 2024); an action points from how the
    model talks by itself to how it should talk to this person.

    A reply that the data reject stays. Histories do not change: a turn whose rejected reply was chosen had one. Of
    POLICY, planner and adapter are left aside.
    """
    lacking = [d for d in dialogues if any(turn.preferred and not turn.rejected for turn in d.turns)]
    if not lacking:
        return tuple(dialogues)
    bare = replace(policy, planner=None, adapter=None)
    with Progress("stand-ins", sum(len(d.turns) for d in lacking), share=True) as bar:
        said = greedy_replies(bare, lacking, max_reply, progress=bar.advance)

    def contrasted(turn: Turn, own: str | None) -> Turn:
        # What is said word for word like the preferred reply is no contrast.
        lacks = turn.preferred and not turn.rejected and own != turn.preferred
        return replace(turn, rejected=own) if lacks else turn

    turns = [tuple(contrasted(turn, said.get((d.id, t))) for t, turn in enumerate(d.turns)) for d in dialogues]
    return tuple(replace(d, turns=own) for d, own in zip(dialogues, turns, strict=True))


@torch.no_grad()
def _features(policy: Policy, messages: History, replies: Sequence[Sequence[list[int]]]) -> dict[str, Tensor]:
    prefix = policy.prefix(messages, shallow=True)
    branches = [Branch(prefix.encoded.heads[t], ids) for t, group in enumerate(replies) for ids in group]
    with policy.active():
        means = reply_features(policy.backbone, prefix, branches, policy.readout.layer)
    states = torch.stack([policy.features(prefix, t) for t in range(len(replies))])
    return {"states": states.cpu(), "replies": torch.stack(means).cpu()}

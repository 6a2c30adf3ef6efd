"""Whether dialogues fit into the positions that a backbone has, before anything is computed from them.

Owns the check of recorded dialogues, from which whole turns may be left out, and of those that are yet to be played.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pamdp.config import Config
from pamdp.errors import ConfigError
from pamdp.models.policy import Policy, path
from pamdp.progress import note
from pamdp.prompts.render import render
from pamdp.types import Dialogue, Message


def fitting(policy: Policy, dialogues: Sequence[Dialogue]) -> tuple[Dialogue, ...]:
    """The dialogues, with room for a reply to each turn, as the policy and as V(h, ω) read them.

    A ModelError where one is too long, or with `model.overflow=drop` shorter dialogues without its first turns, which
    are counted in a note.
    """
    kept = []
    for dialogue in dialogues:
        systems = policy.system, render("assistant_for", persona=dialogue.persona.text)
        left = min(len(policy.fitted(path(dialogue), system)) for system in systems)
        turns = dialogue.turns[len(dialogue.turns) - (left + 1) // 2 :]
        kept.append(dialogue if len(turns) == len(dialogue.turns) else replace(dialogue, turns=turns))
    if dropped := sum(len(d.turns) for d in dialogues) - sum(len(d.turns) for d in kept):
        note(
            f"model.overflow=drop: {dropped} first turns of dialogues are left out, which would not fit into the model"
        )
    return tuple(kept)


def require_positions(policy: Policy, dialogues: Sequence[Dialogue], config: Config) -> None:
    """A ConfigError where dialogues that are yet to be played may outgrow the model, and no turns may be left out.

    Users' messages are counted at their longest: the simulator's limit, or the longest that is on record.
    """
    limit, chat, turns = policy.backbone.positions, policy.backbone.chat, config.rl.horizon
    if limit is None or config.model.overflow == "drop":
        return
    said = [len(chat.reply(turn.user)) for d in dialogues for turn in d.turns]
    user = max([*said, config.online.simulator.max_tokens if config.online.user == "simulated" else 1])
    history = tuple(Message("assistant" if i % 2 else "user", "a") for i in range(2 * turns + 1))
    systems = {policy.system, *(render("assistant_for", persona=d.persona.text) for d in dialogues)}
    longest = max(len(chat.history(history, system).ids) for system in systems)
    if (needed := longest + (turns + 1) * (user + config.rl.max_reply)) > limit:
        raise ConfigError(
            f"dialogues of {turns} turns may need {needed} tokens, and {policy.backbone.name or 'the model'} has "
            f"{limit} positions; lower rl.horizon, rl.max_reply or online.simulator.max_tokens, or set "
            "model.overflow=drop, which leaves out first turns"
        )

"""Evaluation of policies on test users: replies, verdicts of every judge, controls, sample dialogues.

Owns what is compared with what. Replies are written greedily under the mean action. A judge that rewarded is never the
only one that grades. Everything goes into the run directory; rates are computed from the stored judgements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from pamdp.config import RLConfig
from pamdp.evaluation.records import Control, Judgement, write_controls, write_judgements
from pamdp.evaluation.transcripts import SampleDialogue, SampleTurn, write_dialogues
from pamdp.judges.base import Case, Judge, LiveJudge, swap, verdicts_of
from pamdp.launch import Launcher, Local, Tell
from pamdp.models.policy import Policy
from pamdp.models.recorded import BLOCK, Actions, Key, Replies, mean_actions, reference_log_probs
from pamdp.progress import Progress, note
from pamdp.shards import blocks
from pamdp.train.site import Site, replies_to
from pamdp.types import Dialogue

SHOWN = 6
"""Dialogues that a report shows."""


def write_replies(
    policy: Policy,
    dialogues: Sequence[Dialogue],
    config: RLConfig,
    actions: Actions | None = None,
    what: str = "replies",
    launcher: Launcher[Site] | None = None,
) -> Replies:
    """One reply to every state, under its own mean action or under ACTIONS, behind a bar called WHAT."""
    return replies_to(launcher or Local(Site(policy)), policy, dialogues, config.max_reply, what, actions)


def compare_replies(
    judge: Judge,
    dialogues: Sequence[Dialogue],
    replies: Replies,
    baseline: Replies,
    names: tuple[str, str],
    kind: str = "eval",
) -> list[Judgement]:
    """Verdicts in both orders on every state; a failed verdict masks its record."""
    states = [(d, t) for d in dialogues for t in range(len(d.turns))]
    cases = [Case(d.persona, d.history(t), replies[d.id, t], baseline[d.id, t]) for d, t in states]
    first, second = verdicts_of(judge, cases), verdicts_of(judge, [swap(case) for case in cases])
    return [
        Judgement.of(
            a, b, method=names[0], baseline=names[1], judge=judge.name, state=(d.user_id, d.id, t), kind=kind
        )
        for (d, t), a, b in zip(states, first, second, strict=True)
    ]  # fmt: skip


def action_controls(
    policy: Policy, dialogues: Sequence[Dialogue], judges: Sequence[Judge], config: RLConfig, own: Replies, name: str
) -> list[Control]:
    """Does the action depend on the state where it counts? Own action against another user's and the mean action.

    What cannot be measured is left out, with a note: another user's action where there is one user, a judge without a
    verdict, the likelihood of preferred replies where there are none.
    """
    actions = mean_actions(policy, dialogues)
    centre = torch.stack(list(actions.values())).mean(0)
    others = others_actions(dialogues, actions)
    replacements, rows = list[tuple[str, str, Actions]](), list[Control]()
    if others is None:
        note(f"{name}: all test dialogues are one user's, so no control has another user's action")
    else:
        replacements.append(("another user's action", "the same state under the action of another test user", others))
    mean = ("the mean action", "the same state under the mean of all actions", dict.fromkeys(actions, centre))
    replacements.append(mean)
    for label, what, replacement in replacements:
        replies = write_replies(policy, dialogues, config, replacement, f"{name}: {label}")
        found = list[tuple[list[float], list[str], str, str]]()
        for judge in judges:
            said = compare_replies(judge, dialogues, own, replies, (name, label), "control")
            kept = [(j.soft, j.cluster) for j in said if not j.masked]
            found.append(([x for x, _ in kept], [who for _, who in kept], f"judged score against {what}", judge.name))
        gains = nll_gain(policy, dialogues, actions, replacement)
        found.append((*gains, f"nats per token of the preferred reply, against {what}", "reference NLL"))
        title = f"{name}: own action − {label}"
        for values, users, measure, by in found:
            if values:
                rows.append(Control.measure(values, users, name=title, what=measure, judge=by))
            else:
                note(f"control left out, nothing was measured: {title} ({by})")
    return rows


def others_actions(dialogues: Sequence[Dialogue], actions: Actions) -> Actions | None:
    """For every state the action at the same turn of another user's dialogue; None where all are one user's.

    The other dialogue is the first one from half the list away that belongs to somebody else.
    """
    n, out = len(dialogues), dict[Key, Tensor]()
    for i, dialogue in enumerate(dialogues):
        away = (dialogues[(i + n // 2 + k) % n] for k in range(n))
        other = next((found for found in away if found.user_id != dialogue.user_id), None)
        if other is None:
            return None
        for t in range(len(dialogue.turns)):
            out[dialogue.id, t] = actions[other.id, min(t, len(other.turns) - 1)]
    return out


def nll_gain(
    policy: Policy, dialogues: Sequence[Dialogue], own: Actions, other: Actions
) -> tuple[list[float], list[str]]:
    """Gain in log p of the preferred reply under the own action over another, per token and state; and the users."""
    found = [(d.user_id, a, b) for d in dialogues for a, b in reference_log_probs(policy, d, own, other).values()]
    gains = torch.stack([(a.sum() - b.sum()) / len(a) for _, a, b in found]).tolist() if found else []
    return gains, [user for user, _, _ in found]


def evaluate(
    replies: Mapping[str, Replies],
    pairs: Sequence[tuple[str, str]],
    dialogues: Sequence[Dialogue],
    judges: Sequence[Judge],
    controls: Sequence[Control],
    folder: Path,
    read: Sequence[Judgement] = (),
    launcher: Launcher[Site] | None = None,
) -> list[Judgement]:
    """`judge_methods`, and what was READ; judgements, controls and sample dialogues go into FOLDER.

    LAUNCHER: who judges, by the names of JUDGES; None: these themselves.
    """
    if launcher is None or not launcher.workers:
        judgements = judge_methods(replies, pairs, dialogues, judges)
    else:
        judgements = _judged(launcher, replies, pairs, dialogues, [judge.name for judge in judges])
    judgements += read
    write_judgements(folder / "judgements.jsonl", judgements)
    write_controls(folder / "controls.json", controls)
    write_dialogues(folder / "dialogues.json", _samples(replies, dialogues[:SHOWN], judgements))
    return judgements


def judge_methods(
    replies: Mapping[str, Replies],
    pairs: Sequence[tuple[str, str]],
    dialogues: Sequence[Dialogue],
    judges: Sequence[Judge],
) -> list[Judgement]:
    """Verdicts of every judge on every comparison (method, baseline), in both orders; Vanilla's replies come first."""
    judgements: list[Judgement] = []
    with Progress("judging", len(pairs) * len(judges)) as bar:
        for judge in judges:
            _warm(judge, dialogues, replies)
            for method, baseline in pairs:
                judgements += compare_replies(judge, dialogues, replies[method], replies[baseline], (method, baseline))
                bar.advance()
    return judgements


def _judged(
    launcher: Launcher[Site],
    replies: Mapping[str, Replies],
    pairs: Sequence[tuple[str, str]],
    dialogues: Sequence[Dialogue],
    judges: Sequence[str],
) -> list[Judgement]:
    """`judge_methods` of parts of the dialogues, in the order that it has for all of them."""

    def part(some: Sequence[Dialogue]) -> tuple[Sequence[Dialogue], dict[str, Replies]]:
        states = [(d.id, t) for d in some for t in range(len(d.turns))]
        return some, {name: {state: said[state] for state in states} for name, said in replies.items()}

    parts = [partial(part, some) for some in blocks(dialogues, launcher.workers, BLOCK)]
    found = [j for judged in launcher.map(_judge, (pairs, judges), parts) for j in judged]
    order = {(judge, *pair): i for i, (judge, pair) in enumerate(product(judges, pairs))}
    return sorted(found, key=lambda j: order[j.judge, j.method, j.baseline])  # stable: states stay as they are


def _judge(
    site: Site,
    shared: tuple[Sequence[tuple[str, str]], Sequence[str]],
    part: tuple[Sequence[Dialogue], dict[str, Replies]],
    tell: Tell,
) -> list[Judgement]:
    (pairs, judges), (dialogues, replies) = shared, part
    return judge_methods(replies, pairs, dialogues, [site.judges[name] for name in judges])


def _warm(judge: Judge, dialogues: Sequence[Dialogue], replies: Mapping[str, Replies]) -> None:
    """Show a judge all replies to a state at once: one that scores replies reads their context once, not per pair."""
    if isinstance(judge, LiveJudge):
        return
    first, *others = replies.values()
    states = [(d, t) for d in dialogues for t in range(len(d.turns))]
    verdicts_of(judge, [Case(d.persona, d.history(t), r[d.id, t], first[d.id, t]) for d, t in states for r in others])


def _samples(
    replies: Mapping[str, Replies], dialogues: Sequence[Dialogue], judgements: Sequence[Judgement]
) -> list[SampleDialogue]:
    first, rewards = next(iter(replies)), dict[Key, dict[str, dict[str, float]]]()
    shown = [name for name in replies if name in (first, "BC", "PAMDP")]
    for j in judgements:
        if j.baseline == first and j.method in shown and not j.masked:
            rewards.setdefault((j.dialogue_id, j.turn), {}).setdefault(j.method, {})[j.judge] = j.p_win

    def sample(d: Dialogue, t: int) -> SampleTurn:
        said = {name: replies[name][d.id, t] for name in shown}
        return SampleTurn(d.turns[t].user, said, d.turns[t].inferred.text, rewards.get((d.id, t), {}))

    return [SampleDialogue(d.user_id, d.persona, tuple(sample(d, t) for t in range(len(d.turns)))) for d in dialogues]

"""The reward model: which reply a blind reader would rather get, learned from readings.

Owns the score: a linear read-out of a reply's states (their mean, and the last one) in the upper layers of the
backbone under an adapter of its own; a second and a third read-out predict the readers' grades of form and sense, which
teaches the layers more than preferences alone. It sees the person and the last messages. Bradley and Terry's loss.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pamdp.data.readings import Question, ReadState
from pamdp.errors import DataError
from pamdp.models.actor import Whitening
from pamdp.models.adapters import add_adapter, train_backbone
from pamdp.models.backbone import Backbone
from pamdp.models.packed_contexts import Group, PackedRow, halved, pack, run_layers
from pamdp.prompts.render import load, render
from pamdp.types import History, Persona, PreferencePair

ADAPTER = "reward"
MESSAGES = 5
"""How many of the last messages are read."""
QUESTIONS: tuple[Question, ...] = ("sense", "form")
WARM_UP = 10
"""Steps over which the learning rates rise; they then fall linearly to zero."""


class RewardHead(nn.Module):
    """Read-outs of a reply's states, as wide as REPLY: preference, and the grades of QUESTIONS."""

    def __init__(self, reply: int) -> None:
        super().__init__()
        self.whiten = Whitening(reply)
        self.readout = nn.Linear(reply, 1 + len(QUESTIONS))
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)

    def forward(self, replies: Float[Tensor, "n R"]) -> Float[Tensor, "n 3"]:
        """Score of each reply, and its grades."""
        # Scaled, so that a step of the read-out moves scores alike whatever the width.
        return torch.as_tensor(self.readout(3 * self.whiten(replies) * replies.shape[1] ** -0.5))


@dataclass(eq=False)
class RewardModel:
    """Scores of replies, as log-odds up to a constant; the backbone carries ADAPTER on layers FIRST to LAST."""

    personal = True

    backbone: Backbone
    head: RewardHead
    first: int
    last: int
    messages: int = MESSAGES

    def __post_init__(self) -> None:
        self.head.to(self.backbone.device)

    def row(self, persona: Persona, history: History, replies: Sequence[str]) -> PackedRow:
        """The replies after the last messages, with the person in front, if anything is known of one."""
        chat = self.backbone.chat
        system = render("judge_for", persona=persona.text) if persona.text else load("judge_anyone")
        context = chat.history(history[-self.messages :], system).ids
        return pack([Group(context, [chat.reply(reply) for reply in replies])], self.backbone.device)

    @torch.no_grad()
    def lower(self, row: PackedRow) -> Tensor:
        """States of a row below the adapter."""
        with self.backbone.adapter(None):
            return run_layers(self.backbone, row, None, 0, self.first)

    def features(self, row: PackedRow, lower: Tensor) -> Float[Tensor, "n R"]:
        """What is read of every reply of a row."""
        with self.backbone.adapter(ADAPTER):
            states = run_layers(self.backbone, row, lower, self.first, self.last).float()
        replies = [states[own] for _, own in row.predicts]
        return torch.stack([torch.cat([tokens.mean(0), tokens[-1]]) for tokens in replies])

    @torch.no_grad()
    def score(self, persona: Persona, history: History, replies: Sequence[str]) -> list[float]:
        """Score of each reply for a person."""
        row = self.row(persona, history, replies)
        scores: list[float] = self.head(self.features(row, self.lower(row)))[:, 0].tolist()
        return scores


def train_reward_model(
    backbone: Backbone,
    states: Sequence[ReadState],
    pairs: Sequence[PreferencePair] = (),
    *,
    first: int,
    last: int,
    rank: int = 8,
    epochs: int = 3,
    lr: float = 3e-4,
    grades: float = 0.5,
    batch_size: int = 4,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> RewardModel:
    """A reward model fitted on readings; a state or a pair is EPOCHS + 1 steps of PROGRESS.

    Args:
      pairs: written pairs to learn beside, which a policy cannot have spoiled.
      first, last: the layers between which it is adapted, and after which it reads.
      grades: weight of the squared errors of form and sense beside the loss of preferences.

    Raises:
      DataError: no reader decided any pair.
    """
    lessons = [lesson for state in states if (lesson := _of_state(state))]
    if not lessons:
        raise DataError("no reader compared two replies", fix="give readings with `prefer`")
    lessons += [_of_pair(pair) for pair in pairs]
    add_adapter(backbone, ADAPTER, rank, first, seed, last)
    train_backbone(backbone, "lora", ADAPTER)
    weights = [p for p in backbone.model.parameters() if p.requires_grad]
    model = RewardModel(backbone, RewardHead(2 * backbone.d), first, last)
    rows = _rows(model, lessons, progress)
    groups = [{"params": weights, "lr": lr}, {"params": list(model.head.readout.parameters()), "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    rng, step, total = random.Random(seed), 0, epochs * -(-len(lessons) // batch_size)
    for _ in range(epochs):
        order = rng.sample(range(len(lessons)), len(lessons))
        for start in range(0, len(order), batch_size):
            scale = min(1.0, (step + 1) / WARM_UP) * (1 - step / total)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * scale
            optimizer.zero_grad()
            chosen = order[start : start + batch_size]
            for i in chosen:
                row, lower = rows[i]
                out = model.head(model.features(row, lower))
                torch.autograd.backward(reading_loss(out, lessons[i], grades) / len(chosen))
                progress(1)
            nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
            optimizer.step()
            step += 1
    train_backbone(backbone, "frozen")
    model.head.requires_grad_(False)
    return model


def _rows(
    model: RewardModel, lessons: Sequence[Lesson], progress: Callable[[int], None]
) -> list[tuple[PackedRow, Tensor]]:
    """Of each lesson its row and the states below the adapter; fits the head's units to them."""
    rows = []
    for lesson in lessons:
        row = model.row(lesson.persona, lesson.history, lesson.texts)
        rows.append((row, halved(model.lower(row))))
        progress(1)
    with torch.no_grad():
        model.head.whiten.fit(torch.cat([model.features(row, lower) for row, lower in rows[:100]]))
    return rows


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is learned from a state: which of two replies is preferred, by how many, and the grades of each.

    Attributes:
      a, b, share: of every pair that was decided or tied, the replies' numbers, and the share that prefers A.
      grades: of QUESTIONS, [replies, 2]; NaN where a reply was not graded.
    """

    persona: Persona
    history: History
    texts: list[str]
    a: Tensor
    b: Tensor
    share: Tensor
    grades: Tensor


def _of_state(state: ReadState) -> Lesson | None:
    letters, pairs = list(state.replies), state.pairs()
    if not pairs:
        return None
    given = [[state.grade(question, letter) for question in QUESTIONS] for letter in letters]
    return Lesson(
        state.persona, state.history, [state.replies[letter].text for letter in letters],
        torch.tensor([letters.index(p.a) for p in pairs]), torch.tensor([letters.index(p.b) for p in pairs]),
        torch.tensor([p.share for p in pairs]),
        torch.tensor([[math.nan if x is None else x for x in row] for row in given]),
    )  # fmt: skip


def _of_pair(pair: PreferencePair) -> Lesson:
    first, unknown = torch.tensor([0]), torch.full((2, len(QUESTIONS)), math.nan)
    return Lesson(pair.persona, pair.history, [pair.preferred, pair.rejected], first, first + 1, torch.ones(1), unknown)


def reading_loss(out: Float[Tensor, "n 3"], lesson: Lesson, weight: float) -> Tensor:
    """Bradley and Terry's loss over a state's pairs, and WEIGHT times the squared errors of the grades."""
    score = out[:, 0]
    loss = nn.functional.binary_cross_entropy_with_logits(score[lesson.a] - score[lesson.b], lesson.share)
    known = ~lesson.grades.isnan()
    errors = (out[:, 1:] - lesson.grades)[known].square()
    return loss + weight * errors.mean() if len(errors) else loss

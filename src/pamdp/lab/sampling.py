"""Sampled dialogues of tabular PAMDPs, in many runs side by side.

Owns drawing them and reading a policy along them. Knows nothing of critics and of learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pamdp.lab.tabular import Logits, TabularPamdp


@dataclass(frozen=True, slots=True)
class Dialogues:
    """B dialogues in each of N runs; histories are numbered as in `pamdp.lab.tabular`.

    Attributes:
      history: h_0..h_T.
      profile: ω_0..ω_T.
      utterance: u_0..u_{T−1}.
      reward: r_0..r_{T−1}.
    """

    history: Int[Tensor, "N B T+1"]
    profile: Int[Tensor, "N B T+1"]
    utterance: Int[Tensor, "N B T"]
    reward: Float[Tensor, "N B T"]


def sample(
    pamdp: TabularPamdp, policy: Sequence[Float[Tensor, "N H U"]], episodes: int, generator: torch.Generator
) -> Dialogues:
    """Dialogues of every run, with u drawn from π(u|h)."""
    run = torch.arange(pamdp.start.shape[0]).unsqueeze(1).expand(-1, episodes)

    def draw(probability: Tensor) -> Tensor:
        uniform = torch.rand(run.shape, dtype=torch.float64, generator=generator).unsqueeze(-1)
        return (probability.cumsum(-1)[..., :-1] < uniform).sum(-1)

    history, profile = [torch.zeros_like(run)], [draw(pamdp.start[run])]
    utterance, reward = list[Tensor](), list[Tensor]()
    for turn, pi in zip(pamdp.turns, policy, strict=True):
        h, w = history[-1], profile[-1]
        u = draw(pi[run, h])
        o = draw(turn.answer[run, h, w, u])
        utterance.append(u)
        reward.append(turn.reward[run, h, w, u])
        history.append((h * turn.answer.shape[3] + u) * turn.answer.shape[4] + o)
        profile.append(draw(turn.drift[run, h, w, u, o]))
    return Dialogues(*(torch.stack(each, -1) for each in (history, profile, utterance, reward)))


def log_probs(logits: Logits, dialogues: Dialogues) -> Float[Tensor, "N B T"]:
    """Log π(u_t|h_t) along the dialogues."""
    run = torch.arange(logits[0].shape[0]).unsqueeze(1)
    rows = [
        each.log_softmax(-1)[run, dialogues.history[..., t], dialogues.utterance[..., t]]
        for t, each in enumerate(logits)
    ]
    return torch.stack(rows, -1)


def scores_sq(policy: Sequence[Float[Tensor, "N H U"]], dialogues: Dialogues) -> Float[Tensor, "N B T"]:
    """s² = ‖∇_θ log π(u|h)‖² for one logit per history and utterance.

    s² = 1 − 2·π(u|h) + Σ_v π(v|h)²
    """
    run = torch.arange(policy[0].shape[0]).unsqueeze(1)
    rows = []
    for t, pi in enumerate(policy):
        here = pi[run, dialogues.history[..., t]]
        chosen = here.gather(-1, dialogues.utterance[..., t].unsqueeze(-1)).squeeze(-1)
        rows.append(1 - 2 * chosen + here.square().sum(-1))
    return torch.stack(rows, -1)

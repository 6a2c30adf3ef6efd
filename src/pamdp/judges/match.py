"""The match judge: whether a reply looks like what such a person likes.

Owns the score f(ω)·g(u): a low-rank product of what the bare backbone reads in the description of a person and in a
reply, averaged over an ensemble. Built and trained differently from the likelihood judge: no adapter, no likelihoods,
person and reply never meet inside the backbone. What is the same for every person is taken out: f is centred over the
training persons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pamdp.judges.scoring import found_once
from pamdp.models.actor import Whitening
from pamdp.models.backbone import Backbone
from pamdp.models.packed_contexts import Group, PackedRow, pack, run_layers
from pamdp.prompts.render import render
from pamdp.types import History, Message, Persona, PreferencePair


class MatchHead(nn.Module):
    """f and g of the score, MEMBERS times: of features as wide as PERSONA and REPLY, a product of size RANK."""

    centre: Tensor

    def __init__(self, persona: int, reply: int, rank: int = 32, members: int = 8) -> None:
        super().__init__()
        self.whiten_persona, self.whiten_reply = Whitening(persona), Whitening(reply)
        self.f = nn.Parameter(torch.randn(members, persona, rank) * persona**-0.5)
        self.g = nn.Parameter(torch.randn(members, reply, rank) * reply**-0.5)
        self.register_buffer("centre", torch.zeros(members, 1, rank))

    def forward(
        self, personas: Float[Tensor, "n P"], replies: Float[Tensor, "n R"], dropout: float = 0.0
    ) -> Float[Tensor, "members n"]:
        """Score of each reply for the person in the same row, per member."""
        rank = self.f.shape[-1]
        w = nn.functional.dropout(self.whiten_persona(personas).expand(len(self.f), -1, -1), dropout) @ self.f
        u = nn.functional.dropout(self.whiten_reply(replies).expand(len(self.g), -1, -1), dropout) @ self.g
        return torch.as_tensor(((w - self.centre) * u).sum(-1) * rank**-0.5)


class MatchScorer:
    """Scores of replies for a person, as log-odds up to a constant, from the bare backbone's hidden LAYERS."""

    messages = 1
    personal = True

    def __init__(self, backbone: Backbone, head: MatchHead, layers: Sequence[int]) -> None:
        self.backbone, self.head, self.layers = backbone, head.to(backbone.device), tuple(layers)
        self._personas: dict[Persona, Tensor] = {}
        self._replies: dict[tuple[History, str], Tensor] = {}

    @torch.no_grad()
    def persona_features(self, persona: Persona) -> Tensor:
        """Mean states over the profile and over the personality, [2 * layers * d]; a missing one is as the other."""
        if persona not in self._personas:
            texts = (persona.profile or persona.personality, persona.personality or persona.profile)
            self._personas[persona] = torch.cat([self._about(text) for text in texts])
        return self._personas[persona]

    @torch.no_grad()
    def reply_features(self, history: History, replies: Sequence[str]) -> Tensor:
        """Mean states over each reply to the last message, [replies, layers * d]; they do not depend on the person."""
        last = history[-1:]

        def find(new: list[str]) -> list[Tensor]:
            chat = self.backbone.chat
            context = chat.history(last, render("judge_anyone")).ids
            row = pack([Group(context, [chat.reply(reply) for reply in new])], self.backbone.device)
            read = self._read(row)
            return [torch.cat([states[own].mean(0) for states in read]) for _, own in row.predicts]

        return torch.stack(found_once(self._replies, last, replies, find))

    @torch.no_grad()
    def score(self, persona: Persona, history: History, replies: Sequence[str]) -> list[float]:
        """Score of each reply for a person."""
        features = self.reply_features(history, replies)
        personas = self.persona_features(persona).expand(len(replies), -1)
        scores: list[float] = self.head(personas, features).mean(0).tolist()
        return scores

    def forget(self) -> None:
        """Drop the features of replies; those of persons are found alone, whatever else is asked."""
        self._replies.clear()

    def _about(self, text: str) -> Tensor:
        encoded = self.backbone.chat.history([Message("user", render("judge_about", text=text))], "")
        start, stop = encoded.users[0]
        row = pack([Group(encoded.ids[:stop], [])], self.backbone.device)
        return torch.cat([states[start:stop].mean(0) for states in self._read(row)])

    def _read(self, row: PackedRow) -> list[Tensor]:
        out, states = list[Tensor](), None
        with self.backbone.adapter(None):
            for start, stop in pairwise((0, *self.layers)):
                states = run_layers(self.backbone, row, states, start, stop)
                out.append(states.float())
        return out


def train_match(
    scorer: MatchScorer, pairs: Sequence[PreferencePair], seed: int, progress: Callable[[int], None]
) -> None:
    """Fit the head in place on preference pairs (Bradley-Terry on every member); centres f at the end."""
    personas, replies = [], []
    for pair in pairs:
        personas.append(scorer.persona_features(pair.persona))
        replies.append(scorer.reply_features(pair.history, (pair.preferred, pair.rejected)))
        progress(1)
    # Features of persons [n, P], of preferred and of rejected replies [n, R].
    w, (a, b) = torch.stack(personas), torch.stack(replies, 1)
    head, steps, batch, lr, dropout = scorer.head, 300, 256, 3e-3, 0.4
    head.whiten_persona.fit(w)
    head.whiten_reply.fit(torch.cat([a, b]))
    optimizer = torch.optim.AdamW([head.f, head.g], lr=lr, weight_decay=1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(steps):
            rows = torch.randperm(len(w))[:batch]
            margin = head(w[rows], a[rows], dropout) - head(w[rows], b[rows], dropout)
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.softplus(-margin).mean())
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 - step / steps)
            optimizer.step()
    with torch.no_grad():
        head.centre.copy_((head.whiten_persona(w) @ head.f).mean(1, keepdim=True))

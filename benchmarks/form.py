"""How replies begin and end before anything is cut back: `python -m benchmarks.form [N] [POLICY ...]`.

Shares of garbled and blemished replies by rule (models/form.py), of N replies (500) to users whom nobody trained on:
the plain sample's test and valid users, then the sample proper's test users. A POLICY is a run's folder of a policy;
without one, Vanilla and the two policies of the package. Greedy, at most 64 tokens.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from benchmarks.inputs import backbone
from pamdp.data import load_plain, load_sample
from pamdp.models.form import ends_whole, shares, starts_whole
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy, Request
from pamdp.progress import Progress
from pamdp.train.factory import load_policy, shipped
from pamdp.types import History

BATCH = 50


def histories(n: int) -> list[History]:
    """The first N moments at which somebody is to be answered."""
    dialogues = [*load_plain("test").dialogues, *load_plain("valid").dialogues, *load_sample("test").dialogues]
    return list(islice((d.history(t) for d in dialogues for t in range(len(d.turns))), n))


def raw_replies(policy: Policy, asked: list[History], name: str) -> list[str]:
    """What a policy writes under its mean action, as it comes."""
    out = list[str]()
    with Progress(name, len(asked)) as bar, torch.no_grad():
        for i in range(0, len(asked), BATCH):
            prefixes = policy.prefixes([policy.fitted(history) for history in asked[i : i + BATCH]])
            requests = [Request(k, -1, policy.mean_action(prefix)) for k, prefix in enumerate(prefixes)]
            out += policy.write(prefixes, requests, Sampling(64, trim=False), progress=bar.advance)
    return out


def main(n: int, folders: list[str]) -> None:
    """Print a line for each policy."""
    model, asked = backbone(), histories(n)
    clone = load_policy(shipped(), model)
    policies = {folder: load_policy(Path(folder), model) for folder in folders} or {
        "Vanilla": replace(clone, planner=None, adapter=None),
        "BC": clone,
        "PAMDP": load_policy(shipped("trained"), model),
    }
    for name, policy in policies.items():
        replies = raw_replies(policy, asked, name)
        found = {
            **shares(replies),
            "begin in the middle": sum(not starts_whole(text) for text in replies) / len(replies),
            "end in the middle": sum(not ends_whole(text) for text in replies) / len(replies),
        }
        words = sum(len(text.split()) for text in replies) / len(replies)
        print(f"{name}, {len(replies)} replies of {words:.1f} words:", end=" ")
        print(", ".join(f"{what} {share:.1%}" for what, share in found.items()), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500, sys.argv[2:])

"""Replies to every state of some dialogues, with H(h) of each: `python -m benchmarks.rollout`.

Ours carries the cache across turns and writes in batches. The peers run the history for H(h) and then `generate` from
scratch each turn: one dialogue at a time, or padded on the left in batches. All are greedy and may end early, so that
all write the same replies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from benchmarks import inputs
from benchmarks.arena import Duel, Options, main
from benchmarks.measure import Facts, Measured, Prepared
from pamdp.env.dialogue import DialogueEnv
from pamdp.env.user import RecordedUser
from pamdp.models.backbone import Backbone, Readout
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy, path
from pamdp.rollout import collect

SPARED = 4
"""The naive peer replies to every fourth dialogue: times are compared for each reply, and its minutes are many."""
DEFAULT = Options(users=32, turns=4, tokens=48, batch=32, repeats=1)
QUICK = Options(users=8, turns=2, tokens=16, batch=8, repeats=1)


def ours(options: Options) -> Prepared:
    """pamdp.rollout.collect on recorded users."""
    backbone, chosen = inputs.backbone(), inputs.dialogues(options)
    policy = Policy(backbone, readout=Readout(layer=backbone.layer_at(0.6)))

    def work() -> Facts:
        out = []
        for start in range(0, len(chosen), options.batch):
            users = [RecordedUser(dialogue) for dialogue in chosen[start : start + options.batch]]
            env = DialogueEnv(users)
            sampling = Sampling(options.tokens, repetition_penalty=1.0)
            out.append(collect(policy, env, sampling, explore=False, batch=options.batch))
        return _facts({(t.key, t.t): t.reply for rollout in out for t in rollout.transitions})

    return Prepared(backbone.model, work, sum(len(d.turns) for d in chosen))


def naive(options: Options) -> Prepared:
    """One state at a time."""
    return _generate(options, 1)


def batched(options: Options) -> Prepared:
    """All dialogues' states of one turn at a time, as many as fit in a batch."""
    return _generate(options, options.batch)


def _generate(options: Options, batch: int) -> Prepared:
    backbone, chosen = inputs.plain_backbone(), inputs.dialogues(options)[:: 1 if batch > 1 else SPARED]
    system = Policy(backbone).system
    encoded = {d.id: backbone.chat.history(path(d), system) for d in chosen}
    states = [(d.id, t) for t in range(options.turns) for d in chosen if t < len(d.turns)]

    @torch.no_grad()
    def work() -> Facts:
        replies: dict[tuple[str, int], str] = {}
        for t in range(options.turns):
            turn = [key for key, at in states if at == t]
            for start in range(0, len(turn), batch):
                keys = turn[start : start + batch]
                said = _reply(backbone, [encoded[key].ids[: encoded[key].heads[t]] for key in keys], options.tokens)
                replies |= {(key, t): text for key, text in zip(keys, said, strict=True)}
        return _facts(replies)

    return Prepared(backbone.model, work, len(states))


def _reply(backbone: Backbone, histories: Sequence[Sequence[int]], tokens: int) -> list[str]:
    """H(h) and replies with Hugging Face alone; histories are padded on the left."""
    width, end = max(map(len, histories)), backbone.chat.end
    ids = torch.tensor([[end] * (width - len(h)) + list(h) for h in histories])
    mask = torch.tensor([[0] * (width - len(h)) + [1] * len(h) for h in histories])
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    backbone.trunk(input_ids=ids, attention_mask=mask, position_ids=positions, output_hidden_states=True)
    out = backbone.model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=tokens,
        repetition_penalty=1.0,
        eos_token_id=end,
        pad_token_id=end,
    )
    written = out[:, width:].tolist()
    return [backbone.chat.decode(row[: row.index(end)] if end in row else row) for row in written]


def _facts(replies: Mapping[tuple[str, int], str]) -> Facts:
    return {"replies": {f"{key}:{t}": text for (key, t), text in replies.items()}}


def agreement(run: Mapping[str, Measured]) -> Facts:
    """Share of replies that each peer wrote letter for letter as we did; sums in another order may break a tie."""
    mine = run["ours"].facts["replies"]
    assert isinstance(mine, dict)
    same = {}
    for name, measured in run.items():
        theirs = measured.facts["replies"]
        assert isinstance(theirs, dict)
        same[name] = round(sum(mine[key] == text for key, text in theirs.items()) / len(theirs), 3)
    return {"same_replies": same}


if __name__ == "__main__":
    main(
        "rollout",
        {"ours": ours, "naive": naive, "batched": batched},
        [Duel("ours", "naive", 5.0), Duel("ours", "batched", 2.5)],
        DEFAULT,
        QUICK,
        agreement,
    )

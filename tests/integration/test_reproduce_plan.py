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
from pamdp.baselines import registry
from pamdp.reproduce.config import load_config
from pamdp.reproduce.plan import plan
from pamdp.reproduce.tables import TABLES, Table, table

RUN = CliRunner()


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("preset", ["cpu", "paper"])
def test_every_table_can_be_planned_where_nothing_is_at_hand(
    name: str, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = RUN.invoke(cli.app, ["reproduce", name, "--preset", preset, "--dry-run", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.output)
    assert found["totals"]["judgements"] > 0 and list(tmp_path.iterdir()) == []
    made: Table = table(name)
    assert {p["method"] for p in found["pieces"]} == set(made.methods())
    if preset == "cpu":
        assert {p["data"] for p in found["pieces"]} == {"sample"}  # which stands in for ALOE, and is not ALOE
    if preset == "paper":
        assert {p["backbone"] for p in found["pieces"]} == {
            "Qwen/Qwen2.5-7B-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct"
        }  # fmt: skip
        aloe = [p for p in found["pieces"] if p["data"] == "ALOE" and p["method"] == "Vanilla"]
        assert all(p["replies"] == 3834 for p in aloe) and "assumed" in found["data"]["ALOE"]
        assert found["settings"]["clone.lr"] == 2e-5 and found["settings"]["tune.dpo.beta"] == 0.1
        assert "14 GB" in found["weights"]["Qwen/Qwen2.5-7B-Instruct"]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("preset", ["cpu", "paper"])
def test_plans_fit_a_terminal_of_80_columns(name: str, preset: str, tmp_path: Path) -> None:
    found = plan(load_config(preset), table(name), tmp_path / "run")  # type: ignore[arg-type]
    console = Console(width=80, file=io.StringIO())
    for grid in found.grids():
        console.print(grid)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown and all(f"{p.data}, {p.backbone}" in shown and p.method in shown for p in found.pieces)


def test_table2_of_the_cpu_preset_is_planned_to_fit_an_hour_of_two_cores() -> None:
    found = plan(load_config("cpu"), table("table2"), Path("runs/none"))
    assert found.minutes is not None and 30 < found.minutes <= 2 * 60
    assert all(piece.minutes for piece in found.pieces)
    # Twice the replies to learn from cost more, and what nobody has measured is not guessed.
    more = plan(load_config("cpu", overrides=["aloe.train_dialogues=96"]), table("table2"), Path("runs/none"))
    assert more.minutes is not None and more.minutes > 1.5 * found.minutes
    other = plan(load_config("cpu", overrides=["models=[somebody/else-1B]"]), table("table2"), Path("runs/none"))
    assert other.minutes is None and json.loads(other.to_json())["totals"]["minutes"] is None


@pytest.mark.parametrize("preset", ["cpu", "paper"])
def test_rewarded_methods_of_a_preset_draw_equally_much(preset: str) -> None:
    config = load_config(preset)  # type: ignore[arg-type]
    job = config.of_job("x", config.aloe, 0)
    budgets = {name: registry.find(name).budget(job, config.tune, 100) for name in registry.names()}
    assert budgets["GRPO"].draws == budgets["PAMDP"].draws == budgets["RL-base"].draws > 0
    assert len({(b.context, b.reply) for b in budgets.values()}) == 1
    assert len(config.seeds) >= 3 and len(config.judges) >= 2


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["table2", "--render", "--run", "no-such-run"], "no-such-run"),
        (["table2", "--method", "nowhere.py"], "nowhere.py"),
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
    for made in TABLES.values():
        for p in made.printed:
            n = {"ALOE": 3834, "PrefEval": 98}[p.column]
            assert (p.wins - p.losses) / n == pytest.approx(p.rate, abs=0.004), p
            assert p.wins + p.losses + p.ties == n

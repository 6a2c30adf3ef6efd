"""Blind readers of a table: a sheet of what it stored, verdicts that are kept, and what the page makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pamdp.calls_config import JudgeConfig
from pamdp.config import DataConfig
from pamdp.data import write_dialogues
from pamdp.errors import ConfigError, DataError
from pamdp.evaluation.records import read_judgements
from pamdp.files import read_json_lines
from pamdp.reproduce import main, read
from pamdp.reproduce.cells import Cell, Grid
from pamdp.reproduce.config import ReproduceConfig
from pamdp.reproduce.store import verdict_file
from pamdp.reproduce.tables import table
from tests.tools.methods import CLONE, MODEL, RL, TUNE, Bench, few

SMALL = replace(table("table6"), rows=("Prompt", "BC"), pairs=(("BC", "Prompt"),))
DIALOGUES = [*few("train", 3), *few("test", 2)]


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    """A table of two seeds, everything done."""
    write_dialogues(tmp_path / "d.jsonl", DIALOGUES)
    config = ReproduceConfig(
        seeds=(0, 1), models=("tiny",), judges=("vowels", "stops"), judge=JudgeConfig(model="vowels"), resamples=200,
        aloe=DataConfig(path=str(tmp_path / "d.jsonl"), test_share=0.4), model=MODEL, clone=CLONE, rl=RL, tune=TUNE,
    )  # fmt: skip
    Bench().run(config, SMALL, tmp_path / "run")
    return Grid(config, SMALL, tmp_path / "run")


def _answer(sheet: Path, file: Path, reader: str, better: Callable[[str, str], str]) -> Path:
    """A reader's verdicts on all of a sheet: BETTER of two texts, `tie` where it is neither."""
    lines = []
    for line in read_json_lines(sheet / "sheet.jsonl"):
        texts, said = line["replies"], {}
        for pair in line["pairs"]:
            a, b = pair.split("-")
            chosen = better(texts[a], texts[b])
            said[pair] = next((letter for letter in (a, b) if texts[letter] == chosen), "tie")
        grades = {letter: {"form": 2, "sense": 1} for letter in texts}
        lines.append({"state": line["state"], "reader": reader, "kind": "model", "grades": grades, "prefer": said})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def _longer(a: str, b: str) -> str:
    return max(a, b, key=len) if len(a) != len(b) else ""


def _right(grid: Grid, cell: Cell, sheet: Path, judge: str) -> float:
    """Share of the pairs of seed 0's sheet that a judge decides as `_longer` does; even ones count half."""
    key, found = json.loads((sheet.parent / "key.json").read_text(encoding="utf-8")), {}
    for method, other in grid.pairs(cell):
        ours, theirs = (
            {(r.dialogue, r.turn): r.reply for r in grid.replies(cell, name, 0)} for name in (method, other)
        )
        for j in read_judgements(verdict_file(cell.folder, "judged", judge, (method, other), 0)):
            if not (place := next((p for p in key["states"].values() if p["state"] == [*j.state]), None)):
                continue
            longer = len(ours[j.dialogue_id, j.turn]) - len(theirs[j.dialogue_id, j.turn])
            if longer:
                letters = frozenset((place["letters"][method], place["letters"][other]))
                lean = (j.p_win - j.p_loss) * longer
                found[j.state, letters] = 0.5 if lean == 0 else float(lean > 0)
    return sum(found.values()) / len(found)


def test_what_readers_said_stands_on_the_page_above_the_judges(grid: Grid, tmp_path: Path) -> None:
    sheets = read.write_sheets(grid, 3)
    assert [sheet.parent.parent.name for sheet in sheets] == ["seed-0", "seed-1"]
    (cell,) = grid.cells
    files = [_answer(sheet, tmp_path / f"{n}.jsonl", "ann", _longer) for n, sheet in enumerate(sheets)]
    read.take_verdicts(grid, files)
    found = json.loads(main.render(grid.config, SMALL, grid.path).json)
    rows = {(r["method"], r["against"]): r for r in found["rows"] if r["judge"] == "readers"}
    assert (
        set(rows) == {("Prompt", "Vanilla"), ("BC", "Vanilla"), ("BC", "Prompt")} and found["rows"][0] in rows.values()
    )
    for (method, other), row in rows.items():
        signs = []
        for seed, sheet in enumerate(sheets):
            ours, theirs = (
                {(r.dialogue, r.turn): r.reply for r in grid.replies(cell, name, seed)} for name in (method, other)
            )
            key = json.loads((sheet.parent / "key.json").read_text(encoding="utf-8"))
            places = [tuple(place["state"][1:]) for place in key["states"].values()]
            signs += [(len(ours[p]) > len(theirs[p])) - (len(ours[p]) < len(theirs[p])) for p in places]
        assert row["r_w"] == pytest.approx(sum(signs) / 6) and row["seeds"] == 2
        assert row["wins"] + row["losses"] + row["ties"] == 6
    assert {(g["seed"], g["method"]) for g in found["sense"]} == {
        (s, m) for s in (0, 1) for m in ("Vanilla", *SMALL.rows)
    }
    assert all(g["mean"] == 1 for g in found["sense"])
    right = {(g["seed"], g["judge"]): g["right"] for g in found["judges_with_readers"]}
    assert set(right) == {(seed, judge) for seed in (0, 1) for judge in ("vowels", "stops")}
    assert right[0, "vowels"] == pytest.approx(_right(grid, cell, sheets[0], "vowels"))
    page = (grid.path / "table6" / "table6.md").read_text(encoding="utf-8")
    assert "Read blind by language models (ann)" in page and page.index("| readers") < page.index("| vowels")


def test_a_second_reader_may_come_later_and_a_file_counts_once(grid: Grid, tmp_path: Path) -> None:
    sheet = read.write_sheets(grid, 2)[0]
    (cell,) = grid.cells
    ann = _answer(sheet, tmp_path / "a.jsonl", "ann", _longer)
    read.take_verdicts(grid, [ann])
    read.take_verdicts(grid, [ann])
    read.take_verdicts(grid, [_answer(sheet, tmp_path / "b.jsonl", "bob", lambda a, b: "")])
    assert [*read.readings_of(grid, cell)] == [0] and set(read.readings_of(grid, cell)[0].kinds) == {"ann", "bob"}
    other = _answer(sheet, tmp_path / "c.jsonl", "ann", lambda a, b: a)
    with pytest.raises(DataError, match="has answered state"):
        read.take_verdicts(grid, [other])
    assert len([*(sheet.parent / "verdicts").iterdir()]) == 2


def test_verdicts_on_nothing_or_on_replies_that_changed_are_refused(grid: Grid, tmp_path: Path) -> None:
    (cell,) = grid.cells
    (tmp_path / "x.jsonl").write_text('{"state": "none"}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="write one with --sheet"):
        read.take_verdicts(grid, [tmp_path / "x.jsonl"])
    sheet = read.write_sheets(grid, 4)[0]
    with pytest.raises(ConfigError, match="has all sheets of table6"):
        read.write_sheets(grid, 2)
    with pytest.raises(DataError, match="no verdicts on one sheet of table6"):
        read.take_verdicts(grid, [tmp_path / "x.jsonl"])
    read.take_verdicts(grid, [_answer(sheet, tmp_path / "a.jsonl", "ann", _longer)])
    said = cell.folder / "seed-0" / "BC.jsonl"
    said.write_text(said.read_text(encoding="utf-8").replace('"reply": "', '"reply": "Not '), encoding="utf-8")
    with pytest.raises(DataError, match="BC replied otherwise"):
        main.render(grid.config, SMALL, grid.path)
    with pytest.raises(DataError, match="BC replied otherwise"):
        read.take_verdicts(grid, [_answer(sheet, tmp_path / "b.jsonl", "bob", _longer)])
    assert len([*(sheet.parent / "verdicts").iterdir()]) == 1


def test_a_seed_that_comes_later_gets_a_sheet_of_its_own(grid: Grid) -> None:
    first = Grid(grid.config.model_copy(update={"seeds": (0,)}), SMALL, grid.path)
    (sheet,) = read.write_sheets(first, 2)
    before = (sheet / "sheet.jsonl").read_bytes()
    (other,) = read.write_sheets(grid, 3)
    assert other.parent.parent.name == "seed-1" and (sheet / "sheet.jsonl").read_bytes() == before


def test_too_many_states_leave_no_half_of_a_sheet(grid: Grid) -> None:
    with pytest.raises(ConfigError, match="states asked for"):
        read.write_sheets(grid, 99)
    assert not [*grid.path.rglob("read-*")]


def test_online_nothing_can_be_compared(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="online every method talks"):
        main.sheets("table3", tmp_path, 5)


@pytest.mark.parametrize(("path", "name"), [("plain", "plain"), ("sample", "sample"), ("mine.jsonl", "ALOE")])
def test_bundled_data_are_never_called_aloe(path: str, name: str, tmp_path: Path) -> None:
    assert Cell("ALOE", "tiny", DataConfig(path=path), tmp_path).source == name

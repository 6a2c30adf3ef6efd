"""Blind reading through the command line: a sheet of a run's replies, and what was answered as one judge more."""

from __future__ import annotations

import json
from pathlib import Path

from pamdp.evaluation.reading_sheet import read_key
from tests.integration.test_honest_runs import Desk
from tests.integration.test_honest_runs import desk as desk


def _answers(run: Path, reader: str) -> Path:
    """PAMDP is well formed and preferred to everybody, as somebody would say who knew."""
    lines = []
    for name, place in read_key(run / "reading-key.json", run / "reading").states.items():
        mine = place.letters["PAMDP"]
        prefer = {pair: mine for pair in place.pairs if mine in pair.split("-")}
        lines.append(
            {"state": name, "reader": reader, "kind": "model", "grades": {mine: {"form": 2}}, "prefer": prefer}
        )
    path = run / f"{reader}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_a_sheet_of_a_run_is_written_once(desk: Desk) -> None:
    run = desk.train("rl", desk.clone())
    code, err = desk.run("read", run, "--json")
    assert code == 0, err
    said = json.loads(desk.out)
    lines = (run / "reading" / "sheet.jsonl").read_text("utf-8").splitlines()
    key = read_key(Path(said["key"]), Path(said["sheet"]))
    assert len(lines) == said["states"] == len(key.states) > 1
    assert key.pairs == (("BC", "Vanilla"), ("PAMDP", "Vanilla"), ("PAMDP", "BC"))
    assert "is there already" in desk.refused("read", run)
    assert "no replies by 'Gamma'; there are: Vanilla, BC, PAMDP" in desk.refused(
        "read", run, "--methods", "BC,Gamma", "--out", run / "b", "--key", run / "b.json"
    )
    code, err = desk.run(
        "read", run, "--states", "1", "--methods", "BC,PAMDP", "--out", run / "b", "--key", run / "b.json"
    )
    assert code == 0 and "1 states to read" in " ".join(desk.out.split()), err
    assert read_key(run / "b.json", run / "b").pairs == (("PAMDP", "BC"),)


def test_readers_are_a_judge_of_the_evaluation(desk: Desk) -> None:
    run = desk.train("rl", desk.clone())
    assert desk.run("read", run)[0] == 0
    files = [_answers(run, name) for name in ("ann", "bob")]
    code, err = desk.run("eval", run, "--json", "--readings", files[0], "--readings", files[1])
    assert code == 0, err
    body = json.loads(desk.out)
    rows = {(row["method"], row["baseline"], row["judge"]): row for row in body["success"]}
    pooled = rows["PAMDP", "Vanilla", "readers"]
    assert (pooled["losses"], pooled["masked"]) == (0, 0) and pooled["wins"] > 0
    assert body["readings"]["kinds"] == {"ann": "model", "bob": "model"}
    assert {row["judge"] for row in body["readings"]["judges"]} == {"match", "likelihood"}
    assert "language models (ann, bob)" in json.loads((run / "evaluation.json").read_text())["readers"]
    assert "language models (ann, bob)" in (run / "report.html").read_text("utf-8")
    code, err = desk.run("eval", run, "--readings", files[0])
    shown = " ".join(desk.out.split())
    assert code == 0 and -1 < shown.find("Form. Shares") < shown.find("Success rate r_w method"), shown
    changed = run / "reading" / "sheet.html"
    changed.write_text("", encoding="utf-8")
    desk.loaded.clear()
    assert "was changed" in desk.refused("eval", run, "--readings", files[0]) and not desk.loaded

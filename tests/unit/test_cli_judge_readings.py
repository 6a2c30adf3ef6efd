"""From verdicts on a sheet to readings that judges are held against: `judge collect` and `judge eval --readings`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pamdp import cli
from pamdp.data.readings import Answers, ReadState, decided_pairs, load_read_states
from pamdp.errors import DataError
from pamdp.evaluation.readings import read_states
from pamdp.judges.base import Case, Verdict
from pamdp.registry import JUDGES
from pamdp.types import Message, Persona
from tests.tools.read_states import read_state
from tests.tools.reading import PV, Sheet, make_dialogues, make_replies, make_sheet, said

# ---- read_states


def _collect(sheet: Sheet, *files: Path, **profiles: Persona) -> dict[str, ReadState]:
    return {state.id: state for state in read_states(sheet.folder, sheet.key_file, files, profiles)}


def _by(state: ReadState, method: str) -> str:
    """Letter of a method's reply."""
    (letter,) = [letter for letter, reply in state.replies.items() if method in reply.by]
    return letter


def test_a_sheet_its_key_and_verdicts_become_states(sheet: Sheet) -> None:
    states = _collect(
        sheet, sheet.answer("ann", said("wltw", "01--")), sheet.answer("bob", said("wwww", "2---"), "model")
    )
    assert set(states) == {"talk-0/0", "talk-1/0", "talk-2/0", "talk-3/0"}
    state = states["talk-0/0"]
    assert (state.user_id, state.persona, state.history) == (
        "user-0", Persona("They keep 0 goats. Dry."), (Message("user", "Goat 0, day 0?"),),
    )  # fmt: skip
    assert {reply.by: reply.text for reply in state.replies.values()} == {
        (method,): texts["talk-0", 0] for method, texts in make_replies(make_dialogues()).items()
    }
    mine, other = (_by(state, method) for method in PV)
    pair = "-".join(sorted((mine, other)))
    assert state.readings == (
        Answers(reader="ann", kind="person", grades={mine: {"form": 0}}, prefer={pair: mine}),
        Answers(reader="bob", kind="model", grades={mine: {"form": 2}}, prefer={pair: mine}),
    )
    assert state.grade("form", mine) == 1.0


def test_what_was_said_by_method_is_said_by_letter(sheet: Sheet) -> None:
    states = _collect(sheet, sheet.answer("ann", said("wlt-", "---2")), sheet.answer("bob", said("wwl-", "----")))
    shares = []
    for number in range(3):
        state = states[f"talk-{number}/0"]
        ((a, b, share),) = state.pairs()
        assert {a, b} == {_by(state, method) for method in PV}
        shares.append(share if a == _by(state, PV[0]) else 1 - share)
    assert shares == [1.0, 0.5, 0.25] and states["talk-3/0"].pairs() == []


def test_states_that_nobody_answered_are_left_out(sheet: Sheet) -> None:
    answered = {name: own for name, own in said("wlwl", "----").items() if name in ("talk-1", "talk-3")}
    assert set(_collect(sheet, sheet.answer("ann", answered))) == {"talk-1/0", "talk-3/0"}
    both = sheet.answer("ann", {"talk-1": answered["talk-1"]}), sheet.answer("bob", {"talk-3": answered["talk-3"]})
    states = _collect(sheet, *both)
    assert {name: [r.reader for r in state.readings] for name, state in states.items()} == {
        "talk-1/0": ["ann"], "talk-3/0": ["bob"],
    }  # fmt: skip


def test_a_line_that_answers_nothing_is_no_answer(sheet: Sheet) -> None:
    assert set(_collect(sheet, sheet.answer("ann", said("w---", "----")))) == {"talk-0/0"}


def test_profile_and_personality_are_kept_apart_where_they_are_known(sheet: Sheet) -> None:
    file = sheet.answer("ann", said("wwww", "----"))
    states = _collect(sheet, file, **{"talk-1": Persona("They keep 1 goats.", "Dry.")})
    assert (states["talk-1/0"].profile, states["talk-1/0"].personality) == ("They keep 1 goats.", "Dry.")
    assert (states["talk-2/0"].profile, states["talk-2/0"].personality) == ("They keep 2 goats. Dry.", "")


def test_replies_of_the_same_words_have_two_authors(tmp_path: Path) -> None:
    dialogues = make_dialogues(users=1)
    replies = make_replies(dialogues)
    replies["BC"] = replies["PAMDP"]
    sheet = make_sheet(tmp_path, dialogues, replies)
    (state,) = _collect(sheet, sheet.answer("ann", said("w", "-"))).values()
    assert sorted(sorted(reply.by) for reply in state.replies.values()) == [["BC", "PAMDP"], ["Vanilla"]]
    (pair,) = decided_pairs([state])
    assert (pair.preferred, pair.kind) == (replies["PAMDP"]["talk-0", 0], "two policies")


def test_the_last_messages_are_the_history(tmp_path: Path) -> None:
    dialogues = make_dialogues(users=1, turns=5)
    sheet = make_sheet(tmp_path, dialogues, make_replies(dialogues), messages=3)
    answered = sheet.answer("ann", said("w", "-"))
    states = _collect(sheet, answered)
    assert set(states) == {f"talk-0/{t}" for t in range(5)}
    assert states["talk-0/0"].history == dialogues[0].history(0)
    assert states["talk-0/4"].history == dialogues[0].history(4)[-3:]


def test_wrong_verdicts_and_changed_sheets_are_refused(sheet: Sheet, tmp_path: Path) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text('{"state": "0", "reader": "ann", "kind": "person"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"wrong\.jsonl:1: the sheet has no state '0'"):
        _collect(sheet, path)
    path.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="no verdicts"):
        _collect(sheet, path)
    (sheet.folder / "sheet.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="was changed"):
        _collect(sheet, sheet.answer("ann", said("wwww", "----")))


# ---- the commands


class Liking:
    """Prefers what says yes, to everybody but who keeps goat 3; remembers the cases."""

    name = "liking"
    fingerprint = {"name": "liking"}  # noqa: RUF012

    def __init__(self) -> None:
        self.cases = list[Case]()

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        self.cases += cases
        sides = [("yes" in c.a.lower()) != ("goat 3" in c.persona.text) for c in cases]
        return [Verdict(0.9, 0.1) if a else Verdict(0.1, 0.9) for a in sides]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Liking:
    monkeypatch.setattr("pamdp.models.embedded.load_backbone", lambda: None)
    made = Liking()
    JUDGES.add("liking", lambda _: made)
    return made


def _run(*args: str | Path) -> str:
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["judge", *map(str, args)], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def _refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str | Path, code: int = 1
) -> str:
    """The one line that the real entry point ends with."""
    monkeypatch.setattr(sys, "argv", ["pamdp", "judge", *map(str, args)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert end.value.code == code and out == "" and err.startswith("pamdp: ") and err.count("\n") == 1, err
    return err


def _file(path: Path, *states: ReadState) -> Path:
    path.write_text("".join(json.dumps(s.model_dump(mode="json")) + "\n" for s in states), encoding="utf-8")
    return path


def _eval(path: Path) -> dict[str, Any]:
    text = _run("eval", "--judge", "liking", "--readings", path, "--json")
    found: dict[str, Any] = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    return found


def test_collect_writes_what_read_states_reads(sheet: Sheet, tmp_path: Path) -> None:
    files = [sheet.answer("ann", said("wl--", "02--")), sheet.answer("bob", said("wwt-", "----"), "model")]
    out = tmp_path / "readings.jsonl"
    where = ["--sheet", sheet.folder, "--key", sheet.key_file, "--out", out]
    states = read_states(sheet.folder, sheet.key_file, files, {})
    assert json.loads(_run("collect", *files, *where, "--json")) == {"out": str(out), "states": len(states)}
    assert load_read_states(out) == states and len(states) == 3
    before = out.read_bytes()
    assert f"3 states in {out}; next: pamdp judge train --readings {out}" in " ".join(
        _run("collect", *files, *where).split()
    )
    assert out.read_bytes() == before


def test_what_was_collected_is_what_a_judge_is_held_against(sheet: Sheet, tmp_path: Path, judge: Liking) -> None:
    out = tmp_path / "readings.jsonl"
    files = [sheet.answer("ann", said("wlt-", "----"))]
    _run("collect", *files, "--sheet", sheet.folder, "--key", sheet.key_file, "--out", out)
    assert _eval(out)["n"] == 2
    own = [case for case in judge.cases if case.persona.text.startswith("They keep 0")]
    assert {case.a for case in own} >= {"words of kind 0 to talk-0 at 0"}


def test_collect_refuses_in_one_line_and_writes_nothing(
    sheet: Sheet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, out = sheet.answer("ann", said("wwww", "----")), tmp_path / "readings.jsonl"
    where = ["--sheet", sheet.folder, "--key", sheet.key_file]
    bad = tmp_path / "bad.jsonl"
    bad.write_text(good.read_text("utf-8").replace('"person"', '"robot"'), encoding="utf-8")
    assert f"{bad}:1: kind: " in _refused(monkeypatch, capsys, "collect", good, bad, *where, "--out", out)
    no_key = ["--sheet", sheet.folder, "--key", tmp_path / "none.json"]
    assert "none.json: cannot be read" in _refused(monkeypatch, capsys, "collect", good, *no_key, "--out", out)
    assert "none/x.jsonl: cannot be written" in _refused(
        monkeypatch, capsys, "collect", good, *where, "--out", tmp_path / "none" / "x.jsonl"
    )
    assert "--out" in _refused(monkeypatch, capsys, "collect", good, *where, code=2)
    assert "erdicts" in _refused(monkeypatch, capsys, "collect", *where, "--out", out, code=2).replace("VERD", "verd")
    assert not out.exists() and not (tmp_path / "none").exists()


YES = ["Yes.", "No."]


def test_eval_on_readings_counts_what_readers_decided(tmp_path: Path, judge: Liking) -> None:
    states = [
        read_state("1", YES, [{"A-B": "A"}], by=[["clone"], ["clone, drawn"]]),
        read_state("2", YES, [{"A-B": "B"}], by=[["clone"], ["bare"]]),
        read_state("3", YES, [{"A-B": "B"}], by=[["clone"], ["bare"]]),
        read_state("4", YES, [{"A-B": "A"}, {"A-B": "B"}]),  # readers are divided
        read_state("5", YES, [{"A-B": "A"}, {"A-B": "tie"}], by=[["clone"], ["bare"]]),
    ]
    found = _eval(_file(tmp_path / "readings.jsonl", *states))
    # 1, 3 and 5 are as the readers said; without the person 3 is not, and 2 is wrong either way.
    assert (found["judge"], found["n"], found["accuracy"]) == ("liking", 4, 0.75)
    assert {kind: (row["accuracy"], row["n"]) for kind, row in found["by_kind"].items()} == {
        "one policy": (1.0, 1), "two policies": (0.6667, 3),
    }  # fmt: skip
    assert found["controls"]["persona_blind"] == 0.5
    assert (found["skipped"], found["read_by"]) == (0, "read blind by 2 people")
    assert len(judge.cases) == 3 * 4


def test_pairs_of_one_user_are_one_cluster(tmp_path: Path, judge: Liking) -> None:
    said = [{"A-B": "A"}]
    one = [read_state(str(i), YES, said, user="ana") for i in range(4)]
    two = [*one[:2], *(read_state(str(i), YES, said, user="ben") for i in (4, 5))]
    assert _eval(_file(tmp_path / "one.jsonl", *one))["ci95"] is None
    assert len(_eval(_file(tmp_path / "two.jsonl", *two))["ci95"]) == 2


@pytest.mark.parametrize(
    "states", [[], [read_state("1", YES, [{"A-B": "tie"}])], [read_state("1", YES, grades=[{"A": {"form": 1}}])]]
)
def test_readings_that_decide_nothing_are_refused(
    states: list[ReadState],
    tmp_path: Path,
    judge: Liking,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = _file(tmp_path / "readings.jsonl", *states)
    _refused(monkeypatch, capsys, "eval", "--judge", "liking", "--readings", path)


def test_for_people_it_says_who_read(tmp_path: Path, judge: Liking) -> None:
    path = _file(tmp_path / "readings.jsonl", read_state("1", YES, [{"A-B": "A"}, {"A-B": "A"}]))
    shown = _run("eval", "--judge", "liking", "--readings", path)
    assert "judge liking" in shown and "1.000" in shown and "read blind by 2 people" in shown


def test_pairs_still_are_evaluated(tmp_path: Path, judge: Liking) -> None:
    pair = {"history": [{"role": "user", "content": "Tea?"}], "preferred": "Yes.", "rejected": "No.", "profile": "Ana."}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(pair) + "\n", encoding="utf-8")
    found = json.loads(_run("eval", "--judge", "liking", "--pairs", path, "--json"))
    assert (found["accuracy"], found["n"], found["read_by"]) == (1.0, 1, "")


@pytest.mark.parametrize("given", [(), ("--pairs", "sample", "--readings", "test")])
def test_either_pairs_or_readings(
    given: tuple[str, ...], judge: Liking, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _refused(monkeypatch, capsys, "eval", "--judge", "liking", *given)
    assert "either --readings or --pairs" in said and not judge.cases


def test_bad_readings_are_one_line(
    tmp_path: Path, judge: Liking, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _file(tmp_path / "readings.jsonl", read_state("1", YES, [{"A-B": "A"}]))
    path.write_text(path.read_text("utf-8") + '{"id": "2"}\n', encoding="utf-8")
    assert f"{path}:2: user_id: " in _refused(monkeypatch, capsys, "eval", "--judge", "liking", "--readings", path)
    assert "none.jsonl: cannot be read" in _refused(
        monkeypatch, capsys, "eval", "--judge", "liking", "--readings", tmp_path / "none.jsonl"
    )
    assert not judge.cases

"""The check: figures by hand, problems named, and no fault hidden behind another."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from pamdp.data import write_dialogues, write_pairs, write_trl, write_trl_pairs
from pamdp.data.check import CheckReport, check
from pamdp.data.text_overlap import content_words, longest_run, words
from pamdp.errors import ConfigError, DataError
from pamdp.types import Dialogue, Message, Persona, PreferencePair, Turn

ASK = (Message("user", "Dinner?"),)
BEES = Persona("Ann keeps forty hives of bees behind the old mill.", "Curt.")
BAKER = Persona("Bo bakes bread at night.", "Loud.")


def pair(id: str, preferred: str, rejected: str, twin: str | None = None, who: Persona = BEES) -> PreferencePair:
    return PreferencePair(id, who, ASK, preferred, rejected, "style", twin)


DIALOGUES = [
    Dialogue("d", "ann", BEES, (Turn("Hi", "Hello there", "Yo"), Turn("Ok", "So", "Right then"), Turn("Bye", "Bye"))),
    Dialogue("e", "ann", BEES, (Turn("Hey", "Hm", "Well!"),)),
]
PAIRS = [
    pair("a", "Soup tonight.", "Try honey from your hives!", "b"),
    pair("b", "Try honey from your hives!", "Soup tonight.", "a", BAKER),
    pair("c", "A curt soup.", "A very long soup."),
    pair("d", "She keeps forty hives of bees behind the mill.", "Soup."),
]


def shown(report: CheckReport) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(report.table())
    return console.file.getvalue()


def test_dialogues(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "a.jsonl", DIALOGUES)
    report = check(tmp_path / "a.jsonl")
    assert (report.format, report.dialogues, report.users, report.turns) == ("jsonl", 2, 1, 4)
    assert report.labelled_turns == 3 and report.turns_preferred_longer == pytest.approx(1 / 3)
    assert report.mean_characters == {"user": 2.5, "preferred": 4.5, "rejected": 17 / 3}
    assert report.pairs == 0 and report.pairs_preferred_longer is None and report.pairs_without_persona_word is None
    assert report.ok and report.problems == () and report.skipped == ()
    assert report.notes == (
        "preferred is the longer reply in 33 % of the labelled turns: a judge of length alone profits",
    )


def test_pairs(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a.jsonl", PAIRS)
    report = check(tmp_path / "a.jsonl")
    assert (report.format, report.pairs, report.kinds, report.twins) == ("pairs", 4, {"style": 4}, 2)
    assert report.pairs_preferred_longer == 0.5
    assert report.pairs_without_profile_word == 0.75, "only the last reply has words of its profile"
    assert report.pairs_without_persona_word == 0.5, "curt is the personality's"
    assert (report.parroting, report.longest_run) == (1, 7)
    assert report.ok and report.notes == ("1 preferred replies recite the profile (6 of its words in a row or more)",)


def test_a_folder_is_one_report(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "a.jsonl", DIALOGUES)
    write_pairs(tmp_path / "b.jsonl", PAIRS)
    (tmp_path / "c.jsonl").write_text('"Ann bakes."\n"Bo sails."\n')
    report = check(tmp_path)
    assert report.format == "jsonl + pairs + personas"
    assert (report.dialogues, report.pairs, report.texts) == (2, 4, 2) and report.ok


def test_trl_lines_count_as_what_they_tell(tmp_path: Path) -> None:
    write_trl_pairs(tmp_path / "a.jsonl", PAIRS)
    assert (check(tmp_path / "a.jsonl").pairs, check(tmp_path / "a.jsonl").twins) == (4, 2)
    write_trl(tmp_path / "a.jsonl", DIALOGUES[1:])
    assert (check(tmp_path / "a.jsonl").dialogues, check(tmp_path / "a.jsonl").pairs) == (1, 0)


def broken(folder: Path) -> Path:
    good = '{"id": "%s", "turns": [{"user": "Hi"}]}'
    lines = [good % "a", "{oops", '{"turns": []}', good % "b" + good % "c", good % "a"]
    path = folder / "a.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_every_fault_is_a_problem(tmp_path: Path) -> None:
    path = broken(tmp_path)
    report = check(path)
    assert not report.ok and report.dialogues == 3 and report.skipped == ()
    assert sorted(problem.split(":")[1] for problem in report.problems) == ["2", "3", "4", "5"]


def test_skipped_faults_are_no_problems_but_counted(tmp_path: Path) -> None:
    report = check(broken(tmp_path), skip_bad=True)
    assert report.ok and report.dialogues == 3 and len(report.skipped) == 3
    assert report.repaired == {"more than one JSON value on the line": 1}


def test_nothing_left_is_a_problem_even_when_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"turns": []}')
    report = check(path, skip_bad=True)
    assert not report.ok and "0 dialogues, 0 pairs" in report.problems[0]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([pair("a", "x", "x")], "pair 'a': preferred and rejected are the same text"),
        ([pair("a", "x", "y", "b")], "pair 'a': its twin 'b' is not there"),
        ([pair("a", "x", "y", "b"), pair("b", "y", "x")], "pair 'a': its twin 'b' names None"),
        ([pair("a", "x", "y", "b"), pair("b", "x", "y", "a")], "pair 'a': it and 'b' are no twins"),
        ([pair("a", "x", "y", "b"), PreferencePair("b", BEES, (*ASK, *ASK[:0], Message("assistant", "?"), *ASK),
                                                   "y", "x", "", "a")], "pair 'a': it and 'b' are no twins"),
    ],
)  # fmt: skip
def test_pairs_that_cannot_be_meant(pairs: list[PreferencePair], message: str, tmp_path: Path) -> None:
    write_pairs(tmp_path / "a.jsonl", pairs)
    assert any(problem.startswith(message) for problem in check(tmp_path / "a.jsonl").problems)


def test_a_turn_that_prefers_nothing(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "a.jsonl", [Dialogue("d", "u", BEES, (Turn("Hi", "Yo", "Yo"),))])
    assert check(tmp_path / "a.jsonl").problems == (
        "dialogue 'd', turn 1: preferred and rejected are the same text (leave it out: it prefers nothing)",
    )


def test_json_holds_the_whole_report(tmp_path: Path) -> None:
    report = check(broken(tmp_path))
    value = json.loads(report.to_json())
    assert value["ok"] is False and value["problems"] == list(report.problems) and value["dialogues"] == 3
    assert value["sha256"] == report.sha256 and value["turns_preferred_longer"] is None


def test_the_table_shows_figures_and_problems(tmp_path: Path) -> None:
    text = shown(check(broken(tmp_path)))
    assert "3 of 3 users" in text and "not valid JSON" in text and "to be mended: 4" in text
    write_pairs(tmp_path / "a.jsonl", PAIRS)
    text = shown(check(tmp_path / "a.jsonl"))
    assert "4 style" in text and "75.0 %" in text and "good" in text and "problem" not in text


def test_a_folder_with_one_foreign_file_is_still_reported_on(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a.jsonl", PAIRS)
    (tmp_path / "b.json").write_text('{"model": "x"}')
    report = check(tmp_path)
    assert report.pairs == 4 and len(report.problems) == 1 and "its records have the fields model" in report.problems[0]
    with pytest.raises(DataError, match="no known layout"):
        check(tmp_path / "b.json")


def test_the_table_sends_no_control_characters(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a.jsonl", [PreferencePair("\x1b[2Ja", BEES, ASK, "x", "x", "\x1b[31mred")])
    text = shown(check(tmp_path / "a.jsonl"))
    assert "\x1b" not in text and "red" in text and "same text" in text


def test_the_table_shows_markup_as_text_and_shortens_long_lists(tmp_path: Path) -> None:
    path = tmp_path / "[red]a.jsonl"
    path.write_text("\n".join(['{"turns": [{"user": "Hi"}]}', *["[/]"] * 30]))
    text = shown(check(path))
    assert "[red]a.jsonl" in text and "and 10 more" in text


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        check(tmp_path / "missing")
    with pytest.raises(ConfigError, match="no layout 'x'"):
        check(broken(tmp_path), format="x")


def test_words() -> None:
    assert words("Ann's 2 don't-ever café!") == ["ann", "2", "don't", "ever", "café"]
    assert content_words("She bakes and is baking the bread") == {"bak", "bread"}
    assert content_words("he would have been there") == set()


@pytest.mark.parametrize(
    ("profile", "reply", "run"),
    [("a b c d", "x b c y", 2), ("a b a b c", "a b c", 3), ("", "a", 0), ("a", "", 0), ("one two", "two one", 1)],
)
def test_longest_run(profile: str, reply: str, run: int) -> None:
    assert longest_run(profile, reply) == run

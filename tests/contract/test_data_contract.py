"""What every loader promises, whatever the layout: one suite, run on all of them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from pamdp.data import Loaded, LoadedPairs, load_dialogues, load_pairs
from pamdp.data.reading import Intake
from pamdp.errors import ConfigError, DataError
from pamdp.registry import LAYOUTS
from pamdp.types import Dialogue, PreferencePair

WHO = ("Ola keeps bees", "Ben fears dogs", "Mia is vegan")


def aloe(n: int) -> dict[str, object]:
    turns = [
        {"user": f"Question {t}?", "assistant": {"preferred": f"Good {t}", "rejected": f"Bad {t}"},
         "chosen": "rejected" if t == n else "preferred", "inferred_profile": "None", "inferred_personality": "terse"}
        for t in range(3)
    ]  # fmt: skip
    return {"profile": WHO[n], "personality": "Terse.", "conversations": turns}


def own(n: int) -> dict[str, object]:
    turns = [{"user": f"Question {t}?", "preferred": f"Good {t}", "rejected": None} for t in range(2)]
    return {"id": f"d{n}", "user_id": f"u{n}", "profile": WHO[n], "turns": [*turns, {"user": "Bye"}]}


def feedback(n: int) -> dict[str, object]:
    rated = {"text": "Good", "reward": 1, "by": ["thumb"], "action": [0.5], "mean": [0.0], "sigma": 0.5}
    turns = [{"user": f"Question {t}?", "preferred": "Good", "rejected": "Bad", "rated": [rated]} for t in range(2)]
    return {"id": f"d{n}", "user_id": f"u{n}", "profile": WHO[n], "turns": turns}


def readings(n: int) -> dict[str, object]:
    said = {"reader": "r", "kind": "person", "prefer": {"A-B": "A"}}
    history = [{"role": "user", "content": "Question 0?"}, {"role": "assistant", "content": "Good"}]
    return {
        "id": f"d{n}", "user_id": f"u{n}", "profile": WHO[n], "readings": [said],
        "history": [*history, {"role": "user", "content": "Question 1?"}],
        "replies": {"A": {"text": "Good"}, "B": {"text": "Bad"}},
    }  # fmt: skip


def prefeval(n: int) -> dict[str, object]:
    talk = {str(t): {"user": f"Question {t}?", "assistant": f"Good {t}"} for t in range(12)}
    return {"preference": "I hate noise.", "question": "Where?", "persona": WHO[n], "conversation": talk}


def options(n: int) -> dict[str, object]:
    return {"preference": WHO[n], "question": "Where to?", "classification_task_options": ["Yes", "No", "Never", "Oh"]}


def spc(n: int) -> list[str]:
    return [f"{WHO[n]}.\nI like tea.", "I am tall.", "User 1: Hi!\nUser 2: Hello!\nUser 1: Nice day.\nUser 2: It is."]


def trl(n: int) -> dict[str, object]:
    ask = [{"role": "user", "content": f"Question {n}?"}]
    return {"prompt": ask, "profile": WHO[n],
            "chosen": [{"role": "assistant", "content": "Good"}],
            "rejected": [{"role": "assistant", "content": "Bad"}]}  # fmt: skip


def pair(n: int) -> dict[str, object]:
    return {"id": f"p{n}", "profile": WHO[n], "history": [{"role": "user", "content": "Hm?"}],
            "preferred": "Good", "rejected": "Bad", "kind": "style"}  # fmt: skip


def messages(n: int) -> dict[str, object]:
    roles = ("user", "assistant", "user")
    said = [{"role": role, "content": f"{role} {t}"} for t, role in enumerate(roles)]
    return {"messages": said, "profile": WHO[n], "user_id": n + 1}


def sharegpt(n: int) -> dict[str, object]:
    said = [{"from": speaker, "value": f"Text {t}"} for t, speaker in enumerate(("human", "gpt") * 2)]
    return {"conversations": said, "profile": WHO[n]}


def alpaca(n: int) -> dict[str, object]:
    return {"instruction": "Say hi", "output": "Hi", "history": [["Hello", "Hi there"]] * n, "profile": WHO[n]}


def lines(records: list[object]) -> str:
    return "".join(record if isinstance(record, str) else json.dumps(record) + "\n" for record in records)


def array(records: list[object]) -> str:
    return "[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n"


def table(records: list[object]) -> str:
    text = io.StringIO()
    rows = [["user 1 personas", "user 2 personas", "Best Generated Conversation"], *records]
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


@dataclass(frozen=True)
class Case:
    """One layout: how its records look, a record that is bad, and the line of the second of three records."""

    name: str
    record: Callable[[int], object]
    bad: object
    join: Callable[[list[object]], str]
    second_line: int
    suffix: str = ".jsonl"

    def write(self, folder: Path, records: list[object]) -> Path:
        path = folder / f"data{self.suffix}"
        path.write_text(self.join(records), encoding="utf-8")
        return path

    def three(self) -> list[object]:
        return [self.record(n) for n in range(3)]


CASES = [
    Case("aloe", aloe, aloe(0) | {"conversations": []}, lines, 2),
    Case("jsonl", own, own(0) | {"turns": [{"preferred": "x"}]}, lines, 2),
    Case("feedback", feedback, feedback(0) | {"turns": [{"preferred": "x", "rated": []}]}, lines, 2),
    Case("readings", readings, readings(0) | {"replies": {}}, lines, 2),
    Case("prefeval", prefeval, prefeval(0) | {"conversation": {"1": {}}}, array, 3, ".json"),
    Case("prefeval-mcq", options, options(0) | {"classification_task_options": ["x"]}, array, 3, ".json"),
    Case("spc", spc, ["a", "b", "nobody speaks"], table, 7, ".csv"),
    Case("trl", trl, trl(0) | {"rejected": []}, lines, 2),
    Case("pairs", pair, pair(0) | {"history": []}, lines, 2),
    Case("messages", messages, messages(0) | {"messages": [{"role": "user", "content": ""}]}, lines, 2),
    Case("sharegpt", sharegpt, sharegpt(0) | {"conversations": [{"from": "me", "value": "Hi"}]}, array, 3, ".json"),
    Case("alpaca", alpaca, alpaca(0) | {"output": ""}, array, 3, ".json"),
]
DIALOGUE_CASES = [case for case in CASES if "dialogues" in LAYOUTS[case.name].makes]
PAIR_CASES = [case for case in CASES if "pairs" in LAYOUTS[case.name].makes]
of_dialogues = pytest.mark.parametrize("case", DIALOGUE_CASES, ids=lambda case: case.name)
of_pairs = pytest.mark.parametrize("case", PAIR_CASES, ids=lambda case: case.name)
Load = Callable[..., Loaded | LoadedPairs]
BOTH = [(case, load_dialogues) for case in DIALOGUE_CASES] + [
    (case, load_pairs) for case in PAIR_CASES if case.name != "jsonl"
]


def name_of(value: Case | Load) -> str:
    return value.name if isinstance(value, Case) else value.__name__


of_both = pytest.mark.parametrize(("case", "load"), BOTH, ids=name_of)
of_json = pytest.mark.parametrize(("case", "load"), [both for both in BOTH if both[0].join is not table], ids=name_of)


def test_every_layout_has_its_case() -> None:
    assert {case.name for case in CASES} == {*LAYOUTS} - {"personas"}


def assert_clean(*texts: str | None) -> None:
    for text in texts:
        assert text is None or (text and text == text.strip() and "\0" not in text and len(text) <= 100_000)


@of_dialogues
def test_dialogues_are_whole(case: Case, tmp_path: Path) -> None:
    loaded = load_dialogues(case.write(tmp_path, case.three()))
    assert len(loaded) == 3
    assert len({dialogue.id for dialogue in loaded}) == 3
    assert len({dialogue.user_id for dialogue in loaded}) == 3
    for dialogue in loaded:
        assert isinstance(dialogue, Dialogue)
        assert dialogue.id and dialogue.user_id and dialogue.turns
        assert dialogue.persona.profile.startswith(WHO[loaded.dialogues.index(dialogue)])
        for t, turn in enumerate(dialogue.turns):
            assert turn.user
            assert_clean(turn.user, turn.preferred, turn.rejected)
            roles = [message.role for message in dialogue.history(t)]
            assert roles == ["user", "assistant"] * t + ["user"]


@of_pairs
def test_pairs_are_whole(case: Case, tmp_path: Path) -> None:
    if case.name == "jsonl":
        case = Case("jsonl", lambda n: own(n) | {"turns": [{"user": "Hm?", "preferred": "Good", "rejected": "Bad"}]},
                    case.bad, lines, 2)  # fmt: skip
    loaded = load_pairs(case.write(tmp_path, case.three()))
    assert len({pair.id for pair in loaded}) == len(loaded) >= 3
    for pair in loaded:
        assert isinstance(pair, PreferencePair)
        assert_clean(pair.id, pair.preferred, pair.rejected, *(message.content for message in pair.history))
        assert [message.role for message in pair.history][::2] == ["user"] * (len(pair.history) // 2 + 1)
        assert pair.preferred != pair.rejected and pair.persona.text


@of_both
def test_the_content_shows_the_layout(case: Case, load: Load, tmp_path: Path) -> None:
    path = case.write(tmp_path, case.three())
    assert load(path).format == case.name
    assert load(path) == load(str(path), format=case.name)


HELD: dict[str, Callable[[Path, list[object]], object]] = {
    "data.jsonl": lambda path, records: path.write_text(lines(records)),
    "data.json": lambda path, records: path.write_text(array(records)),
    "data.jsonl.gz": lambda path, records: path.write_bytes(gzip.compress(lines(records).encode())),
    "data.json.gz": lambda path, records: path.write_bytes(gzip.compress(array(records).encode())),
    "data.parquet": lambda path, records: parquet.write_table(pyarrow.Table.from_pylist(records), path),
    "data.arrow": lambda path, records: write_arrow(path, records),
}


def write_arrow(path: Path, records: list[object]) -> None:
    table = pyarrow.Table.from_pylist(records)
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


@of_json
@pytest.mark.parametrize("name", HELD)
def test_json_records_are_the_same_however_a_file_holds_them(case: Case, load: Load, name: str, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "other").mkdir()
    HELD["data.jsonl"](tmp_path / "plain" / "data.jsonl", case.three())
    HELD[name](tmp_path / "other" / name, case.three())
    found = load(tmp_path / "other" / name)
    assert found.items == load(tmp_path / "plain" / "data.jsonl").items and found.format == case.name


@of_both
def test_the_account_names_the_bytes(case: Case, load: Load, tmp_path: Path) -> None:
    path = case.write(tmp_path, case.three())
    loaded = load(path)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.skipped == () and not loaded.repaired


@of_both
def test_a_bad_record_stops_the_loading_with_its_line(case: Case, load: Load, tmp_path: Path) -> None:
    first, _, third = case.three()
    path = case.write(tmp_path, [first, case.bad, third])
    with pytest.raises(DataError) as caught:
        load(path)
    assert caught.value.line == case.second_line
    assert str(caught.value).startswith(f"{path}:{case.second_line}: ") and "\n" not in str(caught.value)


@of_both
def test_a_bad_record_is_skipped_and_counted(case: Case, load: Load, tmp_path: Path) -> None:
    first, second, third = case.three()
    whole = load(case.write(tmp_path, [first, second, third]))
    loaded = load(case.write(tmp_path, [first, case.bad, third]), skip_bad=True)
    assert [error.line for error in loaded.skipped] == [case.second_line]
    assert len(loaded) == len(whole) * 2 // 3
    assert next(iter(loaded)) == next(iter(whole))


@of_both
def test_only_bad_records_are_an_error_even_when_skipped(case: Case, load: Load, tmp_path: Path) -> None:
    path = case.write(tmp_path, [case.bad])
    with pytest.raises(DataError, match=r"is left; bad records: 1, the first at .*data"):
        load(path, format=case.name, skip_bad=True)


@of_both
def test_no_record_is_an_error(case: Case, load: Load, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text(case.join([]) or "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"there is no (dialogue|preference pair) in it"):
        load(path, format=case.name)


@of_both
@pytest.mark.parametrize("ends", ["\r\n", "\n"])
def test_byte_order_mark_and_windows_line_ends_change_nothing(
    case: Case, load: Load, ends: str, tmp_path: Path
) -> None:
    path = case.write(tmp_path, case.three())
    plain = tuple(load(path))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", ends.encode()))
    assert tuple(load(path)) == plain


@of_both
def test_a_record_twice_is_a_duplicate_id(case: Case, load: Load, tmp_path: Path) -> None:
    named = [record | {"id": "same"} if isinstance(record, dict) else record for record in case.three()]
    path = case.write(tmp_path, named)
    if case.name in {"prefeval", "prefeval-mcq", "spc"}:
        assert len(load(path)) >= 3, "these layouts know no ids"
        return
    with pytest.raises(DataError, match="occurs twice"):
        load(path)
    assert [error.line for error in load(path, skip_bad=True).skipped] == [case.second_line, case.second_line + 1]


@of_dialogues
def test_the_first_dialogue_comes_before_a_later_fault_is_met(case: Case, tmp_path: Path) -> None:
    path = case.write(tmp_path, [case.record(0), case.bad])
    items = LAYOUTS[case.name].stream("dialogues", path, Intake())
    assert next(items).persona.profile.startswith(WHO[0])
    with pytest.raises(DataError):
        next(items)


@of_both
def test_a_folder_is_read_file_by_file(case: Case, load: Load, tmp_path: Path) -> None:
    text = case.join([case.record(0)])
    (tmp_path / f"b{case.suffix}").write_text(text.replace('"d0"', '"e0"').replace('"p0"', '"q0"'), encoding="utf-8")
    (tmp_path / f"a{case.suffix}").write_text(text, encoding="utf-8")
    (tmp_path / "notes.txt").write_text("not data", encoding="utf-8")
    one = load(tmp_path / f"a{case.suffix}")
    both = load(tmp_path)
    assert len(both) == 2 * len(one) and tuple(both)[: len(one)] == tuple(one)
    assert both.sha256 != one.sha256


@of_both
def test_an_unknown_layout_is_named(case: Case, load: Load, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no layout 'chatml'; there are: aloe, .*trl"):
        load(case.write(tmp_path, case.three()), format="chatml")

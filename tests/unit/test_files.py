"""Whatever happens in the middle of a write, the old content or the new one is there."""

import json
import os
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamdp import files
from pamdp.errors import RunError
from pamdp.files import (
    json_line,
    new_folder,
    read_json_lines,
    remove_folder,
    require_replaceable,
    sweep,
    write_atomic,
    write_json,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_bytes_and_json_arrive(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.txt", "émincé 🙂\n")
    write_atomic(tmp_path / "b.bin", b"\x00\xff")
    write_json(tmp_path / "c.json", {"ω": [1, None, 0.1]})
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "émincé 🙂\n"
    assert (tmp_path / "b.bin").read_bytes() == b"\x00\xff"
    assert json.loads((tmp_path / "c.json").read_text()) == {"ω": [1, None, 0.1]}
    assert names(tmp_path) == ["a.txt", "b.bin", "c.json"]


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "a", "old")

    def full(_handle: int) -> NoReturn:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_file_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(files, "_sync", lambda path: order.append(f"sync {path.name.rpartition('.')[0]}"))
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), real(a, b)))
    write_atomic(tmp_path / "x.y", "new")
    assert order[:2] == ["sync .part-x.y", "rename"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "run") as part:
        (part / "a").write_text("1")
        assert not (tmp_path / "deep" / "run").exists()
    assert names(tmp_path / "deep") == ["run"]
    with pytest.raises(RuntimeError), new_folder(tmp_path / "deep" / "other") as part:
        (part / "a").write_text("1")
        raise RuntimeError
    assert names(tmp_path / "deep") == ["run"]


def test_a_folder_replaces_what_was_there(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with new_folder(tmp_path / "run") as part:
            (part / text).write_text(text)
    assert names(tmp_path) == ["run"] and names(tmp_path / "run") == ["new"]


def test_a_folder_loses_its_name_before_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old" / "deep").mkdir(parents=True)
    monkeypatch.setattr(files.shutil, "rmtree", lambda path: None)
    remove_folder(tmp_path / "old")
    assert not (tmp_path / "old").exists()
    monkeypatch.undo()
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_sweeping_takes_unfinished_work_only(tmp_path: Path) -> None:
    (tmp_path / f"{files.PART}x").mkdir()
    (tmp_path / f"{files.PART}y").write_text("")
    (tmp_path / "keep").write_text("")
    sweep(tmp_path)
    assert names(tmp_path) == ["keep"]


@given(st.lists(st.dictionaries(st.text(), VALUES), max_size=4), st.data())
def test_a_torn_last_line_is_dropped_and_no_other(records: list[dict[str, files.Json]], data: st.DataObject) -> None:
    import tempfile

    whole = "".join(json_line(record) for record in records).encode()
    cut = data.draw(st.integers(0, len(whole)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jsonl"
        path.write_bytes(whole[:cut])
        assert read_json_lines(path) == records[: whole[:cut].count(b"\n")]


def test_not_a_number_becomes_null(tmp_path: Path) -> None:
    line = json_line({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": -float("inf")}})
    assert json.loads(line) == {"a": None, "b": [None, 1.5], "c": {"d": None}}


@pytest.mark.parametrize("bad", [b"{}\nnot json\n{}\n", b'{}\n{"a": \xff}\n', b"{}\n[1]\n"])
def test_a_damaged_line_is_named(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(bad)
    with pytest.raises(RunError, match=r"x\.jsonl:2: not"):
        read_json_lines(tmp_path / "x.jsonl")


def test_no_file_no_records(tmp_path: Path) -> None:
    assert read_json_lines(tmp_path / "none.jsonl") == []


def test_only_a_folder_of_ones_own_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ("a.bin", "b.json")
    for good in ("new", "deep/er/new", "empty", "mine"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "b.json").touch()
        require_replaceable(tmp_path / good, own)
    (tmp_path / "mine" / "notes.txt").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    monkeypatch.chdir(tmp_path / "mine")
    for bad, says in (
        (tmp_path / "mine", "holds 'notes.txt'"),
        (Path("."), "give a name inside it"),
        (Path(".."), "give a name inside it"),
        (Path("/"), "give a name inside it"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "link", "is a link"),
        (tmp_path / "file" / "new", "cannot be made"),
    ):
        with pytest.raises(RunError, match=says) as error:
            require_replaceable(bad, own)
        assert "\n" not in str(error.value)

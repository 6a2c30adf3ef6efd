"""Packed files, rows of columns and data sets of the hub: read like all others, and every fault is one line."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from pamdp.data import load_dialogues, load_personas
from pamdp.data import reading as reading_module
from pamdp.data.check import check
from pamdp.data.files import data_files
from pamdp.errors import DataError, PamdpError


def talk(id: str) -> dict[str, object]:
    return {"id": id, "turns": [{"user": "Hi", "preferred": "Hello", "rejected": "Yo"}]}


def ids(path: Path | str, skip_bad: bool = False) -> list[str]:
    return [dialogue.id for dialogue in load_dialogues(path, skip_bad=skip_bad)]


def lines(*records: object) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def test_what_is_packed_is_known_by_its_bytes(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.json"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(lines({"turns": talk("x")["turns"]})))
        assert ids(path) == [f"{name[0]}:1"]
        assert load_dialogues(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert data_files(tmp_path) == [tmp_path / "a.jsonl.gz", tmp_path / "b.json"]


def test_a_packed_table_and_pool(tmp_path: Path) -> None:
    rows = b'user 1 personas,user 2 personas,Best Generated Conversation\na,b,"User 1: Hi\nUser 2: Hello"\n'
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(rows))
    assert load_dialogues(tmp_path / "a.csv.gz").format == "spc"
    (tmp_path / "p.json.gz").write_bytes(gzip.compress(b'["Ann bakes.", "Bo sails."]'))
    assert list(load_personas(tmp_path / "p.json.gz")) == ["Ann bakes.", "Bo sails."]


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-9], lambda raw: raw[:40] + b"!!!!" + raw[44:]])
def test_a_damaged_packed_file(spoil: object, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(spoil(gzip.compress(lines(*(talk(str(n)) for n in range(50))))))  # type: ignore[operator]
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: what gzip packed is damaged or cut off \(fetch"):
        load_dialogues(path)


def test_a_packed_file_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "MAX_LINE", 200)
    monkeypatch.setattr(reading_module, "MAX_DOCUMENT", 500)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines(talk("a"), "x" * 9_000, talk("b"))))
    with pytest.raises(DataError, match=r"gz:2: the line is longer than 200 bytes"):
        load_dialogues(path)
    assert ids(path, skip_bad=True) == ["a", "b"]
    path.write_bytes(gzip.compress(json.dumps([talk("a"), "x" * 900]).encode()))
    with pytest.raises(DataError, match=r"gz: larger than 500 bytes"):
        load_dialogues(path)


def test_an_array_on_one_long_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "MAX_LINE", 50)
    (tmp_path / "a.json").write_text(json.dumps([talk("a"), talk("b")]))
    assert ids(tmp_path / "a.json") == ["a", "b"]


def test_rows_of_columns(tmp_path: Path) -> None:
    bad = {"id": "bad", "turns": [{"user": "", "preferred": "x", "rejected": "y"}]}
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([talk("a"), bad, {"turns": talk("c")["turns"]}]), path)
    with pytest.raises(DataError, match=r"a\.parquet:2: `turns`, item 1, `user` is empty"):
        load_dialogues(path)
    assert ids(path, skip_bad=True) == ["a", "a:3"]
    assert load_dialogues(path, skip_bad=True).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_columns_that_show_no_layout(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"label": [1], "text": ["Hi"]}), path)
    with pytest.raises(DataError, match=r"a\.parquet: no known layout: its records have the fields label, text"):
        load_dialogues(path)


@pytest.mark.parametrize("mark", [b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"])
def test_a_damaged_file_of_columns(mark: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(mark + b"\x10\0\0\0nothing of the kind")
    with pytest.raises(DataError, match=r"a\.parquet:1: .*row 1 cannot be read: ") as caught:
        load_dialogues(path)
    assert "\n" not in str(caught.value) and caught.value.fix
    with pytest.raises(DataError, match="row 1 cannot be read"):
        load_dialogues(path, format="jsonl")


@pytest.mark.parametrize("kind", ["parquet", "arrow", "gzip"])
def test_bytes_that_changed_on_the_way_are_one_line(kind: str, tmp_path: Path) -> None:
    records, path = [talk(str(n)) for n in range(50)], tmp_path / "a"
    table = pyarrow.Table.from_pylist(records)
    if kind == "parquet":
        parquet.write_table(table, path)
    elif kind == "arrow":
        with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        path.write_bytes(gzip.compress(lines(*records)))
    whole, draw, faults = path.read_bytes(), random.Random(0), 0
    for _ in range(60):
        raw = bytearray(whole)
        for _ in range(5):
            raw[draw.randrange(8, len(raw))] = draw.randrange(256)
        path.write_bytes(raw)
        try:
            load_dialogues(path, skip_bad=True)
        except PamdpError as error:
            assert "\n" not in str(error)
            faults += 1
    assert faults > 5


def test_what_is_missing_is_said_with_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([talk("a")]), path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"a\.parquet: .* need pyarrow \(pip install 'pamdp\[hf\]'\)"):
        load_dialogues(path)
    with pytest.raises(DataError, match=r"hf:a/b: data sets of the hub need `datasets` \(pip install 'pamdp\[hf\]'\)"):
        load_dialogues("hf:a/b")


@pytest.fixture
def quiet() -> None:
    datasets.disable_progress_bars()


@pytest.mark.usefixtures("quiet")
def test_folders_that_save_to_disk_wrote(tmp_path: Path) -> None:
    part = datasets.Dataset.from_list([talk("a"), talk("b")])
    part.save_to_disk(str(tmp_path / "one"), num_shards=2)
    (tmp_path / "one" / "cache-1234.arrow").write_bytes(b"what a map left")
    assert ids(tmp_path / "one") == ["a", "b"] and check(tmp_path / "one").ok
    datasets.DatasetDict(train=part).save_to_disk(str(tmp_path / "single"))
    assert ids(tmp_path / "single") == ["a", "b"]
    datasets.DatasetDict(train=part, test=part).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(
        DataError, match=r"two: this data set has the splits test, train \(name one, such as .*two/test"
    ):
        load_dialogues(tmp_path / "two")
    assert ids(tmp_path / "two" / "train") == ["a", "b"]


def repository(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("# Talks\n")
    (folder / "dataset_infos.json").write_text("{}")
    for split, name in (("train", "a"), ("test", "b")):
        (folder / "data" / f"{split}-00000-of-00001.jsonl").write_bytes(lines(talk(name)))
    return folder


def test_a_copy_of_a_repository(tmp_path: Path) -> None:
    folder = repository(tmp_path / "talks")
    with pytest.raises(DataError, match=r"it has the splits train, test \(name one, such as hf:.*talks:train"):
        load_dialogues(folder)
    assert ids(f"hf:{folder}:test") == ["b"] and check(f"hf:{folder}:train").dialogues == 1
    with pytest.raises(DataError, match=r"it has the splits train, test"):
        load_dialogues(f"hf:{folder}:valid")
    (folder / "data" / "test-00000-of-00001.jsonl").unlink()
    assert ids(folder) == ["a"]


def test_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = repository(tmp_path / "talks"), []

    def builder(name: str, configuration: str | None, revision: str | None) -> object:
        asked.append((name, configuration, revision))
        files = {split: [f"hf://datasets/{name}@1234/data/{split}.jsonl"] for split in ("train", "test")}
        return SimpleNamespace(config=SimpleNamespace(data_files=files))

    class Manager:
        def download(self, urls: list[str]) -> list[str]:
            return [str(folder / "data" / Path(url).name.replace(".", "-00000-of-00001.")) for url in urls]

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    monkeypatch.setattr(datasets, "DownloadManager", Manager)
    assert ids("hf:ann/talks:test") == ["b"] and ids(Path("hf:ann/talks@v2:train:en")) == ["a"]
    assert {*asked} == {("ann/talks", None, None), ("ann/talks", "en", "v2")}
    with pytest.raises(DataError, match=r"hf:ann/talks: it has the splits train, test \(name one"):
        load_dialogues("hf:ann/talks")


def test_a_data_set_may_not_name_files_that_are_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_bytes(lines(talk("mine")))
    found = SimpleNamespace(config=SimpleNamespace(data_files={"train": [str(secret)]}))
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: found)
    for source in ("ann/talks", str(repository(tmp_path / "talks"))):
        with pytest.raises(DataError, match=r"it names the file .*secret\.jsonl, which is not its own"):
            load_dialogues(f"hf:{source}")


def test_a_data_set_that_is_not_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> object:
        raise ConnectionError("no way\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset_builder", refuse)
    with pytest.raises(DataError, match=r"hf:ann/talks: the data set is not to be had: no way to the hub \(check name"):
        load_dialogues("hf:ann/talks")
    with pytest.raises(DataError, match=r"hf:a:b:c:d: this names no data set \(write hf:OWNER/NAME:SPLIT\)"):
        load_dialogues("hf:a:b:c:d")
    with pytest.raises(DataError, match=r"ann/talks: there is no such file \(check the path; .* is hf:OWNER/NAME\)"):
        load_dialogues("ann/talks")

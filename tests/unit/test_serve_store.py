"""What a store refuses, a disk that is full, where keys are read, and that its tables are portable."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from pamdp.errors import ConfigError, StoreError
from pamdp.serve.sealing import read_key
from pamdp.serve.store import Store
from pamdp.serve.tables import Table
from tests.tools.storing import served


def test_a_full_disk_is_one_line_and_nothing_is_half_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    store.served(served())

    @event.listens_for(store.database.engine, "begin")
    def small(connection: object) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count=1")  # type: ignore[attr-defined]  # it is never less than used

    with pytest.raises(StoreError, match="full; try again"):
        store.served(served("r2", "shop:new", text="x" * 10_000_000))
    event.remove(store.database.engine, "begin", small)
    assert store.users() == ["shop:ann"] and len(store.replies("shop:ann")) == 1


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all, only a text of some length" * 50)
    for where in (tmp_path / "text.db", tmp_path / "no" / "such" / "folder.db", "nonsense://x"):
        with pytest.raises(StoreError) as error:
            Store(where)
        assert "\n" not in str(error.value)


def test_a_url_says_no_password() -> None:
    with pytest.raises(StoreError) as error:
        Store("sqlite://user:hunter2@host/name.db")
    assert "hunter2" not in str(error.value)


def test_the_key_is_in_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAMDP_STORE_KEY", raising=False)
    assert read_key() is None
    monkeypatch.setenv("PAMDP_STORE_KEY", " k1 ")
    (tmp_path / "key").write_text("k2\n")
    assert (read_key(), read_key(file=tmp_path / "key")) == ("k1", "k2")
    with pytest.raises(ConfigError, match="holds no key"):
        read_key(file=tmp_path / "none")


def test_the_tables_are_portable() -> None:
    for table in Table.metadata.sorted_tables:
        made = str(CreateTable(table).compile(dialect=postgresql.dialect()))
        assert made.startswith(f"\nCREATE TABLE {table.name}") and ("user" not in table.c or '"user" VARCHAR' in made)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://nowhere.invalid/db?user=u&password=SECRET",
        "postgresql+psycopg://u:SEC@SECRET:RET@nowhere.invalid/db",  # no port's number
        "postgresql+psycopg://u:SEC@SECRET@nowhere.invalid/db",
        "postgresql+psycopg://u:SECRET@nowhere.invalid/db",
        "no-such-kind://u:SECRET@nowhere.invalid/db",
    ],
)
def test_no_password_of_a_url_is_shown(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store(url)
    assert "SECRET" not in str(caught.value) and "SECRET" not in str(caught.value.__cause__ or "")

"""The store: what was acknowledged is there, whatever happens; texts are sealed; what is erased is gone."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable

from pamdp.errors import ConfigError, DataError, StoreError
from pamdp.serve import database
from pamdp.serve.database import Database
from pamdp.serve.erasing import erase, everything, know_version, learned_by, versions
from pamdp.serve.profiles import Change, Profiles
from pamdp.serve.sealing import read_key
from pamdp.serve.store import Conflict, Feedback, Store
from pamdp.serve.tables import FeedbackRow, Table
from tests.tools.cli_docs import ROOT
from tests.tools.storing import served

Fernet = pytest.importorskip("cryptography.fernet").Fernet
CANARY = "Marzipanflöte 🎺"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store.db")


def _bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


def test_a_reply_comes_back_as_it_was(store: Store) -> None:
    reply = served("r1", "shop:ann", "hi", "hello", "日本語, żółć \x00 \u202e '); DROP TABLE users; --", text=CANARY)
    store.served(reply)
    plain = served("r2", action=None, mean=None, sigma=0.0, created=2000.0)
    store.served(plain)
    assert store.replies("shop:ann") == [reply, plain]
    assert store.owner("r1") == "shop:ann" and store.owner("r3") is None


@pytest.mark.parametrize(
    "id", ["'; DROP TABLE users; --", '" OR 1=1', "日本", "a/b?c=d#e", "%2e%2e", "\ud800", "nul\x00", " "]
)
def test_any_id_is_an_id(store: Store, id: str) -> None:
    store.served(served(id, id))
    assert len(store.users()) == 1 and store.knows(id) and len(store.replies(id)) == 1
    assert store.rate(Feedback("", id, id, "thumb", 1)).thumb == 1
    erase(store, id)
    assert store.users() == []


def test_half_a_character_does_not_stop_the_store(store: Store) -> None:
    store.served(served("r1", "u", "half \ud83d"))
    assert store.replies("u")[0].history[0].content == "half ?"


def test_an_id_is_given_once(store: Store) -> None:
    store.served(served())
    with pytest.raises(StoreError, match="'r1' already"):
        store.served(served(text="another"))
    assert [reply.text for reply in store.replies("shop:ann")] == ["Tea, then."]


def test_feedback_with_a_key_is_kept_once(store: Store) -> None:
    for id in ("r1", "r2"):
        store.served(served(id))
    said = [store.rate(Feedback("", "shop:ann", "r1", "thumb", 1), "key") for _ in range(3)]
    assert len(set(said)) == 1 == len(store.feedback("shop:ann"))
    with pytest.raises(Conflict, match="other feedback"):
        store.rate(Feedback("", "shop:ann", "r1", "thumb", -1), "key")
    # without a key, and for another user with the same key, it is another one
    store.served(served("r3", "shop:bob"))
    store.rate(Feedback("", "shop:ann", "r1", "thumb", 1))
    store.rate(Feedback("", "shop:bob", "r3", "thumb", 1), "key")
    assert len(store.feedback("shop:ann")) == 2 and len(store.feedback("shop:bob")) == 1


def test_feedback_is_on_replies_of_the_same_user_to_the_same_history(store: Store) -> None:
    store.served(served("r1"))
    store.served(served("r2", "shop:ann", "Something else?"))
    store.served(served("r3", "shop:bob"))
    for reply, over in (("r1", "r2"), ("r1", "r1"), ("r1", "r3"), ("r3", None), ("r9", None)):
        with pytest.raises(DataError):
            store.rate(Feedback("", "shop:ann", reply, "preferred" if over else "thumb", over=over))
    assert store.feedback("shop:ann") == []


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    program = [sys.executable, "-m", "tests.tools.storing", str(file)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(25)]
        os.kill(process.pid, signal.SIGKILL)
        said += process.stdout.readlines()
    store = Store(file)
    kept = {reply.id for user in store.users() for reply in store.replies(user)}
    assert len(said) >= 25 and {f"r{int(line)}" for line in said if line.endswith("\n")} <= kept
    with store.database.reading() as session:
        assert session.execute(text("PRAGMA integrity_check")).scalar() == "ok"
        assert session.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL: a power cut loses nothing either
    store.served(served("after"))


def test_eight_writers_lose_nothing(tmp_path: Path) -> None:
    stores = [Store(tmp_path / "store.db") for _ in range(2)]  # as if in two processes

    def write(n: int) -> None:
        for k in range(5):
            stores[n % 2].served(served(f"r{n}.{k}", f"shop:u{k}"))
            stores[n % 2].rate(Feedback("", f"shop:u{k}", f"r{n}.{k}", "thumb", 1), f"{n}.{k}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert sum(len(stores[0].replies(user)) for user in stores[1].users()) == 40
    assert sum(len(stores[0].feedback(user)) for user in stores[1].users()) == 40


def test_a_locked_store_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 20)
    store = Store(tmp_path / "store.db")
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"store\.db does not take this now: database is locked; try again$"):
        store.served(served())
    assert store.replies("shop:ann") == []  # reading goes on
    other.execute("ROLLBACK")
    store.served(served())
    assert len(store.replies("shop:ann")) == 1


def test_a_full_disk_is_one_line_and_nothing_is_half_written(store: Store) -> None:
    store.served(served())

    @event.listens_for(store.database.engine, "begin")
    def small(connection: object) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count=1")  # type: ignore[attr-defined]  # it is never less than used

    with pytest.raises(StoreError, match="full; try again"):
        store.served(served("r2", "shop:new", text="x" * 10_000_000))
    event.remove(store.database.engine, "begin", small)
    assert store.users() == ["shop:ann"] and len(store.replies("shop:ann")) == 1


def test_other_files_and_versions_are_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    Store(file).close()
    with sqlite3.connect(file) as changed:
        changed.execute("UPDATE about SET value = '99' WHERE name = 'schema'")
    with pytest.raises(StoreError, match="version 99, this pamdp those of version 1; use the pamdp that wrote it"):
        Store(file)
    (tmp_path / "text.db").write_text("no database at all, only a text of some length" * 50)
    for where in (tmp_path / "text.db", tmp_path / "no" / "such" / "folder.db", "nonsense://x"):
        with pytest.raises(StoreError) as error:
            Store(where)
        assert "\n" not in str(error.value)


def test_a_url_says_no_password() -> None:
    with pytest.raises(StoreError) as error:
        Store("sqlite://user:hunter2@host/name.db")
    assert "hunter2" not in str(error.value)


def test_a_sealed_store_holds_no_text(tmp_path: Path) -> None:
    texts = [CANARY, "Kirschkuchen", "Fahrradkette"]
    found = {}
    for name, key in (("open", None), ("sealed", Fernet.generate_key().decode())):
        folder = tmp_path / name
        folder.mkdir()
        store = Store(folder / "store.db", key)
        store.served(served("r1", "shop:ann", texts[0], text=texts[1]))
        store.rate(Feedback("", "shop:ann", "r1", "correction", text=texts[2]))
        Profiles(store).edit("shop:ann", [Change("Zitronenfalter")], "shop")
        assert [r.text for r in store.replies("shop:ann")] == ["Kirschkuchen"]
        found[name] = [word.encode() in _bytes(folder) for word in (*texts, "Zitronenfalter", "shop:ann")]
    assert found == {"open": [True] * 5, "sealed": [False] * 4 + [True]}  # ids are not texts
    file = tmp_path / "sealed" / "store.db"
    for key, match in ((None, "encrypted; give its key"), (Fernet.generate_key().decode(), "another key")):
        with pytest.raises(StoreError, match=match):
            Store(file, key)
    with pytest.raises(StoreError, match="made without encryption"):
        Store(tmp_path / "open" / "store.db", Fernet.generate_key().decode())
    with pytest.raises(ConfigError, match="not 32 bytes") as error:
        Store(file, "hunter2")
    assert "hunter2" not in str(error.value)


def test_the_key_is_in_a_file_or_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAMDP_STORE_KEY", raising=False)
    assert read_key() is None
    monkeypatch.setenv("PAMDP_STORE_KEY", " k1 ")
    (tmp_path / "key").write_text("k2\n")
    assert (read_key(), read_key(file=tmp_path / "key")) == ("k1", "k2")
    with pytest.raises(ConfigError, match="holds no key"):
        read_key(file=tmp_path / "none")


def test_old_replies_go_and_their_feedback_with_them(tmp_path: Path) -> None:
    now = 100 * 86400.0
    store = Store(tmp_path / "store.db", days=30)
    store.served(served("old", text=CANARY, created=69 * 86400.0))
    store.served(served("new", created=71 * 86400.0))
    store.rate(Feedback("", "shop:ann", "old", "thumb", 1))
    store.rate(Feedback("", "shop:ann", "new", "thumb", 1))
    store.rate(Feedback("", "shop:ann", "new", "preferred", over="old"))
    assert store.sweep(now) == 1
    assert [r.id for r in store.replies("shop:ann")] == ["new"]
    assert [(f.reply, f.kind) for f in store.feedback("shop:ann")] == [("new", "thumb")]
    assert CANARY.encode() not in _bytes(tmp_path)
    assert store.sweep(now) == 0
    # a store that is used forgets by itself: what was served in 1970 is old today
    store._swept = time.time() - 4000
    store.served(served("today", created=time.time()))
    assert [r.id for r in store.replies("shop:ann")] == ["today"]


def test_an_erased_user_is_gone_from_every_table_and_from_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    profiles = Profiles(store)
    for user in ("shop:ann", "shop:bob"):
        store.served(served(f"{user}1", user, CANARY))
        store.served(served(f"{user}2", user, CANARY))
        store.rate(Feedback("", user, f"{user}1", "preferred", over=f"{user}2"), "key")
        store.rate(Feedback("", user, f"{user}1", "correction", text=CANARY))
        profiles.edit(user, [Change(f"{CANARY} of {user}")], "shop")
    assert know_version(store, "v1", "runs/rl", "space", [store.alias("shop:ann"), "shop:bob", "a stranger"]) == 2
    assert know_version(store, "v2", "runs/rl2", "space", ["shop:bob"]) == 1
    records = [*everything(store, profiles, "shop:ann")]
    kinds = [record["kind"] for record in records]
    assert kinds == ["user", "reply", "reply", "feedback", "feedback", "profile", "statement", "learned"]
    marked = erase(store, "shop:ann")
    assert [(v.id, v.erased) for v in marked] == [("v1", 1)]
    assert marked[0].again("s.db")[1].startswith("pamdp train offline --run runs/rl-again --from runs/rl data.path=")
    with store.database.reading() as session:
        for table in Table.metadata.sorted_tables:
            assert not [row for row in session.execute(table.select()) if any("ann" in str(cell) for cell in row)], (
                table
            )
    assert b"shop:ann" not in _bytes(tmp_path) and f"{CANARY} of shop:bob".encode() in _bytes(tmp_path)
    assert len(store.replies("shop:bob")) == 2 and len(store.feedback("shop:bob")) == 2
    assert [(v.id, v.erased) for v in versions(store)] == [("v1", 1), ("v2", 0)]
    assert learned_by(store, "v1") == ["shop:bob"]


def test_the_tables_are_portable() -> None:
    for table in Table.metadata.sorted_tables:
        made = str(CreateTable(table).compile(dialect=postgresql.dialect()))
        assert made.startswith(f"\nCREATE TABLE {table.name}") and ("user" not in table.c or '"user" VARCHAR' in made)


def test_whoever_loses_a_race_is_told_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process writes the same feedback between this one's look and its writing."""
    store.served(served())
    rate, said = Store._rate, list[Feedback]()

    def late(self: Store, session: Session, feedback: Feedback, key: str | None) -> Feedback:
        if not said:
            said.append(Feedback("other", "shop:ann", "r1", "thumb", 1))
            session.add(FeedbackRow(**asdict(said[0]), key=key))
            session.commit()
            raise IntegrityError("", {}, Exception())
        return rate(self, session, feedback, key)

    monkeypatch.setattr(Store, "_rate", late)
    assert store.rate(Feedback("", "shop:ann", "r1", "thumb", 1), "key").id == "other"
    assert len(store.feedback("shop:ann")) == 1


def test_aliases_are_the_stores_own(tmp_path: Path) -> None:
    stores = [Store(tmp_path / name) for name in ("a.db", "b.db")]
    first, again, other = stores[0].alias("ann"), Store(tmp_path / "a.db").alias("ann"), stores[1].alias("ann")
    assert first == again != other and "ann" not in first


def test_a_database_is_made_once_by_whoever_is_first(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: Store(tmp_path / "s.db").database.about["salt"], range(8)))
    assert len(set(made)) == 1
    assert isinstance(Store(tmp_path / "s.db").database, Database)

"""What every database does as a store: what was acknowledged is there, whatever happens; what is erased is gone.

SQLite always, PostgreSQL where PAMDP_TEST_DATABASE names a database.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pamdp.errors import ConfigError, DataError, StoreError
from pamdp.serve import database
from pamdp.serve.erasing import erase, everything, know_version, learned_by, versions
from pamdp.serve.profiles import Change, Profiles
from pamdp.serve.store import Conflict, Feedback, Store
from pamdp.serve.tables import FeedbackRow, ReplyRow, Table
from tests.tools.cli_docs import ROOT
from tests.tools.storing import served

Fernet = pytest.importorskip("cryptography.fernet").Fernet
CANARY = "Marzipanflöte 🎺"


@pytest.fixture
def store(place: str) -> Store:
    return Store(place)


def _held(store: Store) -> str:
    """All that stands in any table, and in SQLite's files."""
    with store.database.reading() as session:
        rows = [tuple(row) for table in Table.metadata.sorted_tables for row in session.execute(table.select())]
    file = Path(store.place)
    files = [part.read_bytes().decode(errors="replace") for part in file.parent.glob(f"{file.name}*")]
    return "\n".join([*map(str, rows), *files])


@contextmanager
def _locked(store: Store) -> Iterator[None]:
    """Another process is about to write, and takes its time."""
    with store.database.engine.execution_options(immediate=True).connect() as other:
        other.execute(text("SELECT 1" if "://" not in store.place else "LOCK TABLE replies IN SHARE MODE"))
        yield


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


def test_what_was_acknowledged_survives_kill_9(place: str) -> None:
    program = [sys.executable, "-m", "tests.tools.storing", place]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(25)]
        os.kill(process.pid, signal.SIGKILL)
        said += process.stdout.readlines()
    store = Store(place)
    kept = {reply.id for user in store.users() for reply in store.replies(user)}
    assert len(said) >= 25 and {f"r{int(line)}" for line in said if line.endswith("\n")} <= kept
    with store.database.reading() as session:  # a power cut loses nothing either
        if "://" in place:
            assert session.execute(text("SHOW synchronous_commit")).scalar() == "on"
        else:
            assert session.execute(text("PRAGMA integrity_check")).scalar() == "ok"
            assert session.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
    store.served(served("after"))


def test_eight_writers_lose_nothing(place: str) -> None:
    stores = [Store(place) for _ in range(2)]  # as if in two processes

    def write(n: int) -> None:
        for k in range(5):
            stores[n % 2].served(served(f"r{n}.{k}", f"shop:u{k}"))
            stores[n % 2].rate(Feedback("", f"shop:u{k}", f"r{n}.{k}", "thumb", 1), f"{n}.{k}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert sum(len(stores[0].replies(user)) for user in stores[1].users()) == 40
    assert sum(len(stores[0].feedback(user)) for user in stores[1].users()) == 40


def test_a_locked_store_is_one_line(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 20)
    store = Store(place)
    with _locked(Store(place)):
        with pytest.raises(StoreError, match=r"does not take this now: .* lock.*; try again$"):
            store.served(served())
        assert store.replies("shop:ann") == []  # reading goes on
    store.served(served())
    assert len(store.replies("shop:ann")) == 1


def test_a_reader_sees_one_state(store: Store) -> None:
    with store.database.reading() as session:
        before = session.scalars(select(ReplyRow.id)).all()
        store.served(served())
        assert session.scalars(select(ReplyRow.id)).all() == before == []
    assert len(store.replies("shop:ann")) == 1


def test_tables_of_another_version_are_refused(place: str) -> None:
    with Store(place).writing() as session:
        session.execute(text("UPDATE about SET value = '99' WHERE name = 'schema'"))
    with pytest.raises(StoreError, match="version 99, this pamdp those of version 1; use the pamdp that wrote it"):
        Store(place)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_sealed_store_holds_no_text(place: str, sealed: bool) -> None:
    texts, key, other = (
        [CANARY, "Kirschkuchen", "Fahrradkette", "Zitronenfalter"],
        *(Fernet.generate_key().decode() for _ in range(2)),
    )
    store = Store(place, key if sealed else None)
    store.served(served("r1", "shop:ann", texts[0], text=texts[1]))
    store.rate(Feedback("", "shop:ann", "r1", "correction", text=texts[2]))
    Profiles(store).edit("shop:ann", [Change(texts[3])], "shop")
    assert [r.text for r in store.replies("shop:ann")] == ["Kirschkuchen"]
    assert [word in _held(store) for word in texts] == [not sealed] * 4 and "shop:ann" in _held(store)  # ids are open
    wrong = {None: "encrypted; give its key", other: "another key"} if sealed else {other: "made without encryption"}
    for given, match in wrong.items():
        with pytest.raises(StoreError, match=match):
            Store(place, given)
    with pytest.raises(ConfigError, match="not 32 bytes") as error:
        Store(place, "hunter2")
    assert "hunter2" not in str(error.value)


def test_old_replies_go_and_their_feedback_with_them(place: str) -> None:
    now = 100 * 86400.0
    store = Store(place, days=30)
    store.served(served("old", text=CANARY, created=69 * 86400.0))
    store.served(served("new", created=71 * 86400.0))
    store.rate(Feedback("", "shop:ann", "old", "thumb", 1))
    store.rate(Feedback("", "shop:ann", "new", "thumb", 1))
    store.rate(Feedback("", "shop:ann", "new", "preferred", over="old"))
    assert store.sweep(now) == 1
    assert [r.id for r in store.replies("shop:ann")] == ["new"]
    assert [(f.reply, f.kind) for f in store.feedback("shop:ann")] == [("new", "thumb")]
    assert CANARY not in _held(store)
    assert store.sweep(now) == 0


def test_an_erased_user_is_gone_from_every_table_and_from_the_file(store: Store) -> None:
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
    held = _held(store)
    assert "shop:ann" not in held and f"{CANARY} of shop:bob" in held
    assert len(store.replies("shop:bob")) == 2 and len(store.feedback("shop:bob")) == 2
    assert [(v.id, v.erased) for v in versions(store)] == [("v1", 1), ("v2", 0)]
    assert learned_by(store, "v1") == ["shop:bob"]


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


def test_aliases_are_the_stores_own(place: str, tmp_path: Path) -> None:
    first, again, other = (Store(where).alias("ann") for where in (place, place, tmp_path / "other.db"))
    assert first == again != other and "ann" not in first


def test_a_database_is_made_once_by_whoever_is_first(place: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: Store(place).database.about["salt"], range(8)))
    assert len(set(made)) == 1

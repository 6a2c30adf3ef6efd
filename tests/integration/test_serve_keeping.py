"""What a server keeps, and what it does where it cannot: nothing that was acknowledged is lost, and it lives on."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import event

from pamdp.errors import StoreError
from pamdp.serve import database, memory
from pamdp.serve.keys import Keys
from pamdp.serve.models import Models
from pamdp.serve.profiles import Profiles
from pamdp.serve.store import Store
from tests.integration.test_serve_process import process
from tests.tools.serving import Running, as_json, make_models, said, save_run, serving
from tests.tools.storing import served

USERS = 8


@pytest.fixture(scope="module")
def models() -> Models:
    return make_models()


class Load:
    """Users who talk, rate and describe themselves until they are told to stop, and what was acknowledged to them."""

    def __init__(self, url: str) -> None:
        self.url, self.over = url, threading.Event()
        self.replies, self.thumbs, self.statements, self.refused = set[str](), set[str](), set[str](), list[str]()
        self.broken = list[str]()

    def user(self, n: int) -> None:
        with httpx.Client(base_url=self.url, timeout=300) as web:
            for turn in range(10_000):
                if self.over.is_set():
                    return
                try:
                    self._turn(web, n, turn)
                except httpx.TransportError:  # the server was killed
                    return

    def _turn(self, web: httpx.Client, n: int, turn: int) -> None:
        text = f"turn {turn} of {n} " + "word " * 60
        body = {"model": "pamdp", "messages": as_json(said(text)), "user": f"u{n}", "max_tokens": 2}
        answer = web.post("/v1/chat/completions", json=body)
        if answer.status_code != 200:
            self.broken.append(answer.text)
            return
        id = answer.json()["id"]
        self.replies.add(id)
        rated = web.post("/v1/feedback", json={"reply": id, "thumb": 1})
        self._told(rated, self.thumbs, id)
        mine = {"statements": [{"text": f"{turn} of {n}"}]}
        self._told(web.patch(f"/v1/users/u{n}/profile", json=mine), self.statements, f"{turn} of {n}")

    def _told(self, answer: httpx.Response, acknowledged: set[str], what: str) -> None:
        if answer.status_code == 200:
            acknowledged.add(what)
        elif answer.status_code == 503:
            self.refused.append(answer.json()["error"]["message"])
        elif answer.status_code != 404:  # of a reply, or a user, that could not be written down
            self.broken.append(answer.text)

    def kept(self, store: Store) -> tuple[set[str], set[str], set[str]]:
        """Ids of all replies, replies with a thumb, and statements in a store."""
        users, profiles = store.users(), Profiles(store)
        return (
            {reply.id for user in users for reply in store.replies(user)},
            {rated.reply for user in users for rated in store.feedback(user)},
            {entry.text for user in users for entry in profiles.read(user).entries},
        )


@contextmanager
def load(url: str, until: Callable[[Load], bool]) -> Iterator[Load]:
    """The block runs once UNTIL holds of a load that goes on meanwhile."""
    some = Load(url)
    with ThreadPoolExecutor(USERS) as pool:
        for n in range(USERS):
            pool.submit(some.user, n)
        try:
            while not until(some):
                time.sleep(0.01)
            yield some
        finally:
            some.over.set()


def unrecorded(running: Running) -> int:
    return int(httpx.get(f"{running.url}/healthz", timeout=300).json()["unrecorded"])


def test_a_full_disk_under_load_costs_nothing_that_was_acknowledged(models: Models, tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")

    @event.listens_for(store.database.engine, "begin")
    def small(connection: object) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count=60")  # type: ignore[attr-defined]

    with serving(models, Keys(), profiles=Profiles(store)) as running:
        with load(running.url, lambda some: len(some.refused) > 3 and unrecorded(running) > 3) as some:
            pass
        assert some.broken == [] and some.replies and some.thumbs and some.statements
        assert {line for line in some.refused if "database or disk is full; try again" not in line} == set()
        replies, thumbs, statements = some.kept(store)
        assert len(some.replies - replies) == unrecorded(running) and thumbs >= some.thumbs
        assert statements >= some.statements
        event.remove(store.database.engine, "begin", small)
        with store.database.reading() as session:  # the connections that are pooled have room again
            session.connection().exec_driver_sql("PRAGMA max_page_count=100000")
        store.database.engine.dispose()
        with load(running.url, lambda again: len(again.thumbs) > 2) as again:
            pass
        assert again.refused == again.broken == [] and again.replies <= again.kept(store)[0]


def test_a_locked_store_under_load_is_told_and_over_when_it_is(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 20)
    store = Store(tmp_path / "store.db")
    with serving(models, Keys(), profiles=Profiles(store)) as running:
        with load(running.url, lambda some: len(some.thumbs) > 2) as some:
            other = sqlite3.connect(tmp_path / "store.db", isolation_level=None, timeout=300)
            other.execute("BEGIN IMMEDIATE")
            while unrecorded(running) < 4 or not some.refused:
                id = next(iter(some.thumbs))
                answer = httpx.post(f"{running.url}/v1/feedback", json={"reply": id, "thumb": -1}, timeout=300)
                assert answer.status_code == 503 and "locked; try again" in answer.json()["error"]["message"]
                some.refused.append(answer.text)
            other.execute("ROLLBACK")
            before = len(some.thumbs)
            while len(some.thumbs) < before + 3:
                time.sleep(0.01)
        replies, thumbs, statements = some.kept(store)
        assert some.broken == [] and thumbs >= some.thumbs and statements >= some.statements
        assert len(some.replies - replies) == unrecorded(running)


def test_killed_under_load_nothing_acknowledged_is_lost(place: str, tmp_path: Path) -> None:
    run = save_run(tmp_path / "run")
    with (
        process(tmp_path / "log", str(run), "--port", "0", f"store={place}") as server,
        load(server.url.removesuffix("/v1"), lambda some: len(some.statements) > 20) as some,
    ):
        os.kill(server.popen.pid, signal.SIGKILL)
        server.popen.wait()
    assert some.broken == some.refused == []
    replies, thumbs, statements = some.kept(Store(place))
    assert replies >= some.replies and thumbs >= some.thumbs and statements >= some.statements
    with process(tmp_path / "log", str(run), "--port", "0", f"store={place}") as server, httpx.Client() as web:
        known = web.get(f"{server.url}/users/u0/export", timeout=300)
        assert known.status_code == 200 and some.replies & {
            record.get("id") for record in map(json.loads, known.iter_lines())
        }


def test_an_idle_server_forgets_by_itself(
    models: Models, place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "SWEEP_EVERY", 0.01)
    store, sweep, failed = Store(place, days=30), Store.sweep, list[Store]()

    def fails_once(self: Store) -> int:
        if not failed:
            failed.append(self)
            raise StoreError("busy; try again")
        return sweep(self)

    monkeypatch.setattr(Store, "sweep", fails_once)
    store.served(served("old"))  # of 1970
    store.served(served("new", created=time.time()))
    with serving(models, Keys(), profiles=Profiles(store)):
        while len(store.replies("shop:ann")) > 1:
            time.sleep(0.01)
        store.served(served("older", "shop:bob"))
        while store.replies("shop:bob"):
            time.sleep(0.01)
    assert [reply.id for reply in store.replies("shop:ann")] == ["new"]
    assert "old replies were not erased: busy; try again" in caplog.text

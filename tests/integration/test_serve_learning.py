"""A server learns from its users: they talk and rate over HTTP, a planner learns from it and takes over, one leaves."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from pamdp import cli
from pamdp.engines.engine import Engine
from pamdp.engines.job import Job
from pamdp.models.embedded import load_backbone
from pamdp.serve.check import check
from pamdp.serve.config import ServeConfig
from pamdp.serve.erasing import learned_by
from pamdp.serve.keys import new_key, read_keys
from pamdp.serve.memory import open_profiles
from pamdp.serve.models import load_models
from pamdp.serve.profiles import Profiles
from pamdp.serve.store import Store
from pamdp.serve.tables import Table
from pamdp.settings import load
from tests.tools.serving import as_json, make_models, said, save_run, serving

CANARY = "Marzipan"
USERS = ("ann", "bob", "eve")
RUN = CliRunner()
FAST = ["rl.epochs=2", "rl.batch_size=16", "rl.actor_every=1", "rl.form_states=0"]


def _verb(*words: str) -> str:
    done = RUN.invoke(cli.app, [*words])
    assert done.exit_code == 0, done.output + str(done.exception)
    return done.output


def _everywhere(store: Store) -> str:
    """All that stands in any table of a store."""
    with store.database.reading() as session:
        return str([tuple(row) for table in Table.metadata.sorted_tables for row in session.execute(table.select())])


def test_a_server_learns_from_its_users(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = save_run(tmp_path / "run")
    jobs, submit = list[Job](), Engine.submit

    def spy(self: Engine, job: Job) -> None:
        jobs.append(job)
        submit(self, job)

    monkeypatch.setattr(Engine, "submit", spy)
    secret, lines = new_key("shop")
    Path("keys.toml").write_text(f"{lines}admin = true\n".replace("_minute = 60", "_minute = 600"))
    keys = read_keys(Path("keys.toml"))
    profiles = open_profiles(ServeConfig(store=place if "://" in place else "auto"), str(run), None)
    assert profiles is not None and profiles.store.place == place
    models = load_models(str(run), load_backbone)
    old = models["pamdp"].version
    with (
        serving(models, keys, "explore=1", profiles=profiles, check=partial(check, max_reply=4)) as running,
        httpx.Client(base_url=running.url, headers={"Authorization": f"Bearer {secret}"}, timeout=300) as web,
    ):

        def chat(user: str, *texts: str) -> dict[str, object]:
            body = {"model": "pamdp", "messages": as_json(said(*texts)), "user": user, "max_tokens": 6}
            answer = web.post("/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        given = list[tuple[str, str]]()
        first = chat("ann", "Hello 0")
        text = first["choices"][0]["message"]["content"] or "-"  # type: ignore[index]
        given.append(("ann", str(first["id"])))
        # what ann says of herself is nobody's input but the critics'
        mine = web.patch("/v1/users/ann/profile", json={"statements": [{"text": f"Likes {CANARY}."}]})
        assert mine.status_code == 200 and "infers no profiles" in mine.json()["note"]
        going_on = ("Hello 0", text, "And then?")
        given.append(("ann", str(chat("ann", *going_on)["id"])))
        given += [(user, str(chat(user, f"Hello {n}")["id"])) for n in range(2, 32) for user in [USERS[n % 3]]]
        assert len(given) == 32 and {id for _, id in given} == {
            reply.id for user in USERS for reply in profiles.store.replies(f"shop:{user}")
        }
        assert all(reply.sigma > 0 for reply in profiles.store.replies("shop:ann"))
        for n, (user, id) in enumerate(given[:30]):
            body = {"reply": id, "user": user, **({"correction": "Tea."} if n % 10 == 9 else {"thumb": n % 2 or -1})}
            answer = web.post("/v1/feedback", json=body, headers={"Idempotency-Key": id})
            assert answer.status_code == 200, answer.text
        assert web.get("/v1/users/ann/values").status_code == 404  # this policy was saved without critics

        exported = json.loads(_verb("feedback", "export", place, "--out", "out", "--json"))
        assert exported["lines"] == 29  # ann's two replies are of one chat
        _verb("train", "offline", "--from", "run", "--run", "next", "data.path=out", *FAST)

        swapped = web.post("/v1/admin/reload", json={"path": "next", "force": True}).json()
        new = swapped["versions"]["pamdp"]
        assert swapped["reloaded"] and swapped["report"] is None and new != old
        again = chat("ann", *going_on, "Go on.", "I do.")
        assert again["system_fingerprint"] == new[:16]
        assert profiles.store.replies("shop:ann")[-1].version == new
        values = web.get("/v1/users/ann/values").json()
        assert values["reply"] == again["id"] and values["v_h"] != values["v_hw"]
        report = json.loads(RUN.invoke(cli.app, ["serve-check", "run", "next", "--json"]).output)
        assert len(report["replies"]) == 24 and {m["name"] for m in report["measures"]} > {"words a reply"}
        assert json.loads(_verb("serve-check", "run", "run", "--json"))["ok"]

        [name, *_] = learned_by(profiles.store, new)  # a random split chose them
        user = name.removeprefix("shop:")
        mine = web.patch(f"/v1/users/{user}/profile", json={"statements": [{"text": f"Likes {CANARY} and {user}ade."}]})
        assert mine.status_code == 200 and f"{user}ade" in _everywhere(profiles.store)
        gone = web.delete(f"/v1/users/{user}").json()
        assert [(v["version"], v["run"]) for v in gone["learned_from_them"]] == [(new, str(tmp_path / "next"))]
        commands = gone["learned_from_them"][0]["train_again"]
        assert commands[0].startswith("pamdp feedback export ") and commands[1].startswith("pamdp train offline ")
        assert f"{user}ade" not in _everywhere(profiles.store) and name not in _everywhere(profiles.store)
        assert web.get(f"/v1/users/{user}/export").status_code == 404
        others = {f"shop:{other}" for other in USERS} - {name}
        assert set(profiles.store.users()) == others
        running.this.engine.call(lambda: None).result()
        assert not [space for space, _ in running.this.engine.cache._kept if space[0] == name]
        assert web.get("/healthz").json() == {"ready": True, "status": "ready", "unrecorded": 0}
    assert len(jobs) == 33
    for job in jobs:
        assert CANARY not in f"{job.policy.system} {' '.join(message.content for message in job.history)}"


def test_a_clients_system_message_is_no_part_of_the_chat(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.db")
    with serving(make_models(), profiles=Profiles(store)) as running:
        messages = [{"role": "system", "content": "Be brief."}, *as_json(said("Hi"))]
        ask = running.client().chat.completions.create
        reply = ask(model="pamdp", messages=messages)  # type: ignore[call-overload]
        web = httpx.Client(base_url=running.url, timeout=300)
        assert web.post("/v1/feedback", json={"reply": reply.id, "thumb": 1}).status_code == 200
        assert store.replies("local")[0].history[0].role == "system"
        assert web.get("/v1/users/local/profile").json()["note"].startswith("this server infers no profiles")
    _verb("feedback", "export", str(tmp_path / "s.db"), "--out", str(tmp_path / "out"))
    [line] = (tmp_path / "out/feedback.jsonl").read_text().splitlines()
    assert [turn["user"] for turn in json.loads(line)["turns"]] == ["Hi"]


def test_a_record_that_fails_is_told_without_what_was_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path / "s.db")
    with serving(make_models(), profiles=Profiles(store)) as running:
        with store.writing() as session:
            session.connection().exec_driver_sql("DROP TABLE replies")
        body = {"model": "pamdp", "messages": as_json(said(f"I like {CANARY}"))}
        assert httpx.post(f"{running.url}/v1/chat/completions", json=body, timeout=300).status_code == 200
        assert httpx.get(f"{running.url}/healthz").json() == {"ready": True, "status": "ready", "unrecorded": 1}
    assert "could not be written down" in caplog.text and "replies" in caplog.text and CANARY not in caplog.text


def test_where_a_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    shipped = open_profiles(ServeConfig(), "shipped", None)
    assert shipped is not None and shipped.profiler is None
    assert shipped.store.place == str(tmp_path / "data/pamdp/store.db")
    assert (tmp_path / "data/pamdp/store.db").stat().st_mode & 0o077 == 0
    assert open_profiles(load(ServeConfig, (), ["store="]), "shipped", None) is None
    named = ["store=" + str(tmp_path / "mine.db"), "retention=30", "profile_every=2", "profiler.model=some-model"]
    mine = open_profiles(load(ServeConfig, (), named), "shipped", None)
    assert mine is not None and mine.store.days == 30 and mine.every == 2 and mine.profiler is not None
    assert type(mine.profiler.model).__name__ == "Retrying", "answers about users are not remembered anywhere else"

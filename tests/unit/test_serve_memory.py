"""What users see, mend and erase through the API, and what they say of replies."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pamdp.env.profile import Finding, Profiler, parse_findings
from pamdp.serve import database
from pamdp.serve.profiles import Profiles
from pamdp.serve.store import Store
from tests.tools.scripted import ScriptedChat
from tests.tools.storing import client_of, served

ANSWER = "[1] drinks tea\n[1, 2] works nights\n[9] was made up"
SHOP, OTHER, ADMIN = ({"Authorization": key} for key in ("shop", "other", "admin"))


@pytest.fixture
def profiles(place: str) -> Profiles:
    store = Store(place)
    store.served(served("r1", "shop:ann", "Tea at night?"))
    store.served(served("r2", "shop:ann", "Tea at night?", text="Rather not."))
    store.served(served("r3", "shop:ann", "Tea at night?", "Tea, then.", "I work nights."))
    store.served(served("r4", "shop:bob"))
    return Profiles(store, Profiler(ScriptedChat(lambda messages, seed: ANSWER)))


@pytest.fixture
def client(profiles: Profiles) -> TestClient:
    return client_of(profiles)


def test_findings_cite_their_messages() -> None:
    assert parse_findings(ANSWER, 2, 8) == [Finding("drinks tea", (1,)), Finding("works nights", (1, 2))]


def test_a_profile_says_what_it_rests_on(client: TestClient) -> None:
    before = client.get("/v1/users/ann/profile", headers=SHOP).json()
    assert (before["state"], before["statements"]) == ("none", [])
    seen = client.get("/v1/users/ann/profile?refresh=true", headers=SHOP).json()
    assert [(s["text"], s["cited"], round(s["confidence"], 2)) for s in seen["statements"]] == [
        ("drinks tea", ["Tea at night?"], 0.5), ("works nights", ["Tea at night?", "I work nights."], 0.67),
    ]  # fmt: skip
    assert seen["inferred_from"] == 2 and seen["state"] == "thin" and "too little" in seen["note"]
    assert "no reply is written from it" in seen["used_for"]
    assert client.get("/v1/users/ann/profile", headers=SHOP).json() == seen
    assert client.get("/v1/users/ann/profile?refresh=false", headers=SHOP).json() == seen
    assert client.get("/v1/users/ann/profile?refresh", headers=SHOP).json()["inferred_at"] > seen["inferred_at"]


def test_a_profiler_may_abstain(profiles: Profiles) -> None:
    profiles.profiler = Profiler(ScriptedChat(lambda messages, seed: "[none]"))
    assert profiles.infer("shop:ann").state == "abstained"


def test_what_a_user_mended_stays_mended(client: TestClient) -> None:
    path = "/v1/users/ann/profile"
    tea, nights = (s["id"] for s in client.get(f"{path}?refresh=true", headers=SHOP).json()["statements"])
    changes = [
        {"id": tea, "text": "drinks cocoa"},
        {"id": nights, "text": None},
        {"field": "personality", "text": "dry"},
    ]
    client.patch(path, json={"statements": changes}, headers=SHOP).raise_for_status()
    for _ in range(2):
        seen = client.get(f"{path}?refresh=true", headers=SHOP).json()["statements"]
        assert [(s["text"], s["field"], s["edited_by"]) for s in seen] == [
            ("drinks cocoa", "profile", "shop"), ("dry", "personality", "shop"),
        ]  # fmt: skip
    # all of the changes or none
    wrong = client.patch(path, json={"statements": [{"text": "new"}, {"id": 999, "text": "x"}]}, headers=SHOP)
    assert wrong.status_code == 400 and len(client.get(path, headers=SHOP).json()["statements"]) == 2
    assert client.delete(path, headers=SHOP).json()["state"] == "none"
    assert len(client.get(f"{path}?refresh=true", headers=SHOP).json()["statements"]) == 2


def test_a_key_sees_its_own_users_only(client: TestClient) -> None:
    for method, path in (
        ("GET", "profile"),
        ("PATCH", "profile"),
        ("DELETE", "profile"),
        ("GET", "export"),
        ("DELETE", ""),
    ):
        for user in ("ann", "shop:ann", "nobody"):
            url, body = f"/v1/users/{user}/{path}".rstrip("/"), {"statements": [{"text": "x"}]}
            answer = client.request(method, url, headers=OTHER, json=body if method == "PATCH" else None)
            assert answer.status_code == 404
            assert answer.json() == {"error": {
                "message": "there is no such user", "type": "not_found_error", "param": None, "code": "not_found",
            }}  # fmt: skip
    assert client.get("/v1/users/shop:ann/profile", headers=SHOP).status_code == 200
    assert client.get("/v1/users/shop:ann/profile", headers=ADMIN).status_code == 200
    body = {"reply": "r1", "thumb": 1}
    assert client.post("/v1/feedback", json=body, headers=OTHER).status_code == 404
    # a key whose name begins another one's is another key
    assert client.get("/v1/users/shop:ann/profile", headers={"Authorization": "sho"}).status_code == 404


def test_everything_is_handed_out_and_erased(client: TestClient, profiles: Profiles) -> None:
    client.post("/v1/feedback", json={"reply": "r1", "correction": "Water."}, headers=SHOP).raise_for_status()
    client.get("/v1/users/ann/profile?refresh=true", headers=SHOP).raise_for_status()
    lines = [json.loads(line) for line in client.get("/v1/users/ann/export", headers=SHOP).text.splitlines()]
    assert [line["kind"] for line in lines] == ["user", *["reply"] * 3, "feedback", "profile", *["statement"] * 2]
    assert lines[4]["text"] == "Water." and lines[1]["history"] == [{"role": "user", "content": "Tea at night?"}]
    gone = client.delete("/v1/users/ann", headers=SHOP).json()
    assert gone["deleted"] and gone["learned_from_them"] == []
    assert client.get("/v1/users/ann/export", headers=SHOP).status_code == 404
    assert profiles.store.users() == ["shop:bob"]


def test_feedback_of_three_kinds(client: TestClient, profiles: Profiles) -> None:
    said = ({"reply": "r1", "thumb": -1}, {"preferred": "r2", "over": "r1"}, {"reply": "r3", "correction": " Sleep. "})
    for body in said:
        answer = client.post("/v1/feedback", json=body, headers=SHOP)
        assert answer.status_code == 200 and answer.json()["object"] == "feedback" and answer.json()["id"]
    kept = profiles.store.feedback("shop:ann")
    assert [(f.kind, f.reply, f.thumb, f.over, f.text) for f in kept] == [
        ("thumb", "r1", -1, None, None), ("preferred", "r2", None, "r1", None),
        ("correction", "r3", None, None, "Sleep."),
    ]  # fmt: skip


def test_the_same_request_twice_is_one(client: TestClient, profiles: Profiles) -> None:
    headers = {**SHOP, "Idempotency-Key": "k"}
    answers = [client.post("/v1/feedback", json={"reply": "r1", "thumb": 1}, headers=headers).json() for _ in range(2)]
    assert answers[0] == answers[1] and len(profiles.store.feedback("shop:ann")) == 1
    other = client.post("/v1/feedback", json={"reply": "r1", "thumb": -1}, headers=headers)
    assert other.status_code == 409 and other.json()["error"]["code"] == "conflict"


@pytest.mark.parametrize(
    "body",
    [
        {}, {"reply": "r1"}, {"thumb": 1}, {"reply": "r1", "thumb": 0}, {"reply": "r1", "thumb": True},
        {"reply": "r1", "thumb": "1"}, {"reply": "r1", "thumb": 1, "correction": "x"}, {"preferred": "r1"},
        {"preferred": "r1", "over": "r1"}, {"preferred": "r1", "over": "r3"}, {"reply": "r1", "correction": "  "},
        {"reply": "r1", "thumb": 1, "more": 1}, {"reply": "", "thumb": 1}, {"reply": None, "thumb": 1}, [], "x",
        {"reply": "r1", "thumb": 1, "user": "bob"}, {"reply": 1, "thumb": 1},
    ],
)  # fmt: skip
def test_wrong_feedback_is_told_in_openais_form(client: TestClient, profiles: Profiles, body: object) -> None:
    answer = client.post("/v1/feedback", json=body, headers=SHOP)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (
        error["type"] == "invalid_request_error"
        and error["message"]
        and set(error) == {"message", "type", "param", "code"}
    )
    assert profiles.store.feedback("shop:ann") == []


def test_a_busy_store_is_a_503_and_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 20)
    store = Store(tmp_path / "store.db")
    store.served(served("r1", "shop:ann"))
    client, other = client_of(Profiles(store)), sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = client.post("/v1/feedback", json={"reply": "r1", "thumb": 1}, headers=SHOP)
    assert answer.status_code == 503 and "locked" in answer.json()["error"]["message"]
    assert answer.headers["Retry-After"] == "1" and answer.json()["error"]["type"] == "server_error"
    other.execute("ROLLBACK")
    assert store.feedback("shop:ann") == []
    assert client.post("/v1/feedback", json={"reply": "r1", "thumb": 1}, headers=SHOP).status_code == 200


def test_a_profiler_that_fails_leaves_the_profile_as_it_was(client: TestClient, profiles: Profiles) -> None:
    client.get("/v1/users/ann/profile?refresh=true", headers=SHOP).raise_for_status()
    profiles.profiler = Profiler(ScriptedChat(lambda messages, seed: "no idea"))
    assert client.get("/v1/users/ann/profile?refresh=true", headers=SHOP).status_code == 503
    assert len(client.get("/v1/users/ann/profile", headers=SHOP).json()["statements"]) == 2


def test_profiles_are_inferred_after_every_nth_reply(profiles: Profiles) -> None:
    said: list[int] = []
    model = ScriptedChat(lambda messages, seed: said.append(1) or "[1] likes cake")
    every = Profiles(profiles.store, Profiler(model), every=2)
    for n in range(4):
        every.served(served(f"n{n}", "shop:new", f"message {n}"))
        every._pool.submit(lambda: None).result()  # what was under way is done
    every.close()
    assert len(said) == 2 and [e.text for e in every.read("shop:new").entries] == ["likes cake"]
    assert every.read("shop:new").inferred_from == 4

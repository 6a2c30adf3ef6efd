"""Once around: replies are served, users say what they think, a planner learns from it, is checked, and users leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pamdp import cli
from pamdp.config import CloneConfig, Config, ModelConfig
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy, Request
from pamdp.serve.check import check
from pamdp.serve.erasing import know_version, learned_by, versions
from pamdp.serve.profiles import Profiles
from pamdp.serve.served import ServedReply
from pamdp.serve.store import Store
from pamdp.train.action_space import action_space
from pamdp.train.factory import load_policy, new_policy, save_policy
from pamdp.train.policy_metadata import read_metadata
from tests.tools.chats import chat
from tests.tools.storing import client_of
from tests.tools.tiny import make_tiny_backbone

RUN = CliRunner()
USERS, EACH = 6, 5
FAST = ["rl.epochs=40", "rl.batch_size=32", "rl.actor_every=1", "rl.lr_actor=0.02", "rl.form_states=0"]


def _serve(policy: Policy, store: Store, version: str, sigma: float) -> list[ServedReply]:
    """Thirty replies under drawn actions; one user's are under the mean."""
    out = []
    for n in range(USERS * EACH):
        history = chat(f"Message {n}: what shall I drink?")
        prefix = policy.prefix(history)
        mean, [action] = policy.act(policy.features(prefix), 1, seed=n)
        assert mean is not None and action is not None
        drawn = n % USERS != 5
        action = action if drawn else mean
        [text] = policy.write([prefix], [Request(0, -1, action, n)], Sampling(6))
        actions = (tuple(x.tolist()) for x in (action, mean))
        user = f"shop:u{n % USERS}"
        reply = ServedReply(
            f"r{n}", user, "pamdp", version, history, text.strip() or "-", *actions, sigma if drawn else 0.0, 1000.0 + n
        )
        store.served(reply)
        out.append(reply)
    return out


def test_feedback_goes_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pamdp.models.embedded.load_backbone", lambda *_: make_tiny_backbone())
    config = Config(model=ModelConfig(d_a=4, depth=0.5), clone=CloneConfig(backbone="frozen", steer=0))
    policy = new_policy(make_tiny_backbone(), config)
    policy.trained_planner.actor.sigma.fill_(0.5)
    save_policy(policy, Path("clone/policy"))
    store = Store("store.db")
    know_version(store, "v1", "clone", action_space(policy))
    profiles = Profiles(store)
    client, headers = client_of(profiles), {"Authorization": "shop"}
    for reply in _serve(policy, store, "v1", 0.5):
        assert reply.action is not None and reply.mean is not None
        thumb = 1 if reply.action[0] >= reply.mean[0] else -1  # what users like is the action's first number
        body = {"reply": reply.id, "thumb": thumb, "user": reply.user.split(":")[1]}
        if reply.user.endswith("5"):
            body = {"reply": reply.id, "correction": "Tea."}
        client.post("/v1/feedback", json=body, headers=headers | {"Idempotency-Key": reply.id}).raise_for_status()

    said = RUN.invoke(cli.app, ["feedback", "export", "store.db", "--out", "out", "--json"])
    assert json.loads(said.output) == {"out": "out", "lines": 30}, said.output
    train = ["train", "offline", "--from", "clone", "data.path=out", *FAST, "--run"]
    done = RUN.invoke(cli.app, [*train, "rl"])
    assert done.exit_code == 0, done.output + str(done.exception)
    new = load_policy(Path("rl/trained"), make_tiny_backbone())
    with torch.no_grad():
        states = torch.stack([policy.features(policy.prefix(chat(f"Message {n}?"))) for n in range(8)])
        moved = (new.trained_planner.actor(states) - policy.trained_planner.actor(states)).mean(0)
    assert moved[0] > 0.02  # by twenty draws, in which other numbers of the action go along by chance
    assert action_space(new) == action_space(policy)  # so its replies can be learned from next time
    assert "clip = 0.2" in Path("rl/config.toml").read_text()
    assert json.loads(Path("rl/fingerprint.json").read_text())["judges"] == []

    # the same again ends the same, whatever was in between
    RUN.invoke(cli.app, [*train, "rl2"])
    again = load_policy(Path("rl2/trained"), make_tiny_backbone())
    assert torch.equal(again.trained_planner.actor.a1.bias, new.trained_planner.actor.a1.bias)

    report = check(policy, new, max_reply=6)
    report.require(force=True)  # two random models: whether it passes is their luck
    assert check(new, again, max_reply=6).ok

    learned = read_metadata(Path("rl/trained")).users
    assert learned is not None and set(learned) < {store.alias(f"shop:u{n}") for n in range(USERS)}
    assert know_version(store, "v2", "rl", action_space(new), learned) == len(learned)
    user = learned_by(store, "v2")[0]
    gone = client.delete(f"/v1/users/{user}", headers=headers).json()
    assert [v["version"] for v in gone["learned_from_them"]] == ["v2"]
    assert {v.id: v.erased for v in versions(store)} == {"v1": 0, "v2": 1}

    # and the commands that the answer gives do train again, without them
    for command in gone["learned_from_them"][0]["train_again"]:
        words = command.split()
        assert RUN.invoke(cli.app, [*words[1:], *(FAST if words[1] == "train" else [])]).exit_code == 0, command
    rest = read_metadata(Path("rl-again/trained")).users
    assert rest and store.alias(user) not in rest
    assert set(rest) <= {store.alias(user) for user in store.users()}

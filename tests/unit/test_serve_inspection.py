"""What is shown of a chat's actions, and to whom."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch

from pamdp.serve.inspection import principal
from pamdp.serve.keys import Key, Keys
from pamdp.serve.pages import page_router
from pamdp.serve.profiles import Profiles
from pamdp.serve.run_page import run_folder
from pamdp.serve.store import Store
from pamdp.types import Message
from tests.tools.serving import as_json, make_models, said, serving
from tests.tools.storing import served

WEB = httpx.Client(timeout=300)
CHAT = said("hello there", "good evening", "and now")


def test_principal_directions_by_hand() -> None:
    # Along (3, 4)/5 by 5, −5, 5, −5, along (4, −3)/5 by 1, 1, −1, −1, around (1, 1): variances as 100 to 4.
    along, across = torch.tensor([0.6, 0.8]), torch.tensor([0.8, -0.6])
    actions = torch.stack([1 + 5 * i * along + j * across for j in (1, -1) for i in (1, -1)])
    places, shares = principal(actions)
    expected = torch.tensor([[5.0, 1], [-5, 1], [5, -1], [-5, -1]], dtype=torch.double)
    torch.testing.assert_close(places, expected, atol=1e-5, rtol=0)
    assert shares == pytest.approx([100 / 104, 4 / 104])
    torch.testing.assert_close(principal(-actions)[0], -expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("turns", [1, 2])
def test_few_turns_have_places_too(turns: int) -> None:
    places, shares = principal(torch.eye(4)[:turns])
    assert places.shape == (turns, 2) and len(shares) == 2 and not places.isnan().any()
    assert places[:, 1].abs().max() < 1e-6


def test_actions_of_a_chat_for_admins_and_of_their_own_users(tmp_path: Path) -> None:
    secrets = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("shop", "boss")}
    keys = Keys({name: Key(sha256=digest, admin=name == "boss") for name, digest in secrets.items()})
    store, zero = Store(tmp_path / "store.db"), (0.0,) * 4
    mine = served("r1", "boss:ann", "hi", version="version of pamdp", mean=zero)
    store.served(mine)
    store.served(served("r2", "shop:bob", "hi", version="version of pamdp", mean=zero))
    store.served(served("r3", "boss:cid", "hi", version="an older one", mean=zero))
    store.served(replace(mine, id="r4", user="boss:dan", history=CHAT[:1]))  # the chat that is asked about
    told = (Message("system", "Be brief."), *said("good morning"))
    store.served(replace(mine, id="r5", user="boss:eve", history=told))
    with serving(make_models(), keys, routers=[page_router("shipped")], profiles=Profiles(store)) as running:

        def ask(path: str, name: str, **more: object) -> httpx.Response:
            body = {"model": "pamdp", "messages": as_json(CHAT), **more}
            return WEB.post(f"{running.url}{path}", json=body, headers={"Authorization": f"Bearer {name}"})

        for path in ("/v1/inspect", "/v1/inspect/replies"):
            assert ask(path, "shop", actions=["zero"]).status_code == 403
            assert ask(path, "nobody", actions=["zero"]).status_code == 401
            assert ask(path, "boss", actions=["zero"], model="vanilla").status_code == 400
        found = ask("/v1/inspect", "boss").json()
        policy = running.this.models["pamdp"].policy
        mean = running.this.engine.call(lambda: policy.mean_action(policy.prefix(CHAT))).result()
        assert [len(turn["mean"]) for turn in found["turns"]] == [4, 4]
        assert found["turns"][1]["mean"] == pytest.approx(mean.tolist(), abs=1e-5)
        assert found["turns"][1]["v_h"] is None, "this policy has no critics"
        assert [other["user"] for other in found["others"]] == ["boss:ann", "boss:eve"]
        instructed = ask("/v1/inspect", "boss", messages=[{"role": "system", "content": "Rhyme."}, *as_json(CHAT)])
        assert [len(turn["mean"]) for turn in instructed.json()["turns"]] == [4, 4]
        assert instructed.json()["turns"][1]["mean"] != found["turns"][1]["mean"]
        replies = ask("/v1/inspect/replies", "boss", actions=["mean", "zero", 0]).json()["data"]
        assert replies[0]["text"] == running.alone("pamdp", CHAT) != replies[1]["text"] == replies[2]["text"]
        assert ask("/v1/inspect/replies", "boss", actions=[2]).json()["error"]["param"] == "actions"


def test_a_run_is_told_from_a_policy(tmp_path: Path) -> None:
    assert run_folder("shipped") is None and run_folder(str(tmp_path)) is None
    (tmp_path / "config.toml").write_text("")
    assert run_folder(str(tmp_path)) == tmp_path.resolve()

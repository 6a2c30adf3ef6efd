"""Replies as a server would have given them, and a program that stores some until it is killed.

Run as a program it stores replies without end and says of each that it was: `python -m tests.tools.storing FILE`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

from fastapi import FastAPI, Header
from fastapi.testclient import TestClient

from pamdp.serve import errors
from pamdp.serve.callers import Asker
from pamdp.serve.feedback import feedback_router
from pamdp.serve.profiles import Profiles
from pamdp.serve.served import ServedReply
from pamdp.serve.store import Store
from pamdp.serve.users import users_router
from tests.tools.chats import chat


def served(
    id: str = "r1", user: str = "shop:ann", *said: str, text: str = "Tea, then.", version: str = "v1",
    action: Sequence[float] | None = (0.5, 1.0), mean: Sequence[float] | None = (0.0, 1.0), sigma: float = 0.5,
    created: float = 1000.0,
) -> ServedReply:  # fmt: skip
    """A reply to a chat of the texts SAID, by turns."""
    action, mean = (None if x is None else tuple(x) for x in (action, mean))
    return ServedReply(
        id, user, "pamdp", version, chat(*(said or ("What shall I drink?",))), text, action, mean, sigma, created
    )


def caller(authorization: str = Header("shop")) -> Asker:
    """The key's name stands in the header; `admin` may ask for everybody."""
    return authorization, authorization, authorization == "admin"


def client_of(profiles: Profiles) -> TestClient:
    """An app of nothing but the two routers."""
    app = FastAPI()
    errors.install(app)
    app.include_router(users_router(profiles, caller))
    app.include_router(feedback_router(profiles.store, caller))
    return TestClient(app)


if __name__ == "__main__":
    store = Store(sys.argv[1])
    for n in itertools.count():
        store.served(served(f"r{n}", f"shop:u{n % 3}"))
        print(n, flush=True)

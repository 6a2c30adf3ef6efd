"""A whole online run against a real server; skipped unless an environment variable names one (docs/servers.md).

PAMDP_TEST_SERVER=http://127.0.0.1:8000/v1 PAMDP_TEST_MODEL=NAME pytest tests/integration/test_live_server.py
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest

from pamdp.config import Config
from pamdp.data import load_sample
from pamdp.errors import EndpointError, JudgeError
from pamdp.fingerprint import Fingerprint
from pamdp.journal import Journal
from pamdp.llm.chat import Decoding
from pamdp.llm.openai import OpenAIChat
from pamdp.models.backbone import Backbone
from pamdp.runs import Run
from pamdp.settings import load
from pamdp.train.env_factory import ENDS, make_env_factory
from pamdp.train.factory import new_policy
from pamdp.train.online import online
from pamdp.types import Message
from tests.tools.tiny import make_tiny_backbone

URL, MODEL = os.environ.get("PAMDP_TEST_SERVER", ""), os.environ.get("PAMDP_TEST_MODEL", "")
pytestmark = pytest.mark.skipif(not (URL and MODEL), reason="PAMDP_TEST_SERVER and PAMDP_TEST_MODEL name no server")


def _config(cache: Path) -> Config:
    ends = [
        f"{end}.{name}={value}"
        for end in ENDS
        for name, value in (
            ("kind", "openai"), ("base_url", URL), ("model", MODEL), ("max_tokens", 24), ("concurrency", 2),
            ("timeout", 600),
        )
    ]  # fmt: skip
    small = ["model.d_a=8", "model.depth=0.5", "clone.backbone=frozen", "rl.horizon=2", "rl.max_reply=6", "rl.epochs=1"]
    run = ["rl.profile=inferred", "online.rounds=1", "online.users=2", "online.reference=written"]
    return load(Config, (), [*small, *run, *ends, f"cache={cache}"])


def test_an_answer_has_words_and_counts_and_is_the_same_again() -> None:
    model = OpenAIChat(MODEL, URL, timeout=600)

    async def twice() -> list[str]:
        asked = (Message("system", "Be brief."), Message("user", "Name a colour."))
        answers = [await model.complete(asked, Decoding(0.0, 8)) for _ in range(2)]
        assert all(a.prompt_tokens > 0 and 0 < a.completion_tokens <= 8 and not a.refused for a in answers)
        return [a.text for a in answers]

    first, second = asyncio.run(twice())
    assert first and first == second


def test_a_model_that_is_not_there_ends_it_with_one_line() -> None:
    """Some servers answer whatever name is asked for; then there is nothing to see."""

    async def ask() -> None:
        await OpenAIChat("no-such-model", URL).complete((Message("user", "Hello?"),), Decoding(0.0, 4))

    try:
        asyncio.run(ask())
    except EndpointError as error:
        assert "no-such-model" in str(error) and "\n" not in str(error)


def test_two_users_and_two_turns(tmp_path: Path) -> None:
    """Users, profiles, references and judgements come from the server; what a small model cannot answer is masked."""
    config, bare = _config(tmp_path / "answers"), make_tiny_backbone()
    world = make_env_factory(config, bare)
    policy, people = new_policy(bare, config), load_sample("train").dialogues[:2]
    prints = Fingerprint(data="0", model="tiny", revision="0", judges=world.fingerprints(people))
    with Run.create(tmp_path / "run", config, prints) as run, suppress(JudgeError):
        online(policy, people, world, config, run)  # JudgeError: no verdict could be read at all
    calls = world.ledger.entries
    assert set(calls) == {"simulator", "profiler", "judge", "reference"}
    assert all(entry.failed == 0 and entry.completion_tokens > 0 for entry in calls.values())
    assert calls["simulator"].calls >= 4 and calls["profiler"].calls >= 6 and calls["judge"].calls >= 1
    played = len(run.traces())
    if not played:
        with Journal(tmp_path / "run" / "journal" / f"{0:08d}.jsonl") as journal:
            played = len(journal.turns)
    assert played == 4


def test_no_model_of_this_machine_is_loaded(tmp_path: Path) -> None:
    def load_none(name: str) -> Backbone:
        raise AssertionError(f"{name} is loaded, and all roles are on the server")

    world = make_env_factory(_config(tmp_path), make_tiny_backbone(), load_none)
    assert world.profiler is not None and world.writer is not None

"""Talking with a policy in the terminal: what is shown, and what the assistant is not told."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pamdp.config import CloneConfig, Config, ModelConfig, RLConfig
from pamdp.env.profile import Profiler
from pamdp.llm.ask import Asking
from pamdp.models.critics import DualCritic
from pamdp.models.policy import Policy
from pamdp.talk import talk
from pamdp.train.factory import load_critics, load_policy, new_policy, save_policy
from pamdp.types import Message
from tests.tools.scripted import ScriptedChat
from tests.tools.tiny import make_tiny_backbone

CONFIG = Config(model=ModelConfig(d_a=4, depth=0.5), clone=CloneConfig(backbone="frozen"), rl=RLConfig(max_reply=4))


class Typed(Console):
    """A console whose input is written down beforehand."""

    def __init__(self, *lines: str) -> None:
        self.out = io.StringIO()
        super().__init__(file=self.out, width=200)
        self.lines = list(lines)

    def input(self, *_: object, **__: object) -> str:
        return self.lines.pop(0)


def _policy() -> Policy:
    return new_policy(make_tiny_backbone(), CONFIG)


def test_value_action_and_profile_are_shown_when_asked_for() -> None:
    asked: list[str] = []

    def profile(messages: Sequence[Message], _seed: int) -> str:
        asked.append(messages[-1].content)
        return "[1] bakes bread"

    policy, console = _policy(), Typed("I bake bread.", "At night.", "")
    critics = DualCritic(policy.width, policy.width, 5.0)
    talk(policy, critics, True, 4, console, Profiler(ScriptedChat(profile)))
    shown = console.out.getvalue()
    assert shown.count("V(h)") == shown.count("|a|") == shown.count("profile so far: bakes bread.") == 2
    assert "At night." in asked[1] and "At night." not in asked[0]


def test_a_profile_that_cannot_be_read_is_said_and_the_talk_goes_on() -> None:
    console = Typed("Hello.", "Hello again.", "")
    talk(_policy(), None, True, 4, console, Profiler(ScriptedChat(lambda *_: "no idea"), Asking(attempts=1)))
    assert console.out.getvalue().count("no answer that could be read") == 2


def test_nothing_is_inferred_unless_asked_for() -> None:
    asked: list[str] = []
    console = Typed("Hello.", "")
    talk(_policy(), None, False, 4, console, Profiler(ScriptedChat(lambda *_: asked.append("") or "[none]")))
    assert not asked and "|a|" not in console.out.getvalue()


def test_critics_lie_beside_their_policy(tmp_path: Path) -> None:
    policy = _policy()
    critics = DualCritic(policy.width, policy.width, 5.0)
    save_policy(policy, CONFIG, tmp_path / "with", critics)
    save_policy(policy, CONFIG, tmp_path / "without")
    again = load_critics(tmp_path / "with", policy.width, 5.0)
    assert again is not None and load_critics(tmp_path / "without", policy.width, 5.0) is None
    for name, value in critics.state_dict().items():
        assert value.equal(again.state_dict()[name])
    assert load_policy(tmp_path / "with", make_tiny_backbone()).planner is not None

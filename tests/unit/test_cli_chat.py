"""Talking with a policy in the terminal: what is said and shown, what ends it, and what the assistant is not told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console
from rich.control import strip_control_codes
from typer.testing import CliRunner

from pamdp import cli
from pamdp.config import CloneConfig, Config, ModelConfig, RLConfig
from pamdp.models.critics import DualCritic
from pamdp.models.policy import Policy
from pamdp.train.factory import load_critics, load_policy, new_policy, save_policy
from pamdp.types import Message
from tests.tools.scripted import ScriptedChat
from tests.tools.tiny import make_tiny_backbone

CONFIG = Config(model=ModelConfig(d_a=4, depth=0.5), clone=CloneConfig(backbone="frozen"), rl=RLConfig(max_reply=4))
Answer = Callable[[Sequence[Message], int], str]


@pytest.fixture
def policy() -> Policy:
    return new_policy(make_tiny_backbone(), CONFIG)


@pytest.fixture
def talk(tmp_path: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What is shown when a person types LINES to the run of POLICY, with ANSWER as profiler."""
    save_policy(policy, tmp_path / "policy", DualCritic(policy.width, policy.width, 5.0))
    monkeypatch.setattr("pamdp.models.embedded.load_backbone", lambda name: make_tiny_backbone())

    def talk(lines: str, *options: str, answer: Answer) -> str:
        monkeypatch.setattr("pamdp.llm.local.LocalChat", lambda bare: ScriptedChat(answer))
        shown = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, ["chat", str(tmp_path), *options], input=lines)
        assert shown.exit_code == 0, shown.output
        return shown.output

    return talk


def _nobody(messages: Sequence[Message], seed: int) -> str:
    pytest.fail("nobody asked for a profile")


def test_value_action_and_profile_are_shown_when_asked_for(talk: Callable[..., str]) -> None:
    asked: list[str] = []

    def profile(messages: Sequence[Message], _seed: int) -> str:
        asked.append(messages[-1].content)
        return "[1] bakes bread"

    shown = talk("I bake bread.\nAt night.\n\n", "--show", answer=profile)
    assert shown.count("V(h)") == shown.count("|a|") == shown.count("profile so far: bakes bread.") == 2
    assert "At night." in asked[1] and "At night." not in asked[0]


def test_a_profile_that_cannot_be_read_is_said_and_the_talk_goes_on(talk: Callable[..., str]) -> None:
    shown = talk("Hello.\nHello again.\n\n", "--show", answer=lambda *_: "no idea")
    assert shown.count("no answer that could be read") == 2


def test_replies_are_the_policy_s_own_and_nothing_is_inferred_unless_asked_for(
    talk: Callable[..., str], policy: Policy
) -> None:
    shown = talk("Hello.\nHow are you?\n\n", answer=_nobody)
    history: tuple[Message, ...] = ()
    for said in ("Hello.", "How are you?"):
        history = (*history, Message("user", said))
        reply = policy.reply(history, max_tokens=4)
        assert f"pamdp  {strip_control_codes(reply)}\n" in shown
        history = (*history, Message("assistant", reply))
    assert "|a|" not in shown


@pytest.mark.parametrize("lines", ["", "\n", "Hello.\n", "Hello.\n \nnever read\n"])
def test_an_empty_line_or_the_end_of_input_ends_it(talk: Callable[..., str], lines: str) -> None:
    assert talk(lines, answer=_nobody).count("pamdp  ") == lines.count("Hello.")


def test_ctrl_c_ends_it(talk: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter(["Hello."])

    def typed(*_: object) -> str:
        for line in said:
            return line
        raise KeyboardInterrupt

    monkeypatch.setattr(Console, "input", typed)
    assert talk("", answer=_nobody).count("pamdp  ") == 1


def test_critics_lie_beside_their_policy(tmp_path: Path, policy: Policy) -> None:
    critics = DualCritic(policy.width, policy.width, 5.0)
    save_policy(policy, tmp_path / "with", critics)
    save_policy(policy, tmp_path / "without")
    again = load_critics(tmp_path / "with", policy.width, 5.0)
    assert again is not None and load_critics(tmp_path / "without", policy.width, 5.0) is None
    for name, value in critics.state_dict().items():
        assert value.equal(again.state_dict()[name])
    assert load_policy(tmp_path / "with", make_tiny_backbone()).planner is not None

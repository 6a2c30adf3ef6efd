"""The environment with users, profiler and judge that have to be waited for: together, masked, and never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import wait

import pytest

from pamdp.async_bridge import run
from pamdp.env.dialogue import DialogueEnv
from pamdp.env.profile import Profiler
from pamdp.env.references import WrittenReferences
from pamdp.env.reward import Reward
from pamdp.env.simulated import SimulatedUser
from pamdp.errors import EndpointError
from pamdp.judges.base import Case, Verdict
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.llm.chat import ChatModel, Completion, Decoding
from pamdp.prompts.render import load
from pamdp.types import Message, Persona, TimeStep
from tests.tools.scripted import ScriptedChat

ANA = Persona("Ana is a nurse. She works nights.", "She is brief.")


def _talk(messages: Sequence[Message], seed: int) -> str:
    return f"well, number {seed % 1000}"


def _judges(messages: Sequence[Message], seed: int) -> str:
    return "no idea" if "\nbroken\n" in messages[-1].content else "[[A]]"


def _tea(steps: Sequence[TimeStep]) -> list[list[str]]:
    return [["tea"] for _ in steps]


def _env(
    n: int = 3,
    talk: ChatModel | None = None,
    judge: ChatModel | None = None,
    profiler: ChatModel | None = None,
    horizon: int = 2,
) -> DialogueEnv:
    users = [
        SimulatedUser(
            f"d{i}", ANA, talk or ScriptedChat(_talk), opening="hello", profiler=profiler and Profiler(profiler)
        )
        for i in range(n)
    ]
    return DialogueEnv(users, Reward(PairwiseJudge("j", judge or ScriptedChat(_judges)), _tea), horizon)


class Meeting:
    """A chat model whose calls wait for one another: nobody is answered before all are there."""

    fingerprint = {"kind": "test", "model": "meeting"}  # noqa: RUF012

    def __init__(self, expected: int) -> None:
        self.expected, self.there = expected, 0
        self.all_there: asyncio.Event | None = None

    async def complete(
        self, messages: Sequence[Message], decoding: Decoding = Decoding(), *, seed: int = 0
    ) -> Completion:
        self.all_there = self.all_there or asyncio.Event()
        self.there += 1
        if self.there >= self.expected:
            self.all_there.set()
        # Not a time that is asserted: without it a serial environment would hang instead of failing.
        await asyncio.wait_for(self.all_there.wait(), 30)
        return Completion("[[A]]" if "assistant A" in messages[-1].content else "well then")


def test_users_and_judges_of_a_batch_are_asked_together() -> None:
    together = Meeting(expected=6)
    env = _env(3, together, together)
    outcomes = env.step(env.reset(), [["reply"]] * 3)
    assert together.there == 6 and [o.reward for (o,) in outcomes] == [1.0] * 3


def test_who_began_a_step_can_do_something_else_meanwhile() -> None:
    together = Meeting(expected=7)
    env = _env(3, together, together)
    futures = env.begin(env.reset(), [["reply"]] * 3)
    assert not any(future.done() for future in futures)  # nobody is answered before the seventh asks
    run(together.complete([Message("user", "what the caller does meanwhile")]))
    assert len(wait(futures).done) == 3


def test_a_user_without_a_usable_answer_masks_the_transition_and_the_dialogue_goes_on() -> None:
    lost = ScriptedChat(lambda m, s: "" if "reply 0" in m[-1].content and "reply 1" not in m[-1].content else "well")
    env = _env(1, lost)
    (moment,) = env.reset()
    [[first]] = env.step([moment], [["reply 0"]])
    assert first.reward is None and first.next is not None and first.next.known
    assert first.next.history[-2:] == (Message("assistant", "reply 0"), Message("user", load("user_stuck")))
    [[second]] = env.step([first.next], [["reply 1"]])
    # The message is told from the user's own words, and why its answers were none.
    assert first.next.stock and first.next.rejected == ("no words",) * 3 and not moment.stock
    assert second.reward == 1.0 and second.truncated and second.next is not None
    assert not second.next.stock and second.next.rejected == ()
    assert second.next.history[-1].content == "well"


def test_a_first_message_that_cannot_be_had_is_a_greeting() -> None:
    user = SimulatedUser("d", ANA, ScriptedChat(lambda m, s: ""))
    env = DialogueEnv([user], Reward(PairwiseJudge("j", ScriptedChat(_judges)), _tea), 2)
    (moment,) = env.reset()
    assert moment.history == (Message("user", load("user_greets")),) and moment.stock and len(moment.rejected) == 3


def test_a_profile_that_cannot_be_had_masks_what_is_replied_there_and_nothing_else() -> None:
    broken = ScriptedChat(lambda m, s: "I think" if "[2] " in m[-1].content.split("The chat")[1] else "[1] a nurse")
    env = _env(1, profiler=broken, horizon=3)
    (moment,) = env.reset()
    assert moment.privileged == Persona("a nurse.")
    [[first]] = env.step([moment], [["a"]])
    assert first.reward == 1.0 and first.next is not None
    assert not first.next.known and first.next.privileged == Persona("a nurse.")  # what was known before
    [[second]] = env.step([first.next], [["b"]])
    assert second.reward is None and second.next is not None and not second.next.known


def test_a_verdict_that_cannot_be_read_masks_its_own_reply() -> None:
    env = _env(2)
    (good,), (bad,) = env.step(env.reset(), [["fine"], ["broken"]])
    assert good.reward == 1.0 and bad.reward is None and bad.next is not None


def test_a_reference_that_cannot_be_had_masks_its_reply() -> None:
    class Nobody:
        name, fingerprint = "none", {"name": "none"}

        def judge(self, cases: Sequence[Case], progress: object = None) -> list[Verdict]:
            return [Verdict(1, 0) for _ in cases]

    users = [SimulatedUser(f"d{i}", ANA, ScriptedChat(_talk), opening=f"hello {i}") for i in range(2)]
    writer = WrittenReferences(ScriptedChat(lambda m, s: "" if "hello 0" in m[-1].content else "Tea."))
    for judge in (Nobody(), PairwiseJudge("j", ScriptedChat(_judges))):
        env = DialogueEnv(users, Reward(judge, writer), 2)
        assert [o.reward for (o,) in env.step(env.reset(), [["x"], ["x"]])] == [None, 1.0]


def test_a_dead_endpoint_ends_its_own_dialogue_s_turn_only() -> None:
    def half_dead(messages: Sequence[Message], seed: int) -> str:
        if "reply 1" in messages[-1].content:
            raise EndpointError("nobody answers")
        return "well"

    env = _env(2, ScriptedChat(half_dead))
    one, two = env.begin(env.reset(), [["reply 0"], ["reply 1"]])
    assert one.result()[0].reward == 1.0
    with pytest.raises(EndpointError, match="nobody answers"):
        two.result()

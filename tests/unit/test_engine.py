"""Replies of an engine are those that policies write by themselves, whoever comes, goes or talks beside."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch

from pamdp.engines.batch import instructed
from pamdp.engines.engine import Engine
from pamdp.engines.job import Ended, Event, Failed, Job, Piece, Started
from pamdp.engines.prefix_cache import PrefixCache, size
from pamdp.engines.speech import Speech
from pamdp.errors import ContextLengthError, EndpointError
from pamdp.models.backbone import Backbone
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy, Request
from pamdp.types import Message
from tests.tools.serving import make_policies, said

GREEDY = Sampling(12)
DRAWN = Sampling(12, temperature=1.0)


@pytest.fixture(scope="module")
def policies() -> dict[str, Policy]:
    return make_policies()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(places=4, context=400, tokens=64)
    yield engine
    engine.stop()


class Asked:
    """A job and what comes of it."""

    def __init__(self, engine: Engine, policy: Policy, history: Sequence[Message], sampling: Sampling, **more) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        more = {"space": ("user", str(id(policy))), **more}
        self.job = Job(policy, tuple(history), sampling, emit=self.events.put, **more)
        self.pieces = [""] * self.job.n
        self.ended: list[Ended | None] = [None] * self.job.n
        self.started: Started | None = None
        engine.submit(self.job)

    def wait(self) -> list[Ended]:
        while None in self.ended:
            match self.events.get(timeout=300):
                case Started() as started:
                    self.started = started
                case Piece(index, text):
                    self.pieces[index] += text
                case Ended() as ended:
                    self.ended[ended.index] = ended
                case Failed(error):
                    raise error
        return [ended for ended in self.ended if ended is not None]

    @property
    def text(self) -> str:
        return self.wait()[0].text


def alone(engine: Engine, policy: Policy, history: Sequence[Message], sampling: Sampling, seed: int = 0) -> str:
    """What the policy writes by itself; in the engine's thread, which owns the models."""

    def write() -> str:
        prefix = policy.prefix(history)
        return policy.write([prefix], [Request(0, -1, policy.mean_action(prefix), seed)], sampling)[0]

    return engine.call(write).result()


def test_replies_of_all_policies_at_once_are_those_of_each_alone(engine: Engine, policies: dict[str, Policy]) -> None:
    cases = [
        (name, said(f"message {i} of {name}"), replace(way, max_tokens=5 + i % 7), i)
        for i, way in enumerate((GREEDY, DRAWN, replace(DRAWN, temperature=0.4, top_p=0.7)) * 4)
        for name in policies
    ]
    asked = [Asked(engine, policies[name], history, way, seed=seed) for name, history, way, seed in cases]
    found = [one.text for one in asked]
    assert found == [alone(engine, policies[name], history, way, seed) for name, history, way, seed in cases]
    assert len(set(found)) > len(cases) // 2


def test_greedy_is_what_reply_says(engine: Engine, policies: dict[str, Policy]) -> None:
    for policy in policies.values():
        found = Asked(engine, policy, said("hello"), Sampling(20)).text
        assert found == engine.call(partial(policy.reply, "hello", max_tokens=20)).result()


def test_pieces_add_up_and_a_stop_text_ends_a_reply(engine: Engine, policies: dict[str, Policy]) -> None:
    way = Sampling(30, trim=False)
    whole = alone(engine, policies["pamdp"], said("tell me"), way)
    streamed = Asked(engine, policies["pamdp"], said("tell me"), way, stream=True)
    [ended] = streamed.wait()
    assert (ended.text, streamed.pieces[0] + ended.rest) == (whole, whole)
    stop = whole[8:11]
    for stream in (True, False):
        cut = Asked(engine, policies["pamdp"], said("tell me"), way, stop=("nowhere at all", stop), stream=stream)
        [ended] = cut.wait()
        assert ended.text == whole[: whole.index(stop)] and ended.reason == "stop"
        assert not stream or cut.pieces[0] + ended.rest == ended.text
        assert ended.tokens < 30


def test_several_replies_differ_where_they_are_drawn_and_only_there(
    engine: Engine, policies: dict[str, Policy]
) -> None:
    assert len({ended.text for ended in Asked(engine, policies["pamdp"], said("hi"), DRAWN, n=4).wait()}) > 1
    greedy = Asked(engine, policies["pamdp"], said("hi"), GREEDY, n=3).wait()
    assert len({(ended.text, ended.action) for ended in greedy}) == 1
    assert greedy[0].action == greedy[0].mean and greedy[0].sigma == 0
    explored = Asked(engine, policies["pamdp"], said("hi"), GREEDY, n=3, explore=0.5).wait()
    assert len({ended.action for ended in explored}) == 3 and len({ended.mean for ended in explored}) == 1
    assert explored[0].sigma == 0.5 * float(policies["pamdp"].trained_planner.actor.sigma)
    vanilla = Asked(engine, policies["vanilla"], said("hi"), GREEDY, explore=0.5).wait()[0]
    assert (vanilla.action, vanilla.mean, vanilla.sigma) == (None, None, 0.0)


def test_replies_under_given_actions_are_those_that_the_policy_writes(
    engine: Engine, policies: dict[str, Policy]
) -> None:
    policy, history = policies["pamdp"], said("hello")

    def write() -> list[str]:
        prefix = policy.prefix(history)
        actions = (torch.zeros(4), policy.mean_action(prefix), torch.full((4,), 2.0))
        return policy.write([prefix], [Request(0, -1, action) for action in actions], GREEDY)

    given = ((0.0,) * 4, None, (2.0,) * 4)
    ended = Asked(engine, policy, history, GREEDY, n=3, actions=given).wait()
    assert [one.text for one in ended] == engine.call(write).result() and len({one.text for one in ended}) == 3
    assert [one.action for one in ended] == [given[0], ended[1].mean, given[2]]


def test_a_job_that_cannot_begin_fails_alone(engine: Engine, policies: dict[str, Policy]) -> None:
    """Actions of another width than the policy's, beside a reply under way and one that comes after."""
    own = policies["pamdp"]
    beside = Asked(engine, own, said("Hello."), Sampling(48))
    wrong = Asked(engine, own, said("Hello."), GREEDY, n=2, actions=((0.5,), None))
    after = Asked(engine, own, said("Hello."), GREEDY)
    with pytest.raises(EndpointError, match="could not be written"):
        wrong.wait()
    found = [beside.text, after.text]
    # In the thread that owns the model: it may still be switching adapters when the last piece is told.
    assert found == engine.call(lambda: [own.reply("Hello.", max_tokens=n) for n in (48, 12)]).result()
    assert engine.running == 0


def test_a_given_action_was_not_drawn(engine: Engine, policies: dict[str, Policy]) -> None:
    own = policies["pamdp"]
    width = own.config.model.d_a
    given, drawn = Asked(engine, own, said("Hello."), GREEDY, n=2, explore=1.0, actions=((0.5,) * width, None)).wait()
    assert given.sigma == 0 < drawn.sigma and given.action == pytest.approx((0.5,) * width)


def test_a_cancelled_job_frees_its_places(engine: Engine, policies: dict[str, Policy]) -> None:
    endless = Sampling(64, trim=False)
    many = [Asked(engine, policies["pamdp"], said(f"first {i}"), endless, n=4, stream=True) for i in range(3)]
    for one in many:
        engine.cancel(one.job)
    assert Asked(engine, policies["pamdp"], said("hello"), GREEDY).text == alone(
        engine, policies["pamdp"], said("hello"), GREEDY
    )
    assert engine.call(lambda: [len(b.replies) + len(b.queue) for b in engine._batches.values()]).result() in ([], [0])
    assert all(None in one.ended for one in many)


def test_a_next_turn_reads_only_what_is_new_and_says_the_same(engine: Engine, policies: dict[str, Policy]) -> None:
    policy = policies["pamdp"]
    first = said("I have a dog called Otto")
    reply = Asked(engine, policy, first, GREEDY).text
    second = (*first, Message("assistant", reply), Message("user", "what is he called?"))
    cold = Asked(engine, policy, second, GREEDY, space=("other",))
    warm = Asked(engine, policy, second, GREEDY)
    assert warm.text == cold.text == alone(engine, policy, second, GREEDY)
    assert cold.started is not None and cold.started.cached_tokens == 0
    assert warm.started is not None and 0 < warm.started.cached_tokens < warm.started.prompt_tokens
    again = Asked(engine, policy, second, GREEDY)
    assert again.text == warm.text
    assert again.started is not None and again.started.cached_tokens == again.started.prompt_tokens
    engine.forget("user")
    gone = Asked(engine, policy, second, GREEDY)
    assert gone.text == warm.text and gone.started is not None and gone.started.cached_tokens == 0


def test_a_chat_without_room_fails_alone(engine: Engine, policies: dict[str, Policy]) -> None:
    long, short = (Asked(engine, policies["pamdp"], said(text), GREEDY) for text in ("too long " * 400, "short"))
    with pytest.raises(ContextLengthError, match="leave out what was said first"):
        long.wait()
    assert short.text == alone(engine, policies["pamdp"], said("short"), GREEDY)


def test_what_breaks_one_batch_leaves_the_others_and_the_engine(
    engine: Engine, policies: dict[str, Policy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Policy, "act", lambda *_: 1 / 0)
    with pytest.raises(Exception, match="ZeroDivisionError"):
        Asked(engine, policies["pamdp"], said("hi"), GREEDY).wait()
    monkeypatch.undo()
    assert Asked(engine, policies["pamdp"], said("hi"), GREEDY).text == alone(
        engine, policies["pamdp"], said("hi"), GREEDY
    )
    with pytest.raises(ZeroDivisionError):
        engine.call(lambda: 1 / 0).result()
    assert engine.alive


def test_a_call_that_nobody_waits_for_is_left_out_and_the_engine_goes_on(engine: Engine) -> None:
    begun, done = threading.Event(), threading.Event()
    first = engine.call(lambda: (begun.set(), done.wait()))
    begun.wait()
    second = engine.call(lambda: "unwanted")
    assert second.cancel()
    done.set()
    first.result()
    assert engine.call(lambda: "wanted").result() == "wanted" and engine.alive


def test_instructions_of_a_client_stand_after_the_policys(policies: dict[str, Policy]) -> None:
    policy = policies["pamdp"]
    told, history = instructed(policy, (Message("system", "Be brief."), *said("hi")))
    assert told.system == f"{policy.system}\n\nBe brief." and history == said("hi")
    assert instructed(policy, said("hi")) == (policy, said("hi"))


def test_the_cache_keeps_what_was_used_last_within_its_bytes_for_its_space(tiny_backbone: Backbone) -> None:
    with torch.no_grad():
        prefixes = [tiny_backbone.prefix(tiny_backbone.chat.history(said(f"number {i}"), "")) for i in range(3)]
    cache = PrefixCache(2 * size(prefixes[0]) + 10)
    for prefix in prefixes[:2]:
        cache.keep(("a", "m"), prefix)
    assert cache.find(("a", "m"), prefixes[0].encoded) is prefixes[0]
    assert all(cache.find(space, prefixes[0].encoded) is None for space in (("b", "m"), ("a", "n")))
    cache.keep(("a", "m"), prefixes[2])
    assert cache.find(("a", "m"), prefixes[1].encoded) is None
    assert cache.bytes == size(prefixes[0]) + size(prefixes[2])
    cache.forget("a")
    assert cache.bytes == 0 and cache.find(("a", "m"), prefixes[0].encoded) is None


def test_speech_holds_back_what_may_not_be_said() -> None:
    speech = Speech(("END", "\n\n"))
    assert [speech.more(text) for text in ("He", "Hell\ufffd", "Hello EN", "Hello ENter", "Hello ENter E")] == [
        "He", "ll", "o ", "ENter", " ",
    ]  # fmt: skip
    assert speech.more("Hello ENter END of it") == "" and speech.stopped and speech.said == "Hello ENter "
    whole = Speech()
    assert whole.more("a\ufffd") + whole.rest("a\ufffd") == "a\ufffd"

"""Limits and retries under a clock of their own: how often, how many at once, how long, and when it is given up."""

from __future__ import annotations

import asyncio

import pytest

from pamdp.errors import EndpointError
from pamdp.llm.chat import Completion, Decoding, TransientError
from pamdp.llm.limits import Limited, Limits, Retrying
from pamdp.types import Message
from tests.tools.scripted import ScriptedChat
from tests.tools.virtual_time import play

ASKED = (Message("user", "x" * 40),)  # ten tokens, by the estimate


class Recorder:
    """Notes when calls begin and how many run at once; each takes a second."""

    fingerprint = {"kind": "test", "model": "recorder", "base_url": "http://here/v1"}  # noqa: RUF012

    def __init__(self, failures: int = 0, after: float | None = None, tokens: int = 0) -> None:
        self.began: list[float] = []
        self.running = self.most = 0
        self.failures, self.after, self.tokens = failures, after, tokens

    async def complete(self, messages: object, decoding: Decoding = Decoding(), *, seed: int = 0) -> Completion:
        self.began.append(asyncio.get_running_loop().time())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(1)
            if len(self.began) <= self.failures:
                raise TransientError("status 500", self.after)
            return Completion("yes", self.tokens, 0)
        finally:
            self.running -= 1


async def _many(model: Limited | Retrying, n: int, decoding: Decoding = Decoding(max_tokens=10)) -> None:
    await asyncio.gather(*(model.complete(ASKED, decoding) for _ in range(n)))


def test_no_more_calls_run_at_once_than_allowed() -> None:
    model = Recorder()
    _, seconds = play(_many(Limited(model, Limits(concurrency=4)), 20))
    assert model.most == 4 and seconds == pytest.approx(5)


def test_no_minute_has_more_requests_than_allowed() -> None:
    model = Recorder()
    play(_many(Limited(model, Limits(100, requests_per_minute=3)), 8))
    assert model.began == pytest.approx([0, 0, 0, 60, 60, 60, 120, 120])


def test_no_minute_has_more_tokens_than_allowed_by_estimate() -> None:
    model = Recorder()
    play(_many(Limited(model, Limits(100, tokens_per_minute=45)), 5))  # 20 a call: 10 asked, 10 answered at most
    assert model.began == pytest.approx([0, 0, 60, 60, 120])


def test_tokens_count_as_they_were_once_that_is_known() -> None:
    model = Recorder(tokens=5)

    async def one_by_one() -> None:
        limited = Limited(model, Limits(1, tokens_per_minute=45))
        for _ in range(6):
            await limited.complete(ASKED, Decoding(max_tokens=10))

    play(one_by_one())
    assert model.began == pytest.approx([0, 1, 2, 3, 4, 5])  # 25 spent + 20 estimated still fit


def test_a_call_above_the_limit_is_made_alone_instead_of_never() -> None:
    model = Recorder()
    play(_many(Limited(model, Limits(100, tokens_per_minute=5)), 2))
    assert model.began == pytest.approx([0, 60])


def test_a_call_that_fails_in_passing_is_tried_again_ever_more_slowly() -> None:
    model = Recorder(failures=4)
    (answer, _) = play(Retrying(model, base=1, cap=5).complete(ASKED))
    assert answer.text == "yes" and len(model.began) == 5
    pauses = [b - a - 1 for a, b in zip(model.began, model.began[1:], strict=False)]
    for pause, longest in zip(pauses, (1, 2, 4, 5), strict=True):
        assert longest / 2 <= pause <= longest


def test_calls_that_failed_together_do_not_come_back_together() -> None:
    model = Recorder(failures=8)
    play(_many(Retrying(model), 8))
    assert len(set(model.began[8:])) == 8


def test_a_server_that_asks_to_wait_is_waited_for() -> None:
    model = Recorder(failures=1, after=17)
    play(Retrying(model).complete(ASKED))
    assert model.began[1] - model.began[0] >= 18


def test_it_is_given_up_with_a_word_on_what_to_do() -> None:
    model = Recorder(failures=99)
    says = r"'recorder' at http://here/v1 failed 3 times .* status 500; .* the same command continues, with --resume"
    with pytest.raises(EndpointError, match=says):
        play(Retrying(model, attempts=3).complete(ASKED))
    assert len(model.began) == 3


def test_what_does_not_pass_is_not_tried_again() -> None:
    def broken(messages: object, seed: int) -> str:
        raise EndpointError("status 401")

    model = ScriptedChat(broken)
    with pytest.raises(EndpointError, match="401"):
        play(Retrying(model).complete(ASKED))
    assert len(model.asked) == 1


def test_shared_limits_bound_both_and_own_limits_bind_one() -> None:
    every, slow = Recorder(), Recorder()

    async def both() -> None:
        shared = Limits(concurrency=3)
        await asyncio.gather(*(_many(Limited(every, Limits(9), shared), 6) for _ in range(2)))
        await _many(Limited(slow, Limits(1), shared), 4)

    _, seconds = play(both())
    assert every.most == 3 and slow.most == 1 and seconds == pytest.approx(4 + 4)


def test_a_minute_of_its_own_begins_when_the_shared_limit_lets_a_call_in() -> None:
    model = Recorder()

    async def both() -> None:
        shared = Limits(9, requests_per_minute=1)
        own = Limited(model, Limits(9, requests_per_minute=1), shared)
        await asyncio.gather(_many(Limited(Recorder(), Limits(9), shared), 1), _many(own, 2))

    play(both())
    assert model.began == pytest.approx([60, 120])

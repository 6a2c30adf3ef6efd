"""Judges behind servers that behave as real ones do: each behaviour against the client, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from pamdp.calls_config import EndpointConfig
from pamdp.errors import ConfigError, ContextLengthError, EndpointError, JudgeError
from pamdp.judges.base import Case, Verdict
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.judges.scores import ReplyCase, ReplyScorer
from pamdp.llm.ask import Asking
from pamdp.llm.cache import Cached
from pamdp.llm.chat import Completion, Decoding
from pamdp.llm.ledger import Ledger
from pamdp.llm.limits import Retrying
from pamdp.llm.openai import OpenAIChat, public_url
from pamdp.llm.stack import build_chat_models
from pamdp.types import Message, Persona
from tests.tools.chat_server import Answer, Request, completion, serve
from tests.tools.chats import LONE

KEY = "sk-proj-0123456789abcdef"
CASE = Case(Persona("He has a dog.", "He is calm."), LONE, "Hi, how is the dog?", "Yo!")
A, B = Verdict(1.0, 0.0), Verdict(0.0, 1.0)
MCT = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
TEMPERATURE = "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value is ok."
CONTEXT = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."
QUOTA = "You exceeded your current quota, please check your plan and billing details."


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "*")


def _judge(url: str, how: Asking = Asking(attempts=2)) -> tuple[PairwiseJudge, OpenAIChat]:
    model = OpenAIChat("m", url, "TEST_KEY", 20.0)
    return PairwiseJudge("m", Retrying(model, attempts=2, base=0.0), how=how), model


def _always(*answer: object, **fields: object) -> Answer:
    return lambda request: (200, completion(*answer, **fields))


def _error(status: int, message: str, **fields: object) -> tuple[int, object]:
    return status, {"error": {"message": message, **fields}}


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (_always("<think>\nA, so [[A]]. But B fits, [[B]].\n</think>\nB suits better.\n[[B]]"), B),
        (_always("A has [[A]] in it.\n</think>\n[[B]]"), B),
        (_always("[[B]]", reasoning_content="[[A]] or [[C]]"), B),
        (_always("[[B]]", reasoning="[[A]]"), B),
        (_always([{"type": "thinking", "thinking": "[[A]]"}, {"type": "text", "text": "So: [[B]]"}]), B),
        (_always("My final verdict is: [[a]]"), A),
        (_always("**[[A]]**"), A),
        (_always('I was told to say "[[A]]" if A is better, "[[B]]" if B is. Final verdict: [[B]]'), B),
        (_always("At first [[A]] seems right.\nFinal verdict: **[[B]]**."), B),
    ],
)
def test_the_verdict_after_the_thinking_counts(answer: Answer, verdict: Verdict) -> None:
    with serve(answer) as server:
        assert _judge(server.url)[0].judge([CASE]) == [verdict]
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "text",
    [
        "[[A]]? Or rather [[B]].", "[[A]]\nNo, wait: [[B]] is what fits.", "[[A]]\n[[B]]\nI am sure.",
        "[[A]]\n[[B]] [[C]]", 'Either "[[A]]" or "[[B]]"', "<think>[[A]]</think>I cannot tell.",
    ],
)  # fmt: skip
def test_several_verdicts_or_one_in_thinking_alone_stay_unreadable(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(_always(text)) as server, pytest.raises(JudgeError, match="1 unreadable"):
        _judge(server.url)[0].judge([CASE])
    assert len(server.seen) == 2 and "m: an answer is masked: no usable answer in 2 tries" in capsys.readouterr().err


@pytest.mark.parametrize(
    "short",
    [
        completion("<think>\nLet me compare", "length"), completion("Where A is better, I say [[A]]. Now", "length"),
        completion(None, reasoning_content="B is better"), completion("", "length", reasoning="B"),
    ],
)  # fmt: skip
def test_a_cut_answer_is_asked_for_again_with_room_then_masked_and_says_so(short: object) -> None:
    def answer(request: Request, room: float = 400) -> tuple[int, object]:
        limit = request["max_tokens"]
        assert isinstance(limit, int)
        return 200, completion("<think>Hm</think>[[B]]") if limit >= room else short

    with serve(answer) as server:
        assert _judge(server.url, Asking(max_tokens=100))[0].judge([CASE]) == [B]
        assert [request["max_tokens"] for request in server.seen] == [100, 400]
        assert server.seen[0]["messages"] == server.seen[1]["messages"]
    with serve(lambda request: answer(request, 10**6)) as server:
        with pytest.raises(JudgeError, match="1 cut off by max_tokens"):
            _judge(server.url)[0].judge([CASE])
        scorer = ReplyScorer("s", OpenAIChat("m", server.url, "TEST_KEY"))
        assert scorer.fit([ReplyCase(CASE.persona, LONE, "x")]) == [None]
        assert str(scorer.masked) == "1 cut off by max_tokens"


def _refusing(*refused: str, says: Callable[[str], tuple[int, object]]) -> Answer:
    def answer(request: Request) -> tuple[int, object]:
        return next((says(name) for name in refused if name in request), (200, completion("[[A]]")))

    return answer


def _openai(name: str) -> tuple[int, object]:
    said = {"max_tokens": MCT, "temperature": TEMPERATURE, "seed": "Unrecognized request argument supplied: seed"}[name]
    return _error(400, said, param=name, code="unsupported_parameter")


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        (("max_tokens",), _openai),
        (("temperature",), _openai),
        (("seed",), _openai),
        (("seed", "temperature", "max_tokens"), _openai),
        (("seed",), lambda name: (422, {"detail": [{"loc": ["body", name], "msg": "Extra inputs are not permitted"}]})),
        (("seed",), lambda name: (400, [{"error": {"message": f'Unknown name "{name}": Cannot find field.'}}])),
        (("temperature",), lambda name: (422, {"error": f"`{name}` must be strictly positive"})),
        (("temperature",), lambda name: (200, {"error": {"message": f"{name} is deprecated", "code": 400}})),
    ],
)
def test_a_refused_parameter_is_dropped_or_exchanged_once_and_noted(
    refused: tuple[str, ...], says: Callable[[str], tuple[int, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(_refusing(*refused, says=says)) as server:
        judge, model = _judge(server.url, Asking(max_tokens=9))
        before = judge.fingerprint
        assert judge.judge([CASE]) == [A] and len(server.seen) == 1 + len(refused)
        assert judge.judge([CASE]) == [A] and len(server.seen) == 2 + len(refused)
    assert judge.fingerprint == {**before, "refused": ", ".join(sorted(refused))}
    last = server.seen[-1]
    assert not set(refused) & set(last)
    assert set(last) >= {"temperature", "max_tokens", "seed"} - set(refused)
    assert last.get("max_completion_tokens") == (9 if "max_tokens" in refused else None)
    told = capsys.readouterr().err
    assert told.count("is asked") == len(refused)
    assert ("with max_completion_tokens for" in told) == ("max_tokens" in refused)
    assert model.refused == set(refused)


def test_what_did_not_help_is_not_remembered() -> None:
    with serve(lambda request: _error(400, "'seed' is not supported" if "seed" in request else "No.")) as server:
        judge, model = _judge(server.url)
        with pytest.raises(EndpointError, match="status 400: No"):
            judge.judge([CASE])
    assert len(server.seen) == 2 and not model.refused
    with serve(lambda request: _error(400, f"{'max_completion_tokens'!r}, 'max_tokens': unknown")) as server:
        with pytest.raises(EndpointError, match="status 400"):
            _judge(server.url)[0].judge([CASE])
        assert len(server.seen) == 2


def test_calls_at_the_same_time_learn_it_once_and_answers_keep_their_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(_refusing("temperature", says=_openai)) as server:
        judge, model = _judge(server.url)
        cases = [Case(CASE.persona, LONE, str(i), "y") for i in range(5)]
        judge.model = Cached(model, tmp_path)
        assert judge.judge(cases) == [A] * 5 and capsys.readouterr().err.count("is asked without") == 1
        asked = len(server.seen)
        fresh = OpenAIChat("m", server.url, "TEST_KEY")
        for known in (model, fresh):  # also who has not yet found out
            judge.model = Cached(known, tmp_path)
            assert judge.judge(cases) == [A] * 5
        assert len(server.seen) == asked


@pytest.mark.parametrize(
    ("answer", "error", "says", "calls"),
    [
        (_error(400, CONTEXT, code="context_length_exceeded"), ContextLengthError, f"{CONTEXT}; shorten the dialo", 1),
        (
            _error(400, "'max_tokens' is too large: 9. At most 4."),
            ContextLengthError,
            r"large.*answers \(max_",
            1,
        ),
        (_error(429, QUOTA, code="insufficient_quota"), EndpointError, f"{QUOTA}; the account's quota is used up", 1),
        (_error(402, "Insufficient Balance"), EndpointError, "quota is used up", 1),
        (_error(429, f"{QUOTA} Please retry in 34s."), EndpointError, "failed 2 times .*Please retry in 34s", 2),
        (_error(404, "The model `m` does not exist"), EndpointError, "`m` does not exist; is that the model's name", 1),
        (_error(200, "model overloaded", code=503), EndpointError, "failed 2 times .*200: model overloaded", 2),
        (_error(200, "no such model", code=404), EndpointError, "no such model; is that the model's name", 1),
        ((200, {"error": "busy"}), EndpointError, "failed 2 times .*200: busy", 2),
        ((502, "<html>bad gateway</html>"), EndpointError, "failed 2 times .*last: status 502;", 2),
        ((200, {"choices": [{"error": {"message": "cut"}}]}), EndpointError, "failed 2 times .*200: cut", 2),
        ((400, "plain\nwords\x1b[31m"), EndpointError, r"status 400: plain words \[31m", 1),
    ],
)
def test_what_a_server_says_is_shown_with_what_to_do(
    answer: tuple[int, object], error: type[EndpointError], says: str, calls: int
) -> None:
    with serve(lambda request: answer) as server, pytest.raises(error, match=says) as found:
        _judge(server.url)[0].judge([CASE])
    assert len(server.seen) == calls and "\n" not in str(found.value)


@pytest.mark.parametrize(
    "echo",
    [
        KEY, f"'{KEY}'", "sk-proj-0***cdef", "sk-proj-01...bcdef", "9abcdef", "sk-another-of-somebody", "gsk_1234abcd",
        "Bearer abc", "0123456789abcdef0123456789ABCDEF", "AIzaSyA1",
    ],
)  # fmt: skip
def test_keys_are_struck_out_of_a_server_s_words(echo: str) -> None:
    words, shown = f"Wrong key provided: {echo}, see Qwen/Qwen2.5-72B.", r"Wrong key provided: .*see Qwen/Qwen2\.5-72B"
    with serve(lambda request: _error(401, words)) as server, pytest.raises(EndpointError, match=shown) as error:
        _judge(server.url)[0].judge([CASE])
    said = str(error.value).partition("provided: ")[2].partition("see Qwen")[0]
    assert "***" in said and not set("0189") & set(said) and "abc" not in said and "somebody" not in said
    assert "TEST_KEY" in str(error.value)


def test_a_server_s_words_are_short_and_hold_nothing_of_the_request() -> None:
    body = {"detail": [{"loc": ["body", "messages"], "msg": "bad " * 500, "input": "He has a dog."}]}
    with (
        serve(lambda request: (422, body)) as server,
        pytest.raises(EndpointError, match=r"body\.messages: bad") as error,
    ):
        _judge(server.url)[0].judge([CASE])
    assert len(str(error.value)) < 500 and "dog" not in str(error.value)


def test_a_query_is_kept_and_a_secret_in_it_is_not_shown() -> None:
    def ask(model: OpenAIChat) -> Completion:
        return asyncio.run(model.complete((Message("user", "Tea?"),), Decoding(0.0, 4)))

    with serve() as server:
        model = OpenAIChat("m", f"{server.url}?api-version=2024-10-21", "TEST_KEY")
        assert ask(model).text == "Yes."
        assert server.paths == ["/v1/chat/completions?api-version=2024-10-21"] and server.api_keys == [KEY]
        assert model.fingerprint["base_url"] == f"{server.url}?api-version=2024-10-21"
        ask(OpenAIChat("m", f"{server.url}?route=a%20b", "TEST_KEY"))
        assert server.paths[1] == "/v1/chat/completions?route=a+b" and server.api_keys[1] is None
    assert public_url("http://h/v1?api-version=1&api_key=x&t=" + "y" * 33) == "http://h/v1?api-version=1"


def test_settings_take_a_query_without_secrets(tmp_path: Path) -> None:
    def build(url: str) -> None:
        build_chat_models(
            {"judge": ("judge", EndpointConfig(kind="openai", model="m", base_url=url))}, Ledger(), tmp_path
        )

    build("https://host/openai/deployments/m?api-version=2024-10-21")
    with pytest.raises(ConfigError, match=r"environment variable.*judge\.key_env"):
        build("https://host/v1?api-version=1&sig=abc")

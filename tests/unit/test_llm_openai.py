"""The OpenAI client against a small server in this process: what is sent, and what each failure becomes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator

import pytest

from pamdp.errors import EndpointError
from pamdp.llm.chat import Completion, Decoding, TransientError
from pamdp.llm.openai import OpenAIChat, public_url
from pamdp.types import Message
from tests.tools.chat_server import ChatServer, completion, serve

KEY = "sk-a-secret"
ASKED = (Message("system", "Be brief."), Message("user", "Tea?"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "*")
    with serve() as found:
        yield found


def _model(server: ChatServer, timeout: float = 20.0) -> OpenAIChat:
    return OpenAIChat("m", server.url, "TEST_KEY", timeout)


def _ask(model: OpenAIChat, decoding: Decoding = Decoding(), seed: int = 0) -> Completion:
    return asyncio.run(model.complete(ASKED, decoding, seed=seed))


def test_everything_that_was_asked_for_is_sent(server: ChatServer) -> None:
    answer = _ask(_model(server), Decoding(0.5, 11), seed=2**40 + 5)
    assert answer == Completion("Yes.", 7, 2)
    (sent,) = server.seen
    assert sent == {
        "model": "m", "temperature": 0.5, "max_tokens": 11, "seed": 5,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tea?"}],
    }  # fmt: skip
    assert server.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize(("status", "match"), [(429, "429"), (500, "500"), (503, "503"), (408, "408")])
def test_what_passes_is_transient_and_says_when(server: ChatServer, status: int, match: str) -> None:
    server.status, server.body, server.headers = status, "{}", {"retry-after": "3"}
    with pytest.raises(TransientError, match=match) as error:
        _ask(_model(server))
    assert error.value.after == 3
    assert len(server.seen) == 1  # the client itself does not retry: limits.py does, under its own clock


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_does_not_pass_is_the_end_and_the_key_is_not_told(server: ChatServer, status: int) -> None:
    server.status, server.body = status, json.dumps({"error": {"message": f"wrong key {KEY}"}})
    with pytest.raises(EndpointError, match=f"refuses model 'm': status {status}") as error:
        _ask(_model(server))
    assert KEY not in str(error.value) and ("TEST_KEY" in str(error.value)) == (status in (401, 403))


def test_a_cut_connection_is_transient(server: ChatServer) -> None:
    server.way = "cut"
    with pytest.raises(TransientError, match="connection failed"):
        _ask(_model(server))


def test_nobody_there_is_transient_too() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TransientError, match="connection failed"):
        _ask(OpenAIChat("m", f"http://127.0.0.1:{port}/v1", "TEST_KEY"))


def test_an_answer_that_does_not_come_is_a_time_out(server: ChatServer) -> None:
    server.way = "wait"
    with pytest.raises(TransientError, match="no answer within"):
        _ask(_model(server, timeout=0.2))


@pytest.mark.parametrize("body", ["", "<html>busy</html>", "{}", "[]", '{"choices": []}', '"text"'])
def test_what_is_no_completion_is_transient(server: ChatServer, body: str) -> None:
    server.body = body
    with pytest.raises(TransientError):
        _ask(_model(server))


def test_refusals_are_marked(server: ChatServer) -> None:
    server.body = json.dumps(completion(None, refusal="No."))
    assert _ask(_model(server)).refused
    server.body = json.dumps(completion("", "content_filter"))
    assert _ask(_model(server)).refused
    server.status, server.body = 400, json.dumps({"error": {"code": "content_filter", "message": "no"}})
    assert _ask(_model(server)).refused


def test_an_answer_without_usage_counts_nothing(server: ChatServer) -> None:
    server.body = json.dumps({k: v for k, v in completion().items() if k != "usage"})
    assert _ask(_model(server)) == Completion("Yes.")


def test_secrets_are_in_no_fingerprint() -> None:
    model = OpenAIChat("m", f"http://user:{KEY}@host:1/v1?key={KEY}", "TEST_KEY")
    assert model.fingerprint == {"kind": "openai", "model": "m", "base_url": "http://host:1/v1"}
    assert public_url("https://host/v1#x") == "https://host/v1"

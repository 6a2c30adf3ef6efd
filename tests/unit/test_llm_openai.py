"""The OpenAI client against a small server in this process: what is sent, and what each failure becomes."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pamdp.errors import EndpointError
from pamdp.llm.chat import Completion, Decoding, TransientError
from pamdp.llm.openai import OpenAIChat, public_url
from pamdp.types import Message

KEY = "sk-a-secret"
ASKED = (Message("system", "Be brief."), Message("user", "Tea?"))


def _answer(content: str | None = " Yes. ", finish: str = "stop", refusal: str | None = None) -> dict[str, object]:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return {
        "id": "1", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }  # fmt: skip


class Server(ThreadingHTTPServer):
    """Answers every request in the way it was last told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.body, self.headers = 200, json.dumps(_answer()), dict[str, str]()
        self.way = "answer"
        self.release = threading.Event()
        self.seen: list[dict[str, object]] = []
        self.keys: list[str | None] = []


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append(json.loads(body))
        self.server.keys.append(self.headers["authorization"])
        if self.server.way == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if self.server.way == "wait":
            self.server.release.wait(20)
        self.send_response(self.server.status)
        for name, value in {"content-type": "application/json", **self.server.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(self.server.body.encode())))
        self.end_headers()
        self.wfile.write(self.server.body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "*")
    found = Server()
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.release.set()
    found.shutdown()
    found.server_close()


def _model(server: Server, timeout: float = 20.0) -> OpenAIChat:
    return OpenAIChat("m", f"http://127.0.0.1:{server.server_port}/v1", "TEST_KEY", timeout)


def _ask(model: OpenAIChat, decoding: Decoding = Decoding(), seed: int = 0) -> Completion:
    return asyncio.run(model.complete(ASKED, decoding, seed=seed))


def test_everything_that_was_asked_for_is_sent(server: Server) -> None:
    answer = _ask(_model(server), Decoding(0.5, 11), seed=2**40 + 5)
    assert answer == Completion("Yes.", 7, 2)
    (sent,) = server.seen
    assert sent == {
        "model": "m", "temperature": 0.5, "max_tokens": 11, "seed": 5,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tea?"}],
    }  # fmt: skip
    assert server.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize(("status", "match"), [(429, "429"), (500, "500"), (503, "503"), (408, "408")])
def test_what_passes_is_transient_and_says_when(server: Server, status: int, match: str) -> None:
    server.status, server.body, server.headers = status, "{}", {"retry-after": "3"}
    with pytest.raises(TransientError, match=match) as error:
        _ask(_model(server))
    assert error.value.after == 3
    assert len(server.seen) == 1  # the client itself does not retry: limits.py does, under its own clock


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_does_not_pass_is_the_end_and_the_key_is_not_told(server: Server, status: int) -> None:
    server.status, server.body = status, json.dumps({"error": {"message": f"wrong key {KEY}"}})
    with pytest.raises(EndpointError, match=f"refuses model 'm': status {status}") as error:
        _ask(_model(server))
    assert KEY not in str(error.value) and ("TEST_KEY" in str(error.value)) == (status in (401, 403))


def test_a_cut_connection_is_transient(server: Server) -> None:
    server.way = "cut"
    with pytest.raises(TransientError, match="connection failed"):
        _ask(_model(server))


def test_nobody_there_is_transient_too() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TransientError, match="connection failed"):
        _ask(OpenAIChat("m", f"http://127.0.0.1:{port}/v1", "TEST_KEY"))


def test_an_answer_that_does_not_come_is_a_time_out(server: Server) -> None:
    server.way = "wait"
    with pytest.raises(TransientError, match="no answer within"):
        _ask(_model(server, timeout=0.2))


@pytest.mark.parametrize("body", ["", "<html>busy</html>", "{}", "[]", '{"choices": []}', '"text"'])
def test_what_is_no_completion_is_transient(server: Server, body: str) -> None:
    server.body = body
    with pytest.raises(TransientError):
        _ask(_model(server))


def test_refusals_are_marked(server: Server) -> None:
    server.body = json.dumps(_answer(None, refusal="No."))
    assert _ask(_model(server)).refused
    server.body = json.dumps(_answer("", "content_filter"))
    assert _ask(_model(server)).refused
    server.status, server.body = 400, json.dumps({"error": {"code": "content_filter", "message": "no"}})
    assert _ask(_model(server)).refused


def test_an_answer_without_usage_counts_nothing(server: Server) -> None:
    server.body = json.dumps({k: v for k, v in _answer().items() if k != "usage"})
    assert _ask(_model(server)) == Completion("Yes.")


def test_secrets_are_in_no_fingerprint() -> None:
    model = OpenAIChat("m", f"http://user:{KEY}@host:1/v1?key={KEY}", "TEST_KEY")
    assert model.fingerprint == {"kind": "openai", "model": "m", "base_url": "http://host:1/v1"}
    assert public_url("https://host/v1#x") == "https://host/v1"

"""A small server of chat completions in this process, which answers as a test tells it to.

Owns the connection. Knows nothing of who asks.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Request = dict[str, object]
Answer = Callable[[Request], tuple[int, object]]
"""From a request to the status and body of its answer; a body of another type than text is sent as JSON."""


def completion(content: object = " Yes. ", finish: str = "stop", **fields: object) -> dict[str, object]:
    """The body of an answer; FIELDS go into its message."""
    message = {"role": "assistant", "content": content, **fields}
    return {
        "id": "1", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }  # fmt: skip


class ChatServer(ThreadingHTTPServer):
    """Answers every request by a function, if it is set, or in the way it was last told to."""

    daemon_threads = True

    def __init__(self, answer: Answer | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.status, self.body, self.headers = 200, json.dumps(completion()), dict[str, str]()
        self.way = "answer"
        self.release = threading.Event()
        self.seen: list[Request] = []
        self.keys: list[str | None] = []
        self.paths: list[str] = []
        self.api_keys: list[str | None] = []

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server.seen.append(request)
        server.keys.append(self.headers["authorization"])
        server.api_keys.append(self.headers["api-key"])
        server.paths.append(self.path)
        if server.way == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if server.way == "wait":
            server.release.wait(20)
        status, body = (server.status, server.body) if server.answer is None else server.answer(request)
        sent = (body if isinstance(body, str) else json.dumps(body)).encode()
        kind = "text/html" if sent.startswith(b"<") and server.answer else "application/json"
        self.send_response(status)
        for name, value in {"content-type": kind, **server.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(answer: Answer | None = None) -> Iterator[ChatServer]:
    """A server that runs meanwhile."""
    server = ChatServer(answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()

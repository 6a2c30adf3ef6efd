"""How fast verdicts come from a server that takes its time: `python -m benchmarks.calls`.

A server of its own process on loopback answers every call after a pause; the judge asks it as in any evaluation, with
the official client, retries, limits and an empty cache. What is above the ideal, calls / concurrency x pause, is ours.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import tempfile
import time
from multiprocessing.queues import Queue
from pathlib import Path

from benchmarks.measure import machine
from pamdp.calls_config import JudgeConfig
from pamdp.judges.base import Case
from pamdp.judges.graders import Graders
from pamdp.models.backbone import Backbone
from pamdp.types import Message, Persona

ANSWER = json.dumps({
    "id": "a", "object": "chat.completion", "created": 0, "model": "slow",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "[[A]]"}}],
}).encode()  # fmt: skip
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER)


def serve(pause: float, port: Queue[int]) -> None:
    """Answer every request after PAUSE seconds, until the process is ended."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            await asyncio.sleep(pause)
            writer.write(HEAD + ANSWER)
            await writer.drain()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def no_backbone() -> Backbone:
    """Verdicts from a server need no model here."""
    raise AssertionError("an embedded judge was asked")


def main() -> None:
    """Parse the command line, measure, print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calls")
    parser.add_argument("--judgements", type=int, default=320, help="default 320")
    parser.add_argument("--concurrency", type=int, default=16, help="default 16")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds of each call, default 0.2")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    port: Queue[int] = context.Queue()
    server = context.Process(target=serve, args=(options.pause, port), daemon=True)
    server.start()
    config = JudgeConfig(base_url=f"http://127.0.0.1:{port.get()}/v1", concurrency=options.concurrency)
    cases = [
        Case(Persona(f"Person {i}."), (Message("user", "Hello"),), f"reply {i}", "another")
        for i in range(options.judgements)
    ]
    with tempfile.TemporaryDirectory() as folder:
        graders = Graders(config, no_backbone, cache=Path(folder))
        judge = graders.judge("slow")
        graders.check("slow")  # the first import and connection are not what is measured
        start = time.perf_counter()
        verdicts = judge.judge(cases)
        seconds = time.perf_counter() - start
    server.terminate()
    ideal = options.judgements / options.concurrency * options.pause
    print(
        json.dumps(
            {
                "benchmark": "calls", "machine": machine(), "options": vars(options), "verdicts": len(verdicts),
                "seconds": round(seconds, 2), "ideal": ideal, "of_ideal": round(seconds / ideal, 3), "target": 1.25,
            },
            indent=2,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()

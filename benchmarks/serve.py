"""How many users a server answers at once, and how soon: `python -m benchmarks.serve`.

Each server is a process of its own on loopback and is asked through the client of OpenAI, streamed and greedily:
`pamdp serve` for its trained policy and for the plain model, and `transformers serve` for the same plain model, with
continuous batching and without. All run after one another, for every number of users, in one run. Replies are as long
as each server makes them; pieces of text per second make up for that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import psutil
from openai import APIError, AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from benchmarks.arena import Options
from benchmarks.inputs import dialogues
from benchmarks.measure import machine
from pamdp.models.embedded import embedded_path
from pamdp.prompts.render import load
from pamdp.types import Dialogue

NEEDED = ("accelerate", "fastapi", "openai", "rich", "starlette", "uvicorn")
"""What `transformers serve` needs beside transformers."""
START = 300.0
"""Seconds that a server has to come up."""


@dataclass(slots=True)
class Tally:
    """What came of all replies: seconds to the first text and to the last, and tokens."""

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tokens: int = 0


async def talk(client: AsyncOpenAI, model: str, dialogue: Dialogue, tokens: int, tally: Tally) -> None:
    """Play the user's side of a dialogue; what the server replies is part of it."""
    history: list[ChatCompletionMessageParam] = []
    if model not in ("pamdp", "vanilla"):  # pamdp says it by itself
        history.append({"role": "system", "content": load("assistant")})
    for turn in dialogue.turns:
        history.append({"role": "user", "content": turn.user})
        start, first, text = time.perf_counter(), 0.0, ""
        stream = await client.chat.completions.create(
            model=model, messages=history, max_tokens=tokens, temperature=0.0, stream=True
        )
        async for chunk in stream:
            if chunk.choices and (piece := chunk.choices[0].delta.content):
                first = first or time.perf_counter() - start
                text += piece
                tally.tokens += 1  # both servers send a piece for a token
        tally.whole.append(time.perf_counter() - start)
        tally.first.append(first or tally.whole[-1])
        history.append({"role": "assistant", "content": text.strip() or "..."})


async def measure(
    url: str, process: psutil.Process, model: str, chosen: Sequence[Dialogue], users: int, tokens: int
) -> dict[str, float]:
    """All dialogues, so many at once, asked of the server that is PROCESS."""
    tally, places = Tally(), asyncio.Semaphore(users)
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=3600) as client:

        async def one(dialogue: Dialogue) -> None:
            async with places:
                await talk(client, model, dialogue, tokens, tally)

        await talk(client, model, chosen[0], 2, Tally())  # what a first request costs is not what is measured
        start, used = time.perf_counter(), sum(process.cpu_times()[:2])
        await asyncio.gather(*map(one, chosen))
        seconds, used = time.perf_counter() - start, sum(process.cpu_times()[:2]) - used
    found = {"replies_per_s": len(tally.whole) / seconds, "pieces_per_s": tally.tokens / seconds}
    # Of processor time, which other load on the machine disturbs less.
    found |= {"replies_per_cpu_s": len(tally.whole) / used, "pieces_per_cpu_s": tally.tokens / used}
    for name, times in (("first", tally.first), ("reply", tally.whole)):
        cuts = statistics.quantiles(times, n=20, method="inclusive")
        found |= {f"{name}_p50_s": statistics.median(times), f"{name}_p95_s": cuts[-1]}
    return {key: round(value, 4) for key, value in found.items()}


@contextmanager
def server(command: Sequence[str], port: int, threads: int) -> Iterator[tuple[str, psutil.Process]]:
    """Its address and its process, as long as it runs."""
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        try:
            end = time.monotonic() + START
            while time.monotonic() < end and running.poll() is None:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.2)
            else:
                log.seek(0)
                raise RuntimeError(f"{command[0]} did not come up: {log.read().decode(errors='replace')[-500:]}")
            yield f"http://127.0.0.1:{port}/v1", psutil.Process(running.pid)
        finally:
            running.terminate()
            running.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def contenders() -> dict[str, tuple[list[str], str]]:
    """Name -> how the server is started (its port comes last), and the model that is asked for."""
    ours = [sys.executable, "-m", "pamdp", "serve", "shipped", "--port"]
    found = {"pamdp": (ours, "pamdp"), "vanilla": (ours, "vanilla")}
    if not [name for name in NEEDED if find_spec(name) is None]:
        model = str(embedded_path())
        peer = [str(Path(sys.executable).with_name("transformers")), "serve", model, "--device", "cpu"]
        found["transformers"] = [*peer, "--host", "127.0.0.1", "--port"], model
        found["transformers-cb"] = [*peer, "--continuous-batching", "--host", "127.0.0.1", "--port"], model
    return found


def main() -> None:
    """Parse the command line, measure, print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve")
    parser.add_argument("--users", default="1,8,32", help="users at once, default 1,8,32")
    parser.add_argument("--dialogues", type=int, default=24, help="default 24, and never fewer than users")
    parser.add_argument("--turns", type=int, default=2, help="default 2")
    parser.add_argument("--tokens", type=int, default=48, help="longest reply, default 48")
    parser.add_argument("--threads", type=int, default=2, help="of each server, default 2")
    parser.add_argument("--only", help="contenders, comma-separated")
    options = parser.parse_args()
    every = contenders()
    chosen = every if options.only is None else {name: every[name] for name in options.only.split(",")}
    missing = [name for name in NEEDED if find_spec(name) is None]
    found: dict[str, dict[str, object]] = {name: {} for name in chosen}
    for users in map(int, options.users.split(",")):
        some = dialogues(Options(users=max(options.dialogues, users), turns=options.turns))
        for name, (command, model) in chosen.items():
            port = free_port()
            try:
                with server([*command, str(port)], port, options.threads) as (url, process):
                    found[name][str(users)] = asyncio.run(measure(url, process, model, some, users, options.tokens))
            except (APIError, RuntimeError) as error:
                found[name][str(users)] = f"failed: {' '.join(str(error).split())[-300:]}"
    result = {
        "benchmark": "serve", "machine": machine(), "options": vars(options), "contenders": found,
        "missing": f"no `transformers serve` here: it needs {', '.join(missing)}" if missing else None,
    }  # fmt: skip
    print(json.dumps({**result, "ratios": ratios(found)}, indent=2))


def ratios(found: dict[str, dict[str, object]]) -> dict[str, dict[str, float]]:
    """Replies per second of the plain model behind `pamdp serve`, divided by each peer's, for every number of users."""
    out: dict[str, dict[str, float]] = {}
    for name in found:
        for users, mine in found.get("vanilla", {}).items():
            theirs = found[name].get(users)
            if name.startswith("transformers") and isinstance(mine, dict) and isinstance(theirs, dict):
                out.setdefault(name, {})[users] = round(mine["replies_per_s"] / theirs["replies_per_s"], 3)
    return out


if __name__ == "__main__":
    main()

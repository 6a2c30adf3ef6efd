"""`pamdp serve` as a process: signals, its end and its beginning, another policy under load, and what it says."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from pamdp.config import ModelConfig
from pamdp.models.backbone import Backbone
from pamdp.models.embedded import load_backbone
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy
from pamdp.serve import server
from pamdp.serve.aside import Write, alone
from pamdp.serve.check import Measure, Report
from pamdp.serve.config import ServeConfig
from pamdp.serve.keys import Keys
from pamdp.serve.models import load_models, version
from tests.tools.serving import as_json, said, save_run, serving

HELLO = as_json(said("hello there"))
WEB = httpx.Client(timeout=300)
ENDLESS = {"model": "pamdp", "messages": HELLO, "max_tokens": 300, "stream": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_run(tmp_path_factory.mktemp("served") / "run")


class Process:
    """A server of its own process, and where it listens."""

    def __init__(self, log: Path, *options: str) -> None:
        self.log = log
        with log.open("w") as errors:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "pamdp", "serve", *options],
                stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )  # fmt: skip
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line.startswith("serving pamdp, clone, vanilla on "), log.read_text()
        self.url = line.split()[-1]

    def client(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=300)


@contextmanager
def process(log: Path, *options: str) -> Iterator[Process]:
    started = Process(log, *options)
    try:
        yield started
    finally:
        started.popen.kill()
        started.popen.wait()


def test_told_to_stop_it_ends_what_it_has_begun_and_refuses_what_is_new(run: Path, tmp_path: Path) -> None:
    with process(tmp_path / "log", str(run), "--port", "0", "max_tokens=800", "timeout=600", "grace=600") as server:
        client = server.client()
        stream = iter(client.chat.completions.create(**{**ENDLESS, "max_tokens": 800}))
        next(stream)
        server.popen.send_signal(signal.SIGTERM)
        health = server.url.removesuffix("/v1") + "/healthz"
        while (answer := WEB.get(health)).status_code == 200:
            time.sleep(0.01)
        assert answer.json() == {"ready": False, "status": "stopping", "unrecorded": 0}
        with pytest.raises(openai.InternalServerError) as refused:
            client.chat.completions.create(model="pamdp", messages=HELLO)
        assert refused.value.status_code == 503 and "retry-after" in refused.value.response.headers
        last = list(stream)[-1]
        assert last.choices[0].finish_reason == "length"
        assert server.popen.wait(600) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_models_are_loaded_by_the_thread_that_writes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that compute are two pools of OpenMP, which sleep between operations: half the tokens a second."""
    loaded_by: list[str] = []

    def load(config: ModelConfig) -> Backbone:
        loaded_by.append(threading.current_thread().name)
        return load_backbone(config)

    monkeypatch.setattr(server.Server, "run", lambda self, sockets: None)
    server.serve(str(run), ServeConfig(), Keys(), port=0, load=load)
    assert loaded_by and {*loaded_by} == {"pamdp-engine"}


def test_killed_and_started_again_it_says_the_same(run: Path, tmp_path: Path) -> None:
    replies = []
    for i in range(2):
        with process(tmp_path / f"log{i}", str(run), "--port", "0") as server:
            answer = server.client().chat.completions.create(model="pamdp", messages=HELLO, temperature=0)
            replies.append((answer.choices[0].message.content, answer.system_fingerprint))
            next(iter(server.client().chat.completions.create(**ENDLESS)))
            server.popen.kill()
            server.popen.wait()
    assert replies[0] == replies[1]
    model = load_models(str(run), load_backbone)["pamdp"]
    assert replies[0][0] == model.policy.reply("hello there", max_tokens=16)
    assert replies[0][1] == model.version[:16] == version(run / "trained")[:16]


def test_keys_from_a_file_and_a_log_without_secrets(run: Path, tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "pamdp", "serve-key", "alice"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    secret = next(line for line in made if line.startswith("pamdp-"))
    file = tmp_path / "keys.toml"
    file.write_text("\n".join(made[made.index('[keys."alice"]') :]) + "\n")
    assert secret not in file.read_text()
    with process(tmp_path / "log", str(run), "--port", "0", "--keys", str(file)) as server:
        assert server.client(secret).chat.completions.create(model="clone", messages=HELLO).choices
        with pytest.raises(openai.AuthenticationError):
            server.client(secret[:-1]).chat.completions.create(model="clone", messages=HELLO)
        server.popen.terminate()
        assert server.popen.wait(600) == 0
    log = (tmp_path / "log").read_text()
    assert "POST /v1/chat/completions 200" in log and "POST /v1/chat/completions 401" in log
    assert secret[:-1] not in log and "hello there" not in log


def test_another_policy_takes_over_under_load(run: Path, tmp_path: Path) -> None:
    other = save_run(run.parent / "other", seed=7)
    reports = [Report((Measure("flattery a reply", 0, new, new, 0.5),), ()) for new in (1.0, 0.5)]
    seen: list[tuple[Policy, Policy]] = []

    def check(old: Policy, new: Policy, write: Write) -> Report:
        seen.append((old, new))
        return reports.pop(0)

    async def load(url: str) -> tuple[list[str], list[httpx.Response], list[str]]:
        async def text(client: AsyncOpenAI) -> str:
            stream = await client.chat.completions.create(**{**ENDLESS, "max_tokens": 200})
            chunks = [chunk async for chunk in stream]
            prints = {chunk.system_fingerprint for chunk in chunks}
            assert len(prints) == 1
            return prints.pop() + "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=300) as client, httpx.AsyncClient() as web:
            before = [asyncio.create_task(text(client)) for _ in range(4)]
            while not running.this.engine.running:
                await asyncio.sleep(0.01)
            reload = f"{url}/v1/admin/reload"
            answers = [await web.post(reload, json={"path": str(other)}, timeout=300) for _ in range(2)]
            after = [asyncio.create_task(text(client)) for _ in range(4)]
            return await asyncio.gather(*before), answers, await asyncio.gather(*after)

    models = load_models(str(run), load_backbone)
    old, backbone = models["pamdp"].version, models["pamdp"].policy.backbone
    with serving(models, Keys(), check=check) as running:
        del models
        before, answers, after = asyncio.run(load(running.url))
        assert [answer.status_code for answer in answers] == [409, 200]
        measure = {"name": "flattery a reply", "old": 0, "new": 1, "worse": 1, "bound": 0.5, "ok": False}
        report = {"ok": False, "measures": [measure], "replies": []}
        assert answers[0].json() == {"reloaded": False, "report": report} and answers[1].json()["report"]["ok"]
        new = answers[1].json()["versions"]["pamdp"]
        assert new == version(other / "trained") != old
        assert {text[:16] for text in before} == {old[:16]} and {text[:16] for text in after} == {new[:16]}
        assert len(set(before)) == len(set(after)) == 1 and before[0][16:] != after[0][16:]
        assert seen[0][0] is seen[1][0] and seen[1][1] is running.this.models["pamdp"].policy
        assert running.this.models["vanilla"].policy.backbone is backbone, "the same weights are not loaded twice"
        wrong = WEB.post(f"{running.url}/v1/admin/reload", json={"path": str(tmp_path)})
        assert wrong.status_code == 400 and "no policy in" in wrong.json()["error"]["message"]
        forced = WEB.post(f"{running.url}/v1/admin/reload", json={"path": str(run), "force": True})
        assert forced.status_code == 200 and forced.json()["versions"]["pamdp"] == old


def test_replies_go_on_while_another_policy_is_checked(run: Path) -> None:
    checked = list[tuple[str, str]]()

    def check(old: Policy, new: Policy, write: Write) -> Report:
        # Were the engine's thread held meanwhile, neither of these would come to an end.
        answer = running.client().chat.completions.create(model="pamdp", messages=HELLO)
        histories = [said(f"question {i}") for i in range(5)]
        for policy in (old, new):
            found = write(policy, histories, Sampling(8))
            by_itself = running.this.engine.call(partial(alone, policy, histories, Sampling(8))).result()
            checked.extend(zip(found, by_itself, strict=True))
        assert answer.choices
        return Report((), ())

    other = save_run(run.parent / "third", seed=9)
    with serving(load_models(str(run), load_backbone), Keys(), "places=4", check=check) as running:
        swapped = WEB.post(f"{running.url}/v1/admin/reload", json={"path": str(other)})
        assert swapped.status_code == 200 and swapped.json()["reloaded"], swapped.text
        assert len(checked) == 10 and all(a == b for a, b in checked) and len({a for a, _ in checked}) > 1
        running.this.engine.call(lambda: None).result()
        assert {space[0] for space, _ in running.this.engine.cache._kept} == {"local"}, "what was checked is not kept"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "without keys a server is for this machine alone"),
        (["--keys", "keys.txt"], "ends in .toml"),
        (["--keys", "none.toml"], "none.toml"),
        (["plaecs=3"], "did you mean places"),
        (["nowhere"], "no policy in"),
    ],
)
def test_what_a_server_refuses_is_one_line(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pamdp.cli import main

    monkeypatch.setattr(sys, "argv", ["pamdp", "serve", *options, "--port", "0"])
    with pytest.raises(SystemExit) as ended:
        main()
    [line] = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1 and said in line


def test_without_the_extra_one_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pamdp.cli import main

    for name in [name for name in sys.modules if name.startswith(("pamdp.serve.server", "pamdp.serve.app"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.setattr(sys, "argv", ["pamdp", "serve"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == "pamdp: serving needs uvicorn, which is missing: pip install 'pamdp[serve]'\n"

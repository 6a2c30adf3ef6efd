"""Rewards from a judge on a server: the whole way from cloning a (tiny) Qwen2.5-7B, and what comes of every fault."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import pamdp
from pamdp import cli
from pamdp.calls_config import JudgeConfig
from pamdp.data import load_dialogues, write_dialogues
from pamdp.errors import ConfigError, EndpointError, ModelError
from pamdp.fingerprint import REFUSED
from pamdp.runs import Run
from pamdp.train.policy_metadata import read_metadata
from tests.tools.chat_server import ChatServer, Request, completion, serve
from tests.tools.methods import few
from tests.tools.tiny import make_tiny_backbone

ROOT = Path(__file__).resolve().parents[2]
SECRET = "sk-a-secret-that-nobody-may-see-0123"
PRESETS = ["--config", "qwen2.5-7b", "--config", "paper"]
SMALL = ["rl.rounds=2", "rl.samples=2", "rl.max_reply=4", "rl.epochs=1", "rl.form_states=2", "rl.dialogues=2"]
STATES, ROUNDS, SAMPLES = 6, 2, 2


def vowels(request: Request) -> tuple[int, object]:
    """The verdict of one who likes vowels; it depends on nothing but the question."""
    asked = str(request["messages"][-1]["content"])  # type: ignore[index]
    a, b = (sum(c in "aeiou" for c in text) for text in re.findall(r"<<<\n(.*?)\n>>>", asked, re.S)[-2:] or ("", ""))
    return 200, completion(f"[[{'A' if a > b else 'B' if b > a else 'C'}]]")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, dialogues of three users who teach and one who tests, and a run cloned from them."""
    path = tmp_path_factory.mktemp("served")
    backbone = make_tiny_backbone()
    backbone.model.save_pretrained(path / "model")
    backbone.tokenizer.save_pretrained(path / "model")
    write_dialogues(path / "d.jsonl", few("test", 4))
    data = [f"data.path={path / 'd.jsonl'}", "data.test_share=0.25"]
    _pamdp(
        "train", "bc", "--run", path / "clone", *PRESETS, f"model.name={path / 'model'}", "clone.epochs=1",
        "rl.max_reply=4", *data,
    )  # fmt: skip
    return path


@pytest.fixture(autouse=True)
def alone(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAMDP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serve(vowels) as found:
        yield found


def _pamdp(*words: str | Path) -> dict[str, object]:
    shown = CliRunner().invoke(cli.app, [*map(str, words), "--json"], catch_exceptions=False)
    return dict(json.loads(shown.stdout.strip().splitlines()[-1]))


def _offline(made: Path, run: Path, url: str, *more: str) -> list[str]:
    judge = ["judge.kind=openai", f"judge.base_url={url}", "judge.model=big", "judge.tries=2"]
    start = ["train", "offline", "--run", str(run), "--from", str(made / "clone"), *PRESETS]
    return [*start, f"model.name={made / 'model'}", *judge, *SMALL, *more]


def _learned(run: Path) -> tuple[bytes, bytes, list[dict[str, object]]]:
    """Weights, who said what for which reward, and the log without what calls cost."""
    rows = [{k: v for k, v in x.items() if not k.endswith(("_calls", "_tokens"))} for x in Run(run).metrics()]
    return (run / "trained" / "planner.safetensors").read_bytes(), (run / "traces.jsonl").read_bytes(), rows


def test_a_policy_of_the_presets_is_rewarded_by_a_server(made: Path, tmp_path: Path, server: ChatServer) -> None:
    command = _offline(made, tmp_path / "rl", server.url)
    asked = [word for word in command[6:] if not word.startswith("rl.form")]
    estimated = _pamdp("estimate", "--of", "offline", "--from", made / "clone", *asked)
    (row,) = estimated["roles"]  # type: ignore[misc]
    assert (row["role"], row["model"], row["calls"]) == ("judge", "big", STATES * ROUNDS * SAMPLES)
    found = _pamdp(*command)
    counted = found["costs"]["judge"]  # type: ignore[index]
    assert 0 < counted["calls"] == len(server.seen) <= row["calls"] and counted["failed"] == 0
    assert {request["model"] for request in server.seen} == {"big"} and set(server.keys) == {f"Bearer {SECRET}"}
    run = Run(tmp_path / "rl")
    assert found["judge_failures"] == 0 and len(run.traces()) == STATES * ROUNDS * SAMPLES
    assert {trace["reward"] for trace in run.traces()} <= {1.0, -1.0, 0.5}
    (judge,) = run.fingerprint()["judges"]  # type: ignore[misc]
    assert (judge["role"], judge["name"], judge["base_url"]) == ("reward", "big", server.url)
    assert not list((tmp_path / "rl" / "journal").iterdir())  # whole rounds are in checkpoints
    stored = [f for folder in (tmp_path / "rl", tmp_path / "cache") for f in folder.rglob("*") if f.is_file()]
    assert stored and not any(SECRET.encode() in file.read_bytes() for file in stored)
    settings = read_metadata(tmp_path / "rl" / "trained").config
    assert (settings.rl.kl, settings.clone.epochs, settings.judge.model) == (0.05, 1, "big")
    # The same questions again are answered from the cache: nobody is asked.
    before = len(server.seen)
    _pamdp(*_offline(made, tmp_path / "again", server.url))
    assert len(server.seen) == before and _learned(tmp_path / "again") == _learned(tmp_path / "rl")


def test_a_server_that_goes_down_costs_nothing_that_was_answered(
    made: Path, tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pamdp(*_offline(made, tmp_path / "whole", server.url))
    whole = [_words(request) for request in server.seen]
    server.seen.clear()
    monkeypatch.setenv("PAMDP_CACHE", str(tmp_path / "other"))
    answered = set[str]()

    def dying(request: Request) -> tuple[int, object]:
        if len(answered) >= len(whole) * 2 // 3:
            return 503, {"error": {"message": "down"}}
        answered.add(_words(request))
        return vowels(request)

    server.answer = dying
    command = _offline(made, tmp_path / "down", server.url, "judge.concurrency=2")
    with pytest.raises(EndpointError, match=r"failed 2 times in a row, last: status 503: down; .* --resume"):
        _pamdp(*command)
    (journal,) = (tmp_path / "down" / "journal").iterdir()
    assert journal.stat().st_size and json.loads((tmp_path / "down" / "costs.json").read_text())["judge"]["failed"] >= 2
    server.answer = vowels
    server.seen.clear()
    _pamdp(*command, "--resume")
    assert not answered & {_words(request) for request in server.seen}
    assert answered | {_words(request) for request in server.seen} == set(whole)
    assert _learned(tmp_path / "down") == _learned(tmp_path / "whole")


def test_a_killed_run_goes_on_where_it_was(
    made: Path, tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pamdp(*_offline(made, tmp_path / "whole", server.url))
    most, whole = len(server.seen), {_words(request) for request in server.seen}
    monkeypatch.setenv("PAMDP_CACHE", str(tmp_path / "other"))
    server.seen.clear()
    answered = set[str]()

    def killing(request: Request) -> tuple[int, object]:
        if len(answered) >= most * 2 // 3:
            process.send_signal(signal.SIGKILL)
            process.wait()
        answered.add(_words(request))
        return vowels(request)

    server.answer = killing
    command = _offline(made, tmp_path / "killed", server.url, "judge.concurrency=1")
    process = subprocess.Popen([sys.executable, "-m", "pamdp.cli", *command], cwd=ROOT, stderr=subprocess.DEVNULL)
    assert process.wait(300) == -signal.SIGKILL
    server.answer = vowels
    server.seen.clear()
    _pamdp(*command, "--resume")
    again = {_words(request) for request in server.seen}
    assert again <= whole and len(again & answered) <= 1  # that of the call that the kill came into
    assert _learned(tmp_path / "killed") == _learned(tmp_path / "whole")


def test_too_many_requests_are_waited_for(made: Path, tmp_path: Path, server: ChatServer) -> None:
    refused = list[str]()

    def busy(request: Request) -> tuple[int, object]:
        if (words := _words(request)) not in refused:
            refused.append(words)
            return 429, {"error": {"message": "slow down, try again"}}
        return vowels(request)

    _pamdp(*_offline(made, tmp_path / "whole", server.url))
    server.answer = busy
    server.headers = {"retry-after": "0"}
    more = ["rl.rounds=1", "judge.seed=1", f"cache={tmp_path / 'fresh'}"]
    found = _pamdp(*_offline(made, tmp_path / "busy", server.url, *more))
    costs = found["costs"]["judge"]  # type: ignore[index]
    assert costs["failed"] == len(refused) > 0 and found["judge_failures"] == 0
    assert Run(tmp_path / "busy").traces() == Run(tmp_path / "whole").traces()[: STATES * SAMPLES]


def test_a_verdict_that_cannot_be_read_is_masked_and_counted(made: Path, tmp_path: Path, server: ChatServer) -> None:
    questions = list[str]()

    def garbage(request: Request) -> tuple[int, object]:
        words = _words(request).split("\n\n")[0] + re.findall(r"<<<\n(.*?)\n>>>", _words(request), re.S)[0]
        if words not in questions:
            questions.append(words)
        return (200, completion("Both are nice.")) if questions.index(words) % 2 else vowels(request)

    server.answer = garbage
    found = _pamdp(*_offline(made, tmp_path / "rl", server.url, "rl.rounds=1"))
    rewards = [trace["reward"] for trace in Run(tmp_path / "rl").traces()]
    assert 0 < found["judge_failures"] == rewards.count(None) < len(rewards)
    assert found["masked"] == pytest.approx(rewards.count(None) / len(rewards))


def test_what_a_server_refuses_is_noted(made: Path, tmp_path: Path, server: ChatServer) -> None:
    def strict(request: Request) -> tuple[int, object]:
        if "seed" in request:
            return 400, {"error": {"message": "Unsupported parameter: seed", "param": "seed"}}
        return vowels(request)

    server.answer = strict
    _pamdp(*_offline(made, tmp_path / "rl", server.url, "rl.rounds=1"))
    assert Run(tmp_path / "rl").fingerprint()["judges"][0][REFUSED] == "seed"  # type: ignore[index]
    _pamdp("eval", tmp_path / "rl", "--judges", "big,likelihood-ratio", f"judge.base_url={server.url}")
    graders = json.loads((tmp_path / "rl" / "evaluation.json").read_text())["judges"]
    assert [(g["name"], g.get(REFUSED)) for g in graders] == [("big", "seed"), ("likelihood-ratio", None)]
    measured = _pamdp(
        "judge", "eval", "--pairs", "sample-fresh", "judge.kind=openai", f"judge.base_url={server.url}",
        "judge.model=big",
    )  # fmt: skip
    assert measured["fingerprint"][REFUSED] == "seed" and measured["costs"]["judge"]["calls"] > 0  # type: ignore[index]


def test_no_judge_is_taken_unasked_where_the_backbone_has_none(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_none(*_: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("pamdp.models.embedded.load_backbone", load_none)
    for verb in ("offline", "online"):
        with pytest.raises(ModelError, match=r"no other is taken unasked; choose: judge\.kind=openai") as error:
            _pamdp("train", verb, "--run", tmp_path / "rl", "--from", made / "clone")
        said = str(error.value)
        assert (
            "\n" not in said and "judge.kind=local" in said and "likelihood-ratio" in said and "judge.weights" in said
        )
        assert said.count("unknown") >= 3 and not (tmp_path / "rl").exists()


def test_settings_that_contradict_the_clone_are_one_line(made: Path, tmp_path: Path) -> None:
    command = ["train", "offline", "--run", str(tmp_path / "rl"), "--from", str(made / "clone"), *PRESETS]
    name = re.escape(str(made / "model"))
    with pytest.raises(ConfigError, match=rf"model\.name='Qwen/Qwen2.5-7B-Instruct' is asked.* model\.name={name}"):
        _pamdp(*command)
    # How cloning went is over: the preset's three epochs are only noted (the runs of the other tests show that).
    with pytest.raises(ConfigError, match=r"clone\.steer=0\.5 is asked for"):
        _pamdp(*command, f"model.name={made / 'model'}", "clone.steer=0.5")


def test_python_takes_a_name_a_setting_or_a_judge(made: Path, tmp_path: Path, server: ChatServer) -> None:
    policy = pamdp.load(made / "clone")
    dialogues = load_dialogues(str(made / "d.jsonl")).dialogues[:2]
    small: dict[str, object] = {
        "rl.samples": 1, "rl.max_reply": 4, "rl.epochs": 1, "rl.form_states": 2, "judge.tries": 2,
    }  # fmt: skip
    served = JudgeConfig(kind="openai", base_url=server.url, model="big", tries=2)
    by_name = {**small, "judge.base_url": server.url}
    by_setting = {**by_name, "judge.kind": "openai", "judge.model": "big"}
    asked: dict[str, tuple[object, dict[str, object]]] = {
        "name": ("big", by_name), "config": (served, small), "settings": (None, by_setting),
    }  # fmt: skip
    for name, (judge, settings) in asked.items():
        pamdp.reinforce(policy, dialogues, judge=judge, run=tmp_path / name, settings=settings)  # type: ignore[arg-type]
        assert Run(tmp_path / name).fingerprint()["judges"][0]["name"] == "big"  # type: ignore[index]
        assert (tmp_path / name / "costs.json").is_file()
        assert _learned(tmp_path / name) == _learned(tmp_path / "name")
    pamdp.reinforce(policy, dialogues, judge="likelihood-ratio", run=tmp_path / "ratio", settings=small)
    with pytest.raises(ModelError, match=r"choose: judge\.kind=openai"):
        pamdp.reinforce(policy, dialogues, settings=small)
    found = pamdp.evaluate(
        {"BC": policy}, few("test", 5)[-1:], judges=[served, "likelihood-ratio"], max_reply=4,
        bare=pamdp.load_backbone(str(made / "model")),
    )  # fmt: skip
    assert {rate.judge for rate in found.rates} == {"big", "likelihood-ratio"}


def _words(request: Request) -> str:
    return str(request["messages"][-1]["content"])  # type: ignore[index]

"""The command line as a user meets it: what it prints, what it returns, and errors of one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pamdp import cli
from pamdp.calls_config import EndpointConfig
from pamdp.config import CloneConfig, Config, DataConfig, ModelConfig, RLConfig
from pamdp.data import write_dialogues
from pamdp.fingerprint import Fingerprint
from pamdp.judges.base import Case, Verdict
from pamdp.llm import stack
from pamdp.llm.ledger import Metered
from pamdp.models.backbone import Backbone
from pamdp.registry import CHAT_MODELS, JUDGES
from pamdp.runs import Run
from pamdp.train.env_factory import EnvFactory
from pamdp.train.factory import load_split, new_policy, save_policy
from tests.tools.methods import few
from tests.tools.scripted import ScriptedChat
from tests.tools.tiny import make_tiny_backbone

RUN = CliRunner()


def _pair(id: str, persona: str, preferred: str, rejected: str, kind: str = "taste") -> dict[str, object]:
    history = [{"role": "user", "content": f"What tea shall I buy, and why, dear {id}?"}]
    return {
        "id": id, "profile": persona, "personality": "brief", "history": history,
        "preferred": preferred, "rejected": rejected, "kind": kind,
    }  # fmt: skip


PAIRS = [
    _pair("a", "Anna likes smoke.", "A smoky one.", "Green tea, from the hills."),
    _pair("b", "Bert likes flowers.", "Jasmine, with flowers in it.", "A plain black one."),
    _pair("c", "Cleo likes milk.", "One for milk.", "A white one that is very light.", "style"),
    _pair("d", "Dora drinks water.", "None at all.", "Whatever is at hand.", "style"),
]


def _write(path: Path, records: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return _write(tmp_path / "pairs.jsonl", PAIRS)


class ShortJudge:
    """Prefers the shorter reply, for whomever."""

    name = "short"
    fingerprint = {"name": "short"}  # noqa: RUF012

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        if progress is not None:
            progress(2 * len(cases))
        return [Verdict(0.8, 0.2) if len(c.a) < len(c.b) else Verdict(0.2, 0.8) for c in cases]


def _main(monkeypatch: pytest.MonkeyPatch, *args: str | Path) -> object:
    """Exit code of the real entry point."""
    monkeypatch.setattr(sys, "argv", ["pamdp", *map(str, args)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


def test_data_check_of_a_good_file(pairs: Path) -> None:
    shown = RUN.invoke(cli.app, ["data", "check", str(pairs)])
    assert shown.exit_code == 0 and "pairs" in shown.output
    machine = RUN.invoke(cli.app, ["data", "check", str(pairs), "--json"])
    found = json.loads(machine.output)
    assert machine.exit_code == 0 and found["pairs"] == 4 and found["kinds"] == {"style": 2, "taste": 2}


def test_data_check_of_a_bad_file(tmp_path: Path) -> None:
    bad = {**PAIRS[1], "preferred": ""}
    path = _write(tmp_path / "bad.jsonl", [PAIRS[0], bad, PAIRS[2]])
    for flags, code, pairs in ((["--json"], 1, 2), (["--json", "--skip-bad"], 0, 2)):
        machine = RUN.invoke(cli.app, ["data", "check", str(path), *flags])
        found = json.loads(machine.output)
        assert (machine.exit_code, found["pairs"]) == (code, pairs)
        told = found["problems"] if code else found["skipped"]
        assert len(told) == 1 and "bad.jsonl:2" in told[0]
    shown = RUN.invoke(cli.app, ["data", "check", str(path)])
    assert shown.exit_code == 1


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["data", "check", "no-such.jsonl"], "no-such.jsonl"),
        (["data", "check", "{pairs}", "--format", "xml"], "xml"),
        (["eval", "no-such-run"], "no-such-run"),
        (["report", "no-such-run"], "no-such-run"),
        (["chat", "no-such-run"], "no-such-run"),
        (["train", "offline", "--run", "x", "--from", "no-such-run"], "no-such-run"),
        (["train", "online", "--run", "x", "--from", "no-such-run"], "no-such-run"),
        (["estimate", "judge.kind=telepathy"], "judge.kind"),
        (["train", "bc", "--run", "x", "--config", "papr"], "did you mean 'paper'"),
        (["train", "bc", "--run", "x", "clone.epoch=2"], "did you mean clone.epochs"),
        (["judge", "eval", "--pairs", "no-such.jsonl"], "no-such.jsonl"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    args: list[str],
    says: str,
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _main(monkeypatch, *(a.format(pairs=pairs) for a in args)) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("pamdp: ") and err.count("\n") == 1 and says in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pairs.jsonl"]  # nothing half-made is left


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> Backbone:
        raise KeyboardInterrupt

    monkeypatch.setattr("pamdp.models.embedded.load_backbone", interrupted)
    assert _main(monkeypatch, "train", "bc", "--run", "x") == 130
    assert "--resume" in capsys.readouterr().err


def test_judge_eval_of_four_pairs(
    pairs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("pamdp.models.embedded.load_backbone", lambda model: f"the backbone {model.name}")
    JUDGES.add("match", lambda backbone: asked.append(backbone()) or ShortJudge())
    JUDGES.add("mine", lambda backbone: ShortJudge())
    machine = RUN.invoke(cli.app, ["judge", "eval", "--pairs", str(pairs), "--judge", "match", "--json"])
    assert machine.exit_code == 0, machine.output
    found = json.loads(machine.output, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert asked == ["the backbone embedded"]
    assert found["accuracy"] == 0.75 and found["n"] == 4 and len(found["ci95"]) == 2 and found["skipped"] == 0
    assert found["by_kind"]["taste"]["accuracy"] == 0.5 and found["by_kind"]["style"]["accuracy"] == 1
    assert found["controls"]["length"] == 0.25 and found["controls"]["persona_blind"] == 0.75
    shown = RUN.invoke(cli.app, ["judge", "eval", "--pairs", str(pairs), "--judge", "mine"])
    assert shown.exit_code == 0 and "0.750" in shown.output and "persona_blind" in shown.output
    assert _main(monkeypatch, "judge", "eval", "--pairs", pairs, "--judge", "mach") == 1
    assert "no judge 'mach'; did you mean 'match'? there are: reward-model" in capsys.readouterr().err


def test_an_unknown_judge_is_refused_with_those_that_there_are(
    pairs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pamdp.models.embedded.load_backbone", lambda name: make_tiny_backbone())
    assert _main(monkeypatch, "judge", "eval", "--pairs", pairs, "--judge", "mach") == 1
    err = capsys.readouterr().err
    assert "no judge 'mach'" in err and "likelihood" in err and err.count("\n") == 1


def test_judge_eval_skips_bad_pairs_only_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pamdp.models.embedded.load_backbone", lambda name: None)
    JUDGES.add("signals", lambda _: ShortJudge())
    path = _write(tmp_path / "bad.jsonl", [*PAIRS, {**PAIRS[0], "id": "e", "history": []}])
    assert _main(monkeypatch, "judge", "eval", "--pairs", path) == 1
    skipping = RUN.invoke(cli.app, ["judge", "eval", "--pairs", str(path), "--skip-bad", "--json"])
    assert json.loads(skipping.output)["skipped"] == 1 and json.loads(skipping.output)["n"] == 4


def test_offline_training_takes_the_data_of_the_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train offline --from RUN` reinforces on what RUN was cloned on, unless other data are asked for."""
    cloned = Config(data=DataConfig(path="mine.jsonl", split_seed=3), clone=CloneConfig(backbone="frozen"))
    save_policy(new_policy(make_tiny_backbone(), cloned), tmp_path / "bc" / "policy")
    asked: list[tuple[str, int, int]] = []

    def stop(config: DataConfig) -> None:
        asked.append((config.path, config.split_seed, config.train_dialogues))
        raise KeyboardInterrupt

    monkeypatch.setattr("pamdp.models.embedded.load_backbone", lambda *_: None)
    JUDGES.add("signals", lambda _: ShortJudge())
    monkeypatch.setattr("pamdp.workflows.load_split", stop)
    for extra in ([], ["data.train_dialogues=5"], ["data.path=other.jsonl"]):
        RUN.invoke(cli.app, ["train", "offline", "--run", str(tmp_path / "rl"), "--from", str(tmp_path / "bc"), *extra])
    assert asked == [("mine.jsonl", 3, 0), ("mine.jsonl", 3, 5), ("other.jsonl", 0, 0)]


def test_the_estimate_says_what_will_be_called_and_what_it_costs() -> None:
    judge = ["judge.kind=openai", "judge.model=big", "online.rounds=2", "online.users=3", "rl.horizon=4"]
    machine = RUN.invoke(cli.app, ["estimate", *judge, "--json"])
    found = json.loads(machine.output)
    assert {row["role"]: row["calls"] for row in found["roles"]} == {"simulator": 24, "judge": 24}
    assert found["money"] is None
    prices = ["judge.price_prompt=1", "judge.price_completion=2"]
    assert json.loads(RUN.invoke(cli.app, ["estimate", *judge, *prices, "--json"]).output)["money"] > 0
    shown = RUN.invoke(cli.app, ["estimate", *judge])
    assert "no price" in shown.output and "local" in shown.output


class Vowels:
    """Counts vowels."""

    name = "vowels"
    fingerprint = {"name": "vowels"}  # noqa: RUF012

    def judge(self, cases: Sequence[Case], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        counts = [[sum(c in "aeiou" for c in text) for text in (case.a, case.b)] for case in cases]
        return [Verdict(0.9, 0.1) if a > b else Verdict(0.1, 0.9) for a, b in counts]


def test_online_training_from_a_clone_says_what_it_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(model=ModelConfig(d_a=8, depth=0.5), clone=CloneConfig(backbone="frozen"))
    policy = new_policy(make_tiny_backbone(), config)
    assert policy.planner is not None
    policy.planner.actor.sigma.fill_(1.0)
    save_policy(policy, tmp_path / "bc" / "policy")
    monkeypatch.setattr("pamdp.models.embedded.load_backbone", lambda *_: make_tiny_backbone())

    def world(config: Config, backbone: Backbone) -> EnvFactory:
        made = EnvFactory(config, ScriptedChat(lambda m, s: f"Well, {s % 10}."), Vowels())
        made.simulator = Metered(made.simulator, made.ledger, "simulator")
        return made

    monkeypatch.setattr("pamdp.train.env_factory.make_env_factory", world)
    JUDGES.add("signals", lambda _: Vowels())
    small = ["online.rounds=1", "online.users=2", "rl.horizon=2", "rl.max_reply=4", "rl.epochs=1"]
    command = ["train", "online", "--run", str(tmp_path / "rl"), "--from", str(tmp_path / "bc"), *small]
    machine = RUN.invoke(cli.app, [*command, "--json"])
    assert machine.exit_code == 0, machine.output
    assert json.loads(machine.output)["costs"]["simulator"]["calls"] == 4
    assert (tmp_path / "rl" / "trained" / "planner.safetensors").is_file()
    # A resumed run may ask more slowly, but not another model.
    again = RUN.invoke(cli.app, [*command, "--resume", "online.simulator.concurrency=2"])
    assert again.exit_code == 0 and "simulator" in again.output
    assert RUN.invoke(cli.app, [*command, "--resume", "online.simulator.model=other"]).exit_code == 1


def test_a_clone_run_is_not_resumed_with_other_pairs(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[int] = []

    def clone(
        policy: object, train: object, test: object, config: object, run: Run, given: Sequence[object], *_: object
    ):
        learned.append(len(given))
        run.log(1, {"nll": 1.0})

    monkeypatch.setattr("pamdp.models.embedded.load_backbone", lambda *_: make_tiny_backbone())
    monkeypatch.setattr("pamdp.models.embedded.cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr("pamdp.train.clone.clone", clone)
    small = ["clone.backbone=frozen", "model.d_a=4", "model.depth=0.5", f"data.pairs={pairs}"]
    command = ["train", "bc", "--run", str(tmp_path / "bc"), *small]
    assert RUN.invoke(cli.app, command).exit_code == 0
    assert RUN.invoke(cli.app, [*command, "--resume"]).exit_code == 0
    _write(pairs, PAIRS[:3])
    again = RUN.invoke(cli.app, [*command, "--resume"])
    assert again.exit_code == 1 and "pairs was" in str(again.exception)
    assert learned == [4, 4]


def test_eval_asks_models_on_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every state in both orders; a judge that always takes the first reply is none for either."""
    write_dialogues(tmp_path / "d.jsonl", few("test", 2))
    config = Config(
        data=DataConfig(path=str(tmp_path / "d.jsonl"), test_share=0.5), model=ModelConfig(d_a=8, depth=0.5),
        clone=CloneConfig(backbone="frozen"), rl=RLConfig(max_reply=4),
    )  # fmt: skip
    run = tmp_path / "run"
    Run.create(run, config, Fingerprint(data=load_split(config.data).sha256, model="tiny", revision="0"))
    save_policy(new_policy(make_tiny_backbone(), config), run / "policy")
    served: dict[str, ScriptedChat] = {}

    def serve(end: EndpointConfig) -> ScriptedChat:
        assert end.base_url == "http://here/v1"
        return served.setdefault(end.model, ScriptedChat(lambda *_: "[[A]]", end.model))

    monkeypatch.setattr("pamdp.models.embedded.load_backbone", lambda *_: make_tiny_backbone())
    CHAT_MODELS.add("openai", serve)
    monkeypatch.setattr(stack, "cache_dir", lambda: tmp_path / "cache")
    asked = ["eval", str(run), "--judges", "big,other", "--json", "judge.base_url=http://here/v1"]
    found = json.loads(RUN.invoke(cli.app, asked, catch_exceptions=False).output)
    rows = {row["judge"]: row for row in found["success"]}
    assert set(rows) == {"big", "other"} and rows["big"]["ties"] == 2 and rows["big"]["wins"] == 0
    assert len(served["big"].asked) == 1 + 2 * 2  # a greeting, then two states in both orders
    assert _main(monkeypatch, "eval", run, "--judges", "big") == 1
    err = capsys.readouterr().err
    assert "judge.base_url" in err and err.count("\n") == 1

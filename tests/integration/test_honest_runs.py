"""A run starts from what it says and is evaluated as it says: no tuned Vanilla, no known user, no false control."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import pamdp.judges.embedded  # noqa: F401  (read before its parts are replaced)
from pamdp import cli
from pamdp.config import CloneConfig, Config, DataConfig, ModelConfig, RLConfig
from pamdp.data import write_dialogues
from pamdp.errors import ConfigError
from pamdp.evaluation.run_reader import reward_judge
from pamdp.models.backbone import Backbone
from pamdp.models.policy import Policy
from pamdp.registry import JUDGES
from pamdp.runs import Run
from pamdp.train import offline as offline_module
from pamdp.train.factory import load_split, new_policy, save_policy
from pamdp.train.policy_metadata import read_metadata
from pamdp.workflows import fingerprint_of
from tests.tools.methods import VowelJudge, few
from tests.tools.tiny import make_tiny_backbone

LETTERS = {"match": "aeiou", "likelihood": "ptkbdg"}
SMALL = ["rl.rounds=1", "rl.samples=2", "rl.max_reply=4", "rl.epochs=1", "rl.batch_size=4", "rl.actor_every=1"]


class Desk:
    """A folder to work in, the backbones that were loaded there, and those that judges were given."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self.monkeypatch, self.capsys = path, monkeypatch, capsys
        self.loaded: list[Backbone] = []
        self.judging: list[Backbone] = []
        write_dialogues(path / "d.jsonl", few("test", 4))
        monkeypatch.setattr("pamdp.models.embedded.load_backbone", self._load)
        for name in LETTERS:
            JUDGES.add(name, partial(self._judge, name))

    def clone(self, name: str = "bc", seed: int = 0, backbone: str = "frozen", **data: object) -> Path:
        """A run that was cloned; a `full` one has other weights than the bare backbone."""
        config = Config(
            seed=seed, data=DataConfig(path=str(self.path / "d.jsonl"), test_share=0.5, **data),
            model=ModelConfig(d_a=4, depth=0.5), clone=CloneConfig(backbone=backbone), rl=RLConfig(max_reply=4),
        )  # fmt: skip
        bare = make_tiny_backbone()
        policy, split = new_policy(bare, config), load_split(config.data)
        assert policy.planner is not None
        policy.planner.actor.sigma.fill_(1.0)
        if backbone == "full":
            bare.model.load_state_dict(make_tiny_backbone(seed=5).model.state_dict())
        Run.create(self.path / name, config, fingerprint_of(split, bare))
        policy = replace(policy, users=frozenset(d.user_id for d in split.train))
        save_policy(policy, self.path / name / "policy")
        return self.path / name

    def run(self, *args: str | Path) -> tuple[int, str]:
        """Exit code and error stream of the real entry point; which judges stand by default is no matter here."""
        if args[0] == "eval" and "--judges" not in args:
            args = (*args, "--judges", "match,likelihood")
        if args[:2] == ("train", "offline"):
            args = (*args, "--judge", "match")
        self.monkeypatch.setattr(sys, "argv", ["pamdp", *map(str, args)])
        self.capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = self.capsys.readouterr()
        self.out = said.out
        return code, said.err

    def train(self, name: str, source: Path, *more: str) -> Path:
        code, err = self.run("train", "offline", "--run", self.path / name, "--from", source, *SMALL, *more)
        assert code == 0, err
        return self.path / name

    def refused(self, *args: str | Path) -> str:
        """The one line that is said in place of doing it."""
        code, err = self.run(*args)
        assert code == 1 and err.startswith("pamdp: ") and err.count("\n") == 1, err
        return err

    def _load(self, name: str) -> Backbone:
        self.loaded.append(make_tiny_backbone())
        return self.loaded[-1]

    def _judge(self, name: str, backbone: Callable[[], Backbone]) -> VowelJudge:
        self.judging.append(backbone())
        return VowelJudge(name, LETTERS[name])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def _bare(backbone: Backbone) -> bool:
    plain = make_tiny_backbone().model.state_dict()
    return all(torch.equal(plain[name], weight) for name, weight in backbone.model.state_dict().items())


@pytest.mark.parametrize(("backbone", "copies"), [("full", 2), ("frozen", 1)])
def test_vanilla_and_judges_are_bare_where_cloning_changed_every_weight(desk: Desk, backbone: str, copies: int) -> None:
    wrote: list[tuple[str, bool]] = []
    for module, name in ((offline_module, "rollout_recorded"), (sys.modules["pamdp.workflows"], "write_replies")):
        real = getattr(module, name)

        def spy(policy: Policy, *args: object, real: object = real, **kwargs: object) -> object:
            wrote.append(("Vanilla" if policy.planner is None else "policy", _bare(policy.backbone)))
            return real(policy, *args, **kwargs)

        desk.monkeypatch.setattr(module, name, spy)
    run = desk.train("rl", desk.clone(backbone=backbone), "rl.reference=vanilla")
    assert len(desk.loaded) == copies
    code, err = desk.run("eval", run)
    assert code == 0, err
    assert set(wrote) == {("Vanilla", True), ("policy", backbone == "frozen")}
    assert len(desk.judging) == 3 and all(map(_bare, desk.judging))


def test_vanilla_cannot_be_written_for_by_a_tuned_backbone() -> None:
    config = Config(
        model=ModelConfig(d_a=4, depth=0.5), clone=CloneConfig(backbone="full"), rl=RLConfig(reference="vanilla")
    )
    with pytest.raises(ConfigError, match=r"rl\.reference=vanilla: cloning changed every weight"):
        offline_module.reference_replies(new_policy(make_tiny_backbone(), config), few("train", 1), config)


def test_a_run_says_who_rewarded_and_an_evaluation_who_graded(desk: Desk) -> None:
    run = desk.train("rl", desk.clone())
    assert reward_judge(Run(run).fingerprint()) == "match"
    assert desk.run("eval", run)[0] == 0
    graders = json.loads((run / "evaluation.json").read_text())["judges"]
    assert [(g["role"], g["name"], g["letters"]) for g in graders] == [
        ("evaluation", "match", "aeiou"), ("evaluation", "likelihood", "ptkbdg")
    ]  # fmt: skip
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Rewards came from match" in page and "ptkbdg" in page
    # Who graded is no part of what the run was computed from: it still resumes.
    code, err = desk.run("train", "offline", "--run", run, "--from", desk.path / "bc", *SMALL, "--resume")
    assert code == 0, err


def test_who_was_learned_from_is_noted_and_does_not_test(desk: Desk) -> None:
    clone = desk.clone()
    run = desk.train("rl", clone)
    learned = {d.user_id for d in load_split(Run(run).config(Config).data).train}
    assert set(read_metadata(run / "trained").users or ()) == learned and len(learned) == 2
    split = DataConfig(path=str(desk.path / "d.jsonl"), test_share=0.5)
    testing = {n: load_split(split.model_copy(update={"split_seed": n})).test for n in range(1, 99)}
    seed = next(n for n, test in testing.items() if {d.user_id for d in test} & learned)
    for verb in ("offline", "online"):
        said = desk.refused("train", verb, "--run", desk.path / "x", "--from", clone, f"data.split_seed={seed}")
        assert str(clone) in said and "of 2 test users" in said and not (desk.path / "x").exists()
    # As if somebody had put another clone under a run.
    about = json.loads((run / "policy" / "config.json").read_text())
    about["users"] = sorted({d.user_id for d in few("test", 4)} - learned)
    (run / "policy" / "config.json").write_text(json.dumps(about))
    assert "of 2 test users" in desk.refused("eval", run)


def test_data_that_changed_are_not_evaluated_on(desk: Desk) -> None:
    run = desk.train("rl", desk.clone())
    write_dialogues(desk.path / "d.jsonl", few("test", 5))
    assert "have changed since it was trained" in desk.refused("eval", run)


@pytest.mark.parametrize(
    ("judges", "says"),
    [("", "empty name"), ("match,,likelihood", "empty name"), ("match,likelihood,match", "names 'match' twice"),
     ("match", "neither it nor its parts may grade alone")],
)  # fmt: skip
def test_judges_are_looked_at_before_anything_is_loaded(desk: Desk, judges: str, says: str) -> None:
    run = desk.train("rl", desk.clone())
    desk.loaded.clear()
    assert says in desk.refused("eval", run, "--judges", judges) and not desk.loaded


def test_a_clone_is_evaluated_and_an_unfinished_run_is_not(desk: Desk) -> None:
    clone = desk.clone()
    assert desk.run("eval", clone, "--judges", "match")[0] == 0  # nothing rewarded here
    run = desk.train("rl", clone)
    (run / "trained").rename(run / "elsewhere")
    assert "has no trained/" in desk.refused("eval", run)


def test_the_permuted_control_is_evaluated_beside_its_run(desk: Desk) -> None:
    clone = desk.clone()
    run = desk.train("rl", clone)
    control = desk.train("control", clone, "rl.permute=true")
    code, err = desk.run("eval", run, "--permuted", control, "--json")
    assert code == 0, err
    methods = [(row["method"], row["baseline"]) for row in json.loads(desk.out)["success"] if row["judge"] == "match"]
    assert methods == [
        ("BC", "Vanilla"), ("PAMDP", "Vanilla"), ("PAMDP", "BC"), ("Permuted", "Vanilla"), ("Permuted", "BC")
    ]  # fmt: skip
    assert json.loads((run / "evaluation.json").read_text())["permuted"] == str(control)
    assert desk.run("eval", run)[0] == 0 and "Permuted against" not in (run / "report.html").read_text()


def test_an_advantage_of_a_plugin_is_reinforced_with(desk: Desk) -> None:
    clone, plugin = desk.clone(), desk.path / "plugin.py"
    asked = [*SMALL, "rl.advantage=mine"]
    said = desk.refused("train", "offline", "--run", desk.path / "rl", "--from", clone, *asked)
    assert "no advantage 'mine'" in said and "--plugin FILE.py" in said
    plugin.write_text(
        "from pamdp.rl.advantages import register_advantage\n"
        "@register_advantage('mine', oracle_target='full')\n"
        "def mine(batch):\n"
        f"    open({str(desk.path / 'asked')!r}, 'w').close()\n"
        "    return batch.reward\n"
    )
    run = desk.train("rl", clone, "--plugin", str(plugin), "rl.advantage=mine")
    assert Run(run).config(Config).rl.advantage == "mine" and (desk.path / "asked").exists()


def test_what_is_no_control_is_refused(desk: Desk) -> None:
    clone = desk.clone()
    run = desk.train("rl", clone)
    with_other_seed = desk.clone("bc2", seed=3)
    cases: Sequence[tuple[Path, str]] = [
        (run, "rl.permute is false there"),
        (desk.path / "none", "holds no run"),
        (desk.train("c1", with_other_seed, "rl.permute=true"), "not trained from the same clone"),
        (desk.train("c2", clone, "rl.permute=true", "rl.kl=0.5"), "rl.kl is 0.5, not 0.01"),
        (clone, "rl.permute is false there"),
    ]
    for control, says in cases:
        assert says in desk.refused("eval", run, "--permuted", control)
    unfinished = desk.train("c3", clone, "rl.permute=true")
    (unfinished / "trained").rename(unfinished / "elsewhere")
    assert "has no trained/" in desk.refused("eval", run, "--permuted", unfinished)


def test_judges_are_not_trained_over_something_else(desk: Desk) -> None:
    (desk.path / "notes").mkdir()
    (desk.path / "notes" / "thesis.md").write_text("two years of work")
    desk.monkeypatch.chdir(desk.path)
    assert "holds 'thesis.md'" in desk.refused("judge", "train", "--out", "notes")
    assert "give a name inside it" in desk.refused("judge", "train", "--out", ".")
    assert not desk.loaded and (desk.path / "notes" / "thesis.md").is_file()

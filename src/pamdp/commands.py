"""What each verb of the command line does: settings in, one call to a lower layer, a result out.

Owns one function per verb. Knows nothing of options and printing (cli.py).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pamdp.baselines.registry import load_methods
from pamdp.config import Config
from pamdp.data import load_pairs, load_sample, load_sample_pairs
from pamdp.data.check import check
from pamdp.evaluate.judging import evaluate_judge
from pamdp.evaluate.report import write_report
from pamdp.fingerprint import Fingerprint
from pamdp.judges.embedded import load_judge, save_judges
from pamdp.judges.training import train_judges
from pamdp.lab.benchmark import run_benchmark
from pamdp.models.embedded import load_backbone
from pamdp.parts import Result, copy_policy, evaluate_policies, open_run, policies_of, policy_config
from pamdp.progress import Progress
from pamdp.quickstart import quickstart
from pamdp.reproduce import main
from pamdp.reproduce.config import Preset, load_config
from pamdp.reproduce.tables import table
from pamdp.rl.returns import max_value
from pamdp.runs import Run
from pamdp.settings import load
from pamdp.talk import load_critics, talk
from pamdp.train.clone import clone
from pamdp.train.offline import R_MAX, offline
from pamdp.train.setup import load_policy, load_split, new_policy, shipped

__all__ = [
    "Result", "chat", "data_check", "evaluate_run", "judge_eval", "judge_train", "lab", "quickstart", "report",
    "reproduce_table", "train_bc", "train_offline",
]  # fmt: skip


def data_check(path: Path, format: str, skip_bad: bool) -> Result:
    """`pamdp data check`."""
    found = check(path, format, skip_bad)
    return Result(found.to_json(), [found.table()], not found.ok)


def train_bc(path: Path, sources: Sequence[str], overrides: Sequence[str], resume: bool) -> Result:
    """`pamdp train bc`."""
    config = load(Config, sources, overrides)
    backbone = load_backbone(config.model.name)
    split = load_split(config.data, config.seed)
    run = open_run(
        path, config, Fingerprint(data=split.sha256, model=backbone.name, revision=backbone.revision), resume
    )
    with run:
        clone(new_policy(backbone, config), split.train, split.test, config, run)
        last = run.metrics()[-1]
    text = f"cloned into {path}; next: pamdp train offline --run runs/rl --from {path}"
    return Result(json.dumps({"run": str(path), **last}), [text])


def train_offline(
    path: Path, source: str, judge_name: str, sources: Sequence[str], overrides: Sequence[str], resume: bool
) -> Result:
    """`pamdp train offline`: the cloned policy is copied into the run, so that the run is whole by itself."""
    start = shipped("policy") if source == "shipped" else Path(source) / "policy"
    cloned = policy_config(start)
    config = load(Config, sources, overrides)
    # What was cloned is what is reinforced: the cloned settings of model and data win where nothing else was asked for.
    data = config.data if "data" in config.model_fields_set or source == "shipped" else cloned.data
    config = config.model_copy(update={"model": cloned.model, "clone": cloned.clone, "data": data})
    backbone = load_backbone(config.model.name)
    judge = load_judge(judge_name, backbone)
    split = load_split(config.data, config.seed)
    fingerprint = Fingerprint(
        data=split.sha256, model=backbone.name, revision=backbone.revision, judges=(judge.fingerprint,)
    )
    run = open_run(path, config, fingerprint, resume)
    with run:
        copy_policy(start, path / "policy")
        offline(load_policy(path / "policy", backbone), split.train, judge, config, run)
        last = run.metrics()[-1]
    return Result(json.dumps({"run": str(path), **last}), [f"trained into {path}; next: pamdp eval {path} --controls"])


def evaluate_run(path: Path, controls: bool, judges: Sequence[str]) -> Result:
    """`pamdp eval`."""
    run = Run(path)
    config = run.config(Config)
    backbone = load_backbone(config.model.name)
    split = load_split(config.data, config.seed)
    named = ("BC", "PAMDP") if controls else ()
    return evaluate_policies(policies_of(path, backbone), split, judges, config, path, named)


def judge_eval(pairs: str, name: str, skip_bad: bool) -> Result:
    """`pamdp judge eval`."""
    found = load_sample_pairs("test") if pairs == "sample" else load_pairs(pairs, skip_bad=skip_bad)
    judge = load_judge(name, load_backbone())
    with Progress("judging", 6 * len(found.pairs)) as bar:
        report_ = evaluate_judge(judge, found.pairs, bar.advance)
    return Result(json.dumps(report_.to_json() | {"skipped": len(found.skipped)}), [report_.table()])


def judge_train(out: Path, epochs: int) -> Result:
    """`pamdp judge train`."""
    backbone = load_backbone()
    match, likelihood, temperature = train_judges(
        backbone, load_sample_pairs("train").pairs, load_sample("train").dialogues, epochs=epochs
    )
    save_judges(out, match, likelihood, temperature)
    return Result(json.dumps({"out": str(out), "temperature": temperature}), [f"judges written to {out}"])


def report(path: Path) -> Result:
    """`pamdp report`."""
    found = write_report(path)
    return Result(json.dumps({"report": str(found)}), [f"report: {found}"])


def reproduce_table(
    name: str,
    preset: Preset,
    path: Path,
    methods: Sequence[Path],
    sources: Sequence[str],
    overrides: Sequence[str],
    *,
    dry: bool = False,
    rendered: bool = False,
) -> Result:
    """`pamdp reproduce`."""
    load_methods(methods)
    if rendered:
        return main.render(main.stored_config(path), table(name), path)
    config = load_config(preset, sources, overrides)
    if dry:
        return main.dry_run(config, table(name), path)
    return main.reproduce(config, table(name), path, main.standard_tools())


def lab(figure: Path | None) -> Result:
    """`pamdp lab`."""
    bars: dict[str, Progress] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = Progress(what, total).__enter__()
        bars[what].advance(1)
        if done >= total:
            bars[what].__exit__(None, None, None)

    found = run_benchmark(show)
    if figure is not None:
        found.figure(figure)
    return Result(found.to_json(), list(found.tables()))


def chat(source: str, show: bool) -> None:
    """`pamdp chat`."""
    folder = shipped("trained") if source == "shipped" else Path(source) / "trained"
    if source != "shipped" and not folder.is_dir():
        folder = Path(source) / "policy"
    config = policy_config(folder)
    policy = load_policy(folder, load_backbone(config.model.name))
    v_max = max_value(R_MAX, config.rl.gamma, config.rl.horizon)
    talk(policy, load_critics(folder.parent, policy.width, v_max), show, config.rl.max_reply)

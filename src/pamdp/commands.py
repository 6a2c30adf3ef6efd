"""What each verb of the command line does: settings in, one call to a lower layer, a result out.

Owns one function per verb. Knows nothing of options and printing (cli.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from pamdp.baselines.registry import load_methods
from pamdp.config import Config, EvalConfig
from pamdp.data import load_pairs, load_sample, load_sample_pairs
from pamdp.data.bundled import PairSplit
from pamdp.data.check import check
from pamdp.env.profile import Profiler
from pamdp.evaluate.judging import evaluate_judge
from pamdp.evaluate.report import write_report
from pamdp.files import Json
from pamdp.fingerprint import Fingerprint
from pamdp.judges.embedded import load_judge, save_judges
from pamdp.judges.training import train_judges
from pamdp.lab.benchmark import run_benchmark
from pamdp.llm.local import LocalChat
from pamdp.models.embedded import cache_dir, load_backbone
from pamdp.models.features import FeatureStore
from pamdp.parts import Result, copy_policy, evaluate_policies, open_run, policies_of, policy_config
from pamdp.progress import Progress
from pamdp.quickstart import quickstart
from pamdp.reproduce import main
from pamdp.reproduce.config import Preset, load_config
from pamdp.reproduce.online import main as online_main
from pamdp.reproduce.online.config import load_online_config
from pamdp.reproduce.parallel import Crew
from pamdp.reproduce.tables import table
from pamdp.rl.returns import max_value
from pamdp.runs import Run
from pamdp.settings import load
from pamdp.talk import talk
from pamdp.train.clone import clone
from pamdp.train.estimate import estimate
from pamdp.train.offline import offline
from pamdp.train.online import online
from pamdp.train.reinforce import R_MAX
from pamdp.train.setup import load_clone_pairs, load_critics, load_policy, load_split, new_policy, shipped
from pamdp.train.world import build_world, may_change

__all__ = [
    "Result", "chat", "data_check", "estimate_run", "evaluate_run", "judge_eval", "judge_train", "lab", "quickstart",
    "report", "reproduce_online", "reproduce_table", "train_bc", "train_offline", "train_online",
]  # fmt: skip


SAMPLE_PAIRS: dict[str, PairSplit] = {"sample": "test", "sample-valid": "valid", "sample-fresh": "fresh"}
"""Names of the sample's pairs that judges are measured on."""


def data_check(path: Path, format: str, skip_bad: bool) -> Result:
    """`pamdp data check`."""
    found = check(path, format, skip_bad)
    return Result(found.to_json(), [found.table()], not found.ok)


def train_bc(path: Path, sources: Sequence[str], overrides: Sequence[str], resume: bool) -> Result:
    """`pamdp train bc`."""
    config = load(Config, sources, overrides)
    backbone = load_backbone(config.model.name)
    split = load_split(config.data)
    pairs = load_clone_pairs(config)
    fingerprint = Fingerprint(data=split.sha256, model=backbone.name, revision=backbone.revision, pairs=pairs.sha256)
    with open_run(path, config, fingerprint, resume) as run:
        store = FeatureStore(cache_dir() / "features")
        clone(new_policy(backbone, config), split.train, split.test, config, run, pairs.pairs, store)
        last = run.metrics()[-1]
    text = f"cloned into {path}; next: pamdp train offline --run runs/rl --from {path}"
    return Result(json.dumps({"run": str(path), **last}), [text])


def train_offline(
    path: Path, source: str, judge_name: str, sources: Sequence[str], overrides: Sequence[str], resume: bool
) -> Result:
    """`pamdp train offline`: the cloned policy is copied into the run, so that the run is whole by itself."""
    start, config = _from_clone(source, sources, overrides)
    backbone = load_backbone(config.model.name)
    judge = load_judge(judge_name, backbone)
    split = load_split(config.data)
    fingerprint = Fingerprint(
        data=split.sha256, model=backbone.name, revision=backbone.revision, judges=(judge.fingerprint,)
    )
    run = open_run(path, config, fingerprint, resume)
    with run:
        copy_policy(start, path / "policy")
        offline(load_policy(path / "policy", backbone), split.train, judge, config, run)
        last = run.metrics()[-1]
    return Result(json.dumps({"run": str(path), **last}), [f"trained into {path}; next: pamdp eval {path} --controls"])


def train_online(path: Path, source: str, sources: Sequence[str], overrides: Sequence[str], resume: bool) -> Result:
    """`pamdp train online`: as offline, with users that answer."""
    start, config = _from_clone(source, sources, overrides)
    backbone = load_backbone(config.model.name)
    split = load_split(config.data)
    world = build_world(config, backbone)
    fingerprint = Fingerprint(
        data=split.sha256,
        model=backbone.name,
        revision=backbone.revision,
        judges=world.fingerprints(split.train),
    )
    run = open_run(path, config, fingerprint, resume, may_change())
    with run:
        copy_policy(start, path / "policy")
        online(load_policy(path / "policy", backbone), split.train, world, config, run)
        last = run.metrics()[-1]
    costs = world.ledger.to_json()
    return Result(json.dumps({"run": str(path), "costs": costs, **last}), [f"trained into {path}", _costs(costs)])


def estimate_run(sources: Sequence[str], overrides: Sequence[str]) -> Result:
    """`pamdp estimate`."""
    config = load(Config, sources, overrides)
    rows = estimate(config, load_split(config.data).train)
    table = Table(title="What `train online` will call; answers at their longest, without retries and cache")
    for column in ("role", "model", "calls", "prompt tokens", "answer tokens", "money"):
        table.add_column(column, justify="left" if column in ("role", "model") else "right")
    for row in rows:
        counts = [f"{n:,}" for n in (row.calls, row.prompt_tokens, row.completion_tokens)]
        money = "local" if row.kind != "openai" else "no price" if row.money is None else f"{row.money:.2f}"
        table.add_row(row.role, row.model, *counts, money)
    known = [row.money for row in rows if row.money is not None]
    total = sum(known) if len(known) == len(rows) else None
    return Result(json.dumps({"roles": [asdict(row) for row in rows], "money": total}), [table])


def evaluate_run(
    path: Path, controls: bool, judges: Sequence[str], sources: Sequence[str] = (), overrides: Sequence[str] = ()
) -> Result:
    """`pamdp eval`."""
    grader = load(EvalConfig, sources, overrides).grader
    run = Run(path)
    config = run.config(Config)
    backbone = load_backbone(config.model.name)
    split = load_split(config.data)
    named = ("BC", "PAMDP") if controls else ()
    return evaluate_policies(policies_of(path, backbone), split, judges, config, path, named, grader)


def judge_eval(pairs: str, name: str, skip_bad: bool) -> Result:
    """`pamdp judge eval`."""
    named = SAMPLE_PAIRS.get(pairs)
    found = load_pairs(pairs, skip_bad=skip_bad) if named is None else load_sample_pairs(named)
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
    jobs: int = 1,
) -> Result:
    """`pamdp reproduce`."""
    load_methods(methods)
    if rendered:
        return main.render(main.stored_config(path), table(name), path)
    config = load_config(preset, sources, overrides)
    if dry:
        return main.dry_run(config, table(name), path)
    crew = Crew(jobs, main.standard_tools, tuple(methods)) if jobs > 1 else None
    return main.reproduce(config, table(name), path, main.standard_tools(config.grader), crew)


def reproduce_online(
    target: online_main.Target,
    preset: Preset,
    path: Path,
    sources: Sequence[str],
    overrides: Sequence[str],
    *,
    dry: bool = False,
    rendered: bool = False,
) -> Result:
    """`pamdp reproduce table3|fig4|simulator`."""
    if rendered:
        return online_main.render_online(online_main.stored_online_config(path), target, path)
    config = load_online_config(preset, sources, overrides)
    if dry:
        return online_main.dry_run_online(config, target)
    return online_main.reproduce_online(online_main.with_start(config), target, path, online_main.online_tools())


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
    trained, cloned = Path(source) / "trained", Path(source) / "policy"
    folder = shipped("trained") if source == "shipped" else trained if trained.is_dir() else cloned
    config = policy_config(folder)
    policy = load_policy(folder, load_backbone(config.model.name))
    v_max = max_value(R_MAX, config.rl.gamma, config.rl.horizon)
    profiler = Profiler(LocalChat(policy.backbone), attempts=2, max_tokens=80)
    talk(policy, load_critics(folder, policy.width, v_max), show, config.rl.max_reply, profiler=profiler)


def _from_clone(source: str, sources: Sequence[str], overrides: Sequence[str]) -> tuple[Path, Config]:
    """The cloned policy's folder and the settings of a run that reinforces it.

    What was cloned is what is reinforced: the cloned settings of model and data win where nothing else was asked for.
    """
    start = shipped() if source == "shipped" else Path(source) / "policy"
    cloned = policy_config(start)
    config = load(Config, sources, overrides)
    data = config.data if "data" in config.model_fields_set or source == "shipped" else cloned.data
    return start, config.model_copy(update={"model": cloned.model, "clone": cloned.clone, "data": data})


def _costs(costs: Mapping[str, Json]) -> Table:
    table = Table(title="What was called")
    for column in ("role", "calls", "failed", "prompt tokens", "answer tokens", "money"):
        table.add_column(column)
    for role, entry in costs.items():
        assert isinstance(entry, Mapping)
        money = "-" if entry["money"] is None else f"{entry['money']:.2f}"
        counts = [str(entry[name]) for name in ("calls", "failed", "prompt_tokens", "completion_tokens")]
        table.add_row(role, *counts, money)
    return table

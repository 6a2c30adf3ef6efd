"""What each verb of the command line does: settings in, one call to a lower layer, a result out.

Owns one function per verb. Knows nothing of options and printing (cli.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from pamdp.config import Config, DataConfig, EvalConfig
from pamdp.data import load_pairs, load_sample, load_sample_pairs
from pamdp.data.bundled import PairSplit
from pamdp.data.check import check
from pamdp.env.profile import Profiler
from pamdp.evaluation.judge_eval import evaluate_judge
from pamdp.evaluation.report import write_report
from pamdp.files import Json, require_replaceable
from pamdp.judges.embedded import FILES, save_judges
from pamdp.judges.training import train_judges
from pamdp.lab.benchmark import run_benchmark
from pamdp.llm.ask import Asking
from pamdp.llm.local import LocalChat
from pamdp.models.embedded import cache_dir, load_backbone
from pamdp.models.features import FeatureStore
from pamdp.models.policy import Policy
from pamdp.preflight import require_control, require_data, require_finished, require_judges
from pamdp.progress import Progress
from pamdp.quickstart import quickstart
from pamdp.registry import JUDGES, load_plugins
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
from pamdp.train.env_factory import make_env_factory, may_change
from pamdp.train.estimate import estimate
from pamdp.train.factory import Split, load_clone_pairs, load_critics, load_policy, load_split, new_policy, shipped
from pamdp.train.init_from import load_start, policy_folder, settings_from
from pamdp.train.offline import drawn_replies, offline
from pamdp.train.online import online
from pamdp.train.policy_metadata import require_unseen
from pamdp.train.reinforce import R_MAX
from pamdp.train.users import load_users
from pamdp.workflows import (
    Result,
    backbones,
    copy_policy,
    evaluate_policies,
    fingerprint_of,
    open_run,
    policies_of,
    policy_config,
    tell_skipped,
)

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
    split = _split(config.data)
    pairs = load_clone_pairs(config)
    with open_run(path, config, fingerprint_of(split, backbone, pairs=pairs.sha256), resume) as run:
        store = FeatureStore(cache_dir() / "features")
        clone(new_policy(backbone, config), split.train, split.test, config, run, pairs.pairs, store)
        last = run.metrics()[-1]
    text = f"cloned into {path}; next: pamdp train offline --run runs/rl --from {path}"
    return Result(json.dumps({"run": str(path), **last}), [text])


def train_offline(
    path: Path, source: str, judge_name: str, sources: Sequence[str], overrides: Sequence[str], resume: bool
) -> Result:
    """`pamdp train offline`: the cloned policy is copied into the run, so that the run is whole by itself."""
    start = policy_folder(source)
    config = settings_from(start, sources, overrides)
    split = _split(config.data)
    require_unseen(split.test, [start])
    bare, own = backbones(config, load_backbone)
    judge = JUDGES[judge_name](lambda: bare)
    with open_run(path, config, fingerprint_of(split, bare, [judge]), resume) as run:
        copy_policy(start, path / "policy")
        offline(load_start(path / "policy", own, config), split.train, judge, config, run, bare=bare)
        last = run.metrics()[-1]
    return Result(json.dumps({"run": str(path), **last}), [f"trained into {path}; next: pamdp eval {path} --controls"])


def train_online(path: Path, source: str, sources: Sequence[str], overrides: Sequence[str], resume: bool) -> Result:
    """`pamdp train online`: as offline, with users that answer."""
    start = policy_folder(source)
    config = settings_from(start, sources, overrides)
    split = load_users(config)
    tell_skipped(split)
    require_unseen(split.test, [start])
    bare, own = backbones(config, load_backbone)
    world = make_env_factory(config, bare)
    fingerprint = fingerprint_of(split, bare).model_copy(update={"judges": world.fingerprints(split.train)})
    with open_run(path, config, fingerprint, resume, may_change()) as run:
        copy_policy(start, path / "policy")
        online(load_start(path / "policy", own, config), split.train, world, config, run, bare)
        last = run.metrics()[-1]
    costs = world.ledger.to_json()
    return Result(json.dumps({"run": str(path), "costs": costs, **last}), [f"trained into {path}", _costs(costs)])


def estimate_run(sources: Sequence[str], overrides: Sequence[str]) -> Result:
    """`pamdp estimate`."""
    config = load(Config, sources, overrides)
    rows = estimate(config, load_users(config).train)
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
    path: Path,
    controls: bool,
    judges: Sequence[str],
    sources: Sequence[str] = (),
    overrides: Sequence[str] = (),
    permuted: Path | None = None,
) -> Result:
    """`pamdp eval`: what can be refused is refused before anything is loaded."""
    grader = load(EvalConfig, sources, overrides).grader
    run = Run(path)
    config = run.config(Config)
    require_judges(judges, run)
    require_finished(run)
    if permuted is not None:
        require_control(Run(permuted), run)
    split = _split(config.data)
    require_data(run, split)
    learned = [path / "policy", path / "trained", *([] if permuted is None else [permuted / "trained"])]
    require_unseen(split.test, [folder for folder in learned if folder == path / "policy" or folder.is_dir()])
    bare, own = backbones(config, load_backbone)
    named = ("BC", "PAMDP") if controls else ()
    record: dict[str, Json] = {} if permuted is None else {"permuted": str(permuted)}
    return evaluate_policies(policies_of(path, own, bare, permuted), split, judges, config, path, named, grader, record)


def judge_eval(pairs: str, name: str, skip_bad: bool) -> Result:
    """`pamdp judge eval`."""
    named = SAMPLE_PAIRS.get(pairs)
    found = load_pairs(pairs, skip_bad=skip_bad) if named is None else load_sample_pairs(named)
    judge = JUDGES[name](load_backbone)
    with Progress("judging", 3 * len(found.pairs)) as bar:
        report_ = evaluate_judge(judge, found.pairs, bar.advance)
    return Result(json.dumps(report_.to_json() | {"skipped": len(found.skipped)}), [report_.table()])


def judge_train(out: Path, epochs: int) -> Result:
    """`pamdp judge train`: an hour's work, not begun where its end could not be written or would delete something."""
    require_replaceable(out, FILES)
    backbone, dialogues = load_backbone(), load_sample("train").dialogues
    cloned = load_policy(shipped(), backbone)
    models = [
        drawn_replies(cloned, dialogues, Config()),
        drawn_replies(Policy(backbone, None, None, cloned.readout), dialogues, load(Config, (), ["rl.samples=1"])),
    ]
    match, likelihood, sense, temperature = train_judges(
        backbone, load_sample_pairs("train").pairs, dialogues, models, epochs=epochs
    )
    save_judges(out, match, likelihood, sense, temperature)
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
    load_plugins(methods)
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
    bare, own = backbones(config, load_backbone)
    policy = load_policy(folder, own)
    v_max = max_value(R_MAX, config.rl.gamma, config.rl.horizon)
    profiler = Profiler(LocalChat(bare), Asking(max_tokens=80, attempts=2))
    talk(policy, load_critics(folder, policy.width, v_max), show, config.rl.max_reply, profiler=profiler)


def _split(config: DataConfig) -> Split:
    """The dialogues, with a word on those that are not among them."""
    split = load_split(config)
    tell_skipped(split)
    return split


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

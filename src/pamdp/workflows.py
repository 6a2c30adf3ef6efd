"""What several verbs share: results, data, runs, policies of a run, evaluation.

Owns building these from settings and folders. Knows nothing of options and printing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from rich.console import RenderableType

from pamdp import ranks
from pamdp.calls_config import JudgeConfig
from pamdp.config import MAY_CHANGE, Config, EngineConfig, ModelConfig
from pamdp.data.check import without_persona
from pamdp.engines.vllm import require_engine, use_engine
from pamdp.evaluation.offline_eval import action_controls, evaluate, write_replies
from pamdp.evaluation.reading_tables import reading_tables, terminal, to_json
from pamdp.evaluation.readings import Readings, judgements_of, require_same_replies
from pamdp.evaluation.records import Control
from pamdp.evaluation.report import CAUTION, write_report
from pamdp.evaluation.success import compare
from pamdp.evaluation.tables import TidyTable, flat, measured, success_table, to_table
from pamdp.files import Json, new_folder, write_json
from pamdp.fingerprint import Fingerprint
from pamdp.judges.base import Judge, in_role
from pamdp.judges.graders import Graders, require_fitting
from pamdp.launch import Launcher, Local
from pamdp.models.backbone import Backbone
from pamdp.models.policy import Policy
from pamdp.progress import note
from pamdp.runs import Follower, Run
from pamdp.train.factory import Split, load_policy, load_split, require_learnable, with_planner
from pamdp.train.policy_metadata import read_metadata
from pamdp.train.positions import fitting
from pamdp.train.site import Site
from pamdp.types import Dialogue, PreferencePair


@dataclass(frozen=True, slots=True)
class Result:
    """What a verb has to say: one JSON document, and tables and lines that say the same."""

    json: str
    shown: Sequence[RenderableType] = ()


def backbones(
    config: Config, load: Callable[[ModelConfig], Backbone], engine: EngineConfig = EngineConfig()
) -> tuple[Backbone, Backbone]:
    """The bare backbone, for Vanilla and the judges, and the one that the policy is loaded on.

    They are one and the same unless cloning changed every weight: then only a second copy is still the plain model.
    ENGINE writes their replies; as where they compute, it is what is asked for now, and never what was stored.
    """
    require_learnable(config)
    config = config.model_copy(update={"engine": engine})
    require_engine(config)
    bare = use_engine(load(config.model), config)
    return bare, load(config.model) if config.clone.backbone == "full" else bare


def require_reward(config: Config, start: Path) -> None:
    """Refuse a judge that cannot reward the policy in START, before anything is loaded; see `require_fitting`."""
    about = read_metadata(start)
    require_fitting([config.judge], about.base_model, about.revision)


def policies_of(path: Path, own: Backbone, bare: Backbone, permuted: Path | None = None) -> dict[str, Policy]:
    """Vanilla on the BARE backbone; BC and what a run has trained from it, if anything (PAMDP), on the policy's OWN.

    Args:
      permuted: the run that was trained from the same clone on permuted advantages.
    """
    cloned = load_policy(path / "policy", own)
    out = {"Vanilla": Policy(bare, readout=cloned.readout), "BC": cloned}
    trained = {"PAMDP": path / "trained"} | ({} if permuted is None else {"Permuted": permuted / "trained"})
    for name, folder in trained.items():
        if folder.is_dir():
            out[name] = with_planner(cloned, folder / "planner.safetensors")
    return out


def evaluate_policies(
    policies: dict[str, Policy],
    split: Split,
    judges: Sequence[str],
    config: Config,
    path: Path,
    controls: Sequence[str] = (),
    judge: JudgeConfig = JudgeConfig(),
    record: Mapping[str, Json] = MappingProxyType({}),
    readings: Readings | None = None,
    launcher: Launcher[Site] | None = None,
) -> Result:
    """Replies, judgements, controls of the methods named in CONTROLS, report.

    Args:
      policies: the first is Vanilla; its backbone, which nothing has changed, serves the judges too.
      judges: names of registered judges, and of language models, which are reached as JUDGE says.
      record: what else to note of this evaluation beside who graded.
      readings: of these replies, by blind readers, who then are a judge more.
      launcher: who replies and judges; None: this process.
    """
    first = next(iter(policies.values()))
    backbone, test = first.backbone, fitting(replace(first, config=config), split.test)
    made = Graders(judge, lambda: backbone, Path(config.cache) if config.cache else None)
    graders = [made.judge(name) for name in judges]
    for name in judges:
        made.check(name)
    launcher = launcher or Local(Site(first, backbone, judges={judge.name: judge for judge in graders}))
    replies = {
        name: write_replies(policy, test, config.rl, what=name, launcher=launcher) for name, policy in policies.items()
    }
    if readings is not None:
        require_same_replies(readings, replies)
    pairs = [(name, base) for name in policies for base in ("Vanilla", "BC") if name not in (base, "Vanilla")]
    rows = []
    for name in controls:
        if name in policies:
            rows += action_controls(policies[name], test, graders, config.rl, replies[name], name)
    judgements = evaluate(
        replies, pairs, test, graders, rows, path, judgements_of(readings) if readings else (), launcher
    )
    read = reading_tables(readings, judgements) if readings else {}
    said: dict[str, Json] = {**record, **({"readers": readings.read_by} if readings else {})}
    write_json(path / "evaluation.json", {**said, "judges": [in_role(judge, "evaluation") for judge in graders]})
    found = compare(judgements)
    report = str(write_report(path))
    document = {
        "success": flat(success_table(found).records),
        "controls": [asdict(row) for row in rows],
        "report": report,
        **({"readings": to_json(readings, read)} if readings else {}),
    }
    above = terminal(readings, read) if readings else ()
    return Result(json.dumps(document), [*above, to_table(found), *_controls_table(rows), CAUTION, f"report: {report}"])


def _controls_table(rows: Sequence[Control]) -> Sequence[RenderableType]:
    records = [
        {"control": c.name, "measured by": c.judge, "mean": c.estimate, "states": c.n, "result": c.verdict}
        for c in rows
    ]
    title = "Controls: mean per state, 95 % interval over users"
    return TidyTable(records, {"mean": measured}).terminal(title) if rows else []


def fingerprint_of(split: Split, backbone: Backbone, judges: Sequence[Judge] = (), pairs: str = "") -> Fingerprint:
    """What a run is computed from, where JUDGES reward."""
    return Fingerprint(
        data=split.sha256, skipped=split.skipped, repaired=split.repaired, pairs=pairs,
        judges=tuple(in_role(judge, "reward") for judge in judges), **backbone.identity,
    )  # fmt: skip


def split_of(config: Config) -> Split:
    """The dialogues that the settings name, with a word on those that are not among them."""
    return tell_skipped(load_split(config.data))


def tell_skipped(split: Split) -> Split:
    """SPLIT as it is; what of the data is not as it was written, or lacks a person, is said on the error stream."""
    tell_of_data(split.skipped, split.repairs, (*split.train, *split.test))
    return split


def tell_of_data(skipped: int, repairs: Mapping[str, int], items: Sequence[Dialogue | PreferencePair]) -> None:
    """Say on the error stream what of data was left out, merged or mended, and what ITEMS lack."""
    said = [f"{skipped:,} bad records were left out (`pamdp data check PATH --skip-bad` names them)"] * (skipped > 0)
    said += [f"{what}: {count:,}" for what, count in repairs.items()]
    for line in filter(None, ("; ".join(said), without_persona(items))):
        note(f"data: {line}")


def open_run(path: Path, config: Config, fingerprint: Fingerprint, resume: bool, may_change: Sequence[str] = ()) -> Run:
    """A new run, or the interrupted one; MAY_CHANGE names settings that may be others, beside where it computes.

    Several processes have to be about to do the same; the first one writes the run.
    """
    torch.manual_seed(config.seed)
    ranks.require_same("settings, data and model", (config, fingerprint, resume))
    with ranks.agreed():
        if ranks.rank():
            run: Run = Follower(path)
        elif resume and path.exists():
            run = Run.resume(path, config, fingerprint, (*MAY_CHANGE, *may_change))
        else:
            run = Run.create(path, config, fingerprint)
    return run


def kept(run: Path, start: Path) -> Path:
    """Folder of the cloned policy of a run: its own, where it has one already, or that in START."""
    return own if (own := run / "policy").is_dir() else start


def copy_policy(source: Path, target: Path) -> None:
    """Copy a stored policy whole, once; of several processes, the first does, and the others wait for it."""
    with ranks.agreed():
        if target.is_dir() or ranks.rank():
            return
        with new_folder(target) as part:
            for file in source.iterdir():
                (part / file.name).write_bytes(file.read_bytes())

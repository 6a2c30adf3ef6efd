"""`pamdp reproduce table3|fig4|simulator`: plan, or do what is missing, then write the pages.

Owns the order. One run directory serves all three: what one needs and another has computed is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from pamdp.judges.base import in_role
from pamdp.models.backbone import Backbone
from pamdp.models.embedded import load_backbone
from pamdp.models.policy import Policy
from pamdp.reproduce.online.audit import audit_simulator, read_audit, require_audience
from pamdp.reproduce.online.audit_render import to_grid as audit_grid
from pamdp.reproduce.online.audit_render import to_json as audit_json
from pamdp.reproduce.online.audit_render import write_audit
from pamdp.reproduce.online.config import OnlineReproduceConfig
from pamdp.reproduce.online.plan import plan_online
from pamdp.reproduce.online.pretrained import check_given
from pamdp.reproduce.online.render import findings, to_grid, to_json, write_online
from pamdp.reproduce.online.results import read_online
from pamdp.reproduce.online.work import Bench, work
from pamdp.runs import Run
from pamdp.train.env_factory import EnvFactory, make_env_factory, may_change
from pamdp.train.factory import Split, shipped
from pamdp.train.init_from import load_start
from pamdp.train.policy_metadata import read_metadata, require_unseen
from pamdp.train.users import load_users
from pamdp.workflows import Result, backbones, fingerprint_of

Target = Literal["table3", "fig4", "simulator"]
MAY_CHANGE = ("methods", "seeds", "resamples", "trained")
"""Settings that a run may go on with when they are others: what is stored stays right."""


@dataclass(frozen=True, slots=True)
class OnlineTools:
    """Where models come from.

    Attributes:
      load: a backbone by name; each call gives one of its own.
      policy: the cloned policy of a folder, on a backbone.
      world: simulated users and judges.
      say: told what is done next.
    """

    load: Callable[[str], Backbone]
    policy: Callable[[OnlineReproduceConfig, Backbone], Policy]
    world: Callable[[OnlineReproduceConfig, Backbone], EnvFactory]
    say: Callable[[str], None]


def online_tools() -> OnlineTools:
    """Models from disk, servers from the settings."""
    console = Console(stderr=True)
    say: Callable[[str], None] = console.print

    def world(config: OnlineReproduceConfig, backbone: Backbone) -> EnvFactory:
        return make_env_factory(config.of_evaluation(config.seeds[0]), backbone, second=config.second)

    def policy(config: OnlineReproduceConfig, backbone: Backbone) -> Policy:
        start = _start(config)
        require_unseen(split_online(config).test, [start])
        return load_start(start, backbone, config.of_run(config.seeds[0]))

    return OnlineTools(load_backbone, policy, world, say)


def methods_of(config: OnlineReproduceConfig, target: Target) -> tuple[str, ...]:
    """The methods that a page needs: the audit looks at the users of Vanilla's dialogues."""
    return ("Vanilla",) if target == "simulator" else config.methods


def dry_run_online(config: OnlineReproduceConfig, target: Target) -> Result:
    """What it would cost; nothing is written."""
    found = plan_online(config, target, methods_of(config, target))
    return Result(found.to_json(), [found.grid(), found.data])


def with_start(config: OnlineReproduceConfig) -> OnlineReproduceConfig:
    """The settings with model, cloning and, where none is asked for, σ as in the run that all methods start from.

    Raises:
      RunError: there is no such run.
    """
    cloned = read_metadata(_start(config)).config
    sigma = config.rl.sigma if "sigma" in config.rl.model_fields_set else cloned.rl.sigma
    rl = config.rl.model_copy(update={"sigma": sigma})
    return config.model_copy(update={"model": cloned.model, "clone": cloned.clone, "rl": rl})


def reproduce_online(config: OnlineReproduceConfig, target: Target, path: Path, tools: OnlineTools) -> Result:
    """Train, play, grade or audit what is missing, then write the page.

    Raises:
      EndpointError: a model cannot be reached; the same command goes on.
    """
    split = split_online(config)
    if target == "simulator":
        require_audience(config, split.test)
    bare, own = backbones(config.of_run(config.seeds[0]), tools.load)
    world = tools.world(config, bare)
    cloned = tools.policy(config, own)
    check_given(config, path, methods_of(config, target), split, cloned, world)
    with _open(config, path, split, bare, world):
        bench = Bench(config, path, bare, cloned, split, world, tools.say)
        work(bench, methods_of(config, target))
        if target == "simulator":
            audit_simulator(bench)
    return render_online(config, target, path)


def render_online(config: OnlineReproduceConfig, target: Target, path: Path) -> Result:
    """Write the page from what is stored: the same bytes every time."""
    if target == "simulator":
        found = read_audit(config, path, split_online(config).test)
        files = write_audit(found, path / target)
        body, shown = audit_json(found), [audit_grid(found)]
        said = list[str]()
    else:
        results = read_online(config, path)
        files = write_online(results, target, path / target)
        body, shown, said = to_json(results, target), [to_grid(results, target)], findings(results)
    document = {"run": str(path), "files": [str(file) for file in files], **body}
    return Result(json.dumps(document, allow_nan=False), [*shown, *said, *(f"written: {file}" for file in files)])


def stored_online_config(path: Path) -> OnlineReproduceConfig:
    """The settings that a run was made with.

    Raises:
      RunError: there is no such run.
    """
    return Run(path).config(OnlineReproduceConfig)


def split_online(config: OnlineReproduceConfig) -> Split:
    """Users that teach and users that evaluate."""
    return load_users(config.of_run(config.seeds[0]), config.train_users, config.test_users)


def _start(config: OnlineReproduceConfig) -> Path:
    return shipped() if config.start == "shipped" else Path(config.start) / "policy"


def _open(config: OnlineReproduceConfig, path: Path, split: Split, backbone: Backbone, world: EnvFactory) -> Run:
    assert world.second is not None
    judges = (*world.fingerprints(split.test), in_role(world.second, "evaluation"))
    fingerprint = fingerprint_of(split, backbone).model_copy(update={"judges": judges})
    if path.exists():
        return Run.resume(path, config, fingerprint, (*MAY_CHANGE, *may_change(["second"])))
    return Run.create(path, config, fingerprint)

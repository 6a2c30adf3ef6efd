"""`pamdp train bc|offline|online`: cloning, then reinforcement; `pamdp estimate`: what reinforcement will call.

A run of reinforcement begins with a copy of the cloned policy, so that it is whole by itself.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import RenderableType

from pamdp.cli.options import From, Json, Overrides, Plugins, Resume, RunDir, Sources, show
from pamdp.config import Config
from pamdp.errors import ModelError
from pamdp.launcher_config import require_local
from pamdp.settings import load

if TYPE_CHECKING:
    from pamdp.llm.ledger import Ledger

app = typer.Typer()
train = typer.Typer(name="train", no_args_is_help=True, help="Clone, then reinforce.")
app.add_typer(train)


@train.command()
def bc(
    *,
    run: RunDir,
    config: Sources,
    plugin: Plugins,
    resume: Resume = False,
    as_json: Json = False,
    overrides: Overrides,
) -> None:
    """Behaviour cloning (eq. 17).

    Example: `pamdp train bc --run runs/clone clone.epochs=2 data.path=my.jsonl`
    """
    from pamdp.engines.vllm import require_engine, use_engine
    from pamdp.models.embedded import cache_dir, load_backbone
    from pamdp.models.features import FeatureStore
    from pamdp.train.clone import clone
    from pamdp.train.factory import load_clone_pairs, new_policy, require_learnable
    from pamdp.workflows import fingerprint_of, open_run, split_of, tell_of_data

    settings = load(Config, config, overrides)
    require_local(settings.launcher, "cloning")
    require_learnable(settings)
    require_engine(settings)
    backbone = use_engine(load_backbone(settings.model), settings)
    split = split_of(settings)
    pairs = load_clone_pairs(settings)
    tell_of_data(len(pairs.skipped), pairs.repaired, pairs.pairs)
    with open_run(run, settings, fingerprint_of(split, backbone, pairs=pairs.sha256), resume) as writing:
        store = FeatureStore(cache_dir() / "features")
        clone(new_policy(backbone, settings), split.train, split.test, settings, writing, pairs.pairs, store)
        last = writing.metrics()[-1]
    show(as_json, {"run": str(run), **last}, f"cloned into {run}; next: pamdp train offline --run runs/rl --from {run}")


@train.command()
def offline(
    *,
    run: RunDir,
    source: From = "shipped",
    judge: Annotated[
        str | None, typer.Option(help="Judge that rewards, by name, in place of the setting judge.model.")
    ] = None,
    config: Sources,
    plugin: Plugins,
    resume: Resume = False,
    as_json: Json = False,
    overrides: Overrides,
) -> None:
    """Offline reinforcement learning (eqs. 6, 9, 12, 14) from a cloned policy.

    On an export of `pamdp feedback export`, users' rewards take the place of the judge's.

    Example: `pamdp train offline --run runs/rl --from runs/clone rl.advantage=a2c`
    """
    from pamdp.judges.graders import named
    from pamdp.llm.ledger import Ledger
    from pamdp.models.embedded import load_backbone
    from pamdp.sites import Sent, launched, offline_site
    from pamdp.train import feedback
    from pamdp.train import offline as loop
    from pamdp.train.env_factory import NAMED, make_rewards, may_change
    from pamdp.train.factory import rated_part
    from pamdp.train.init_from import load_start, policy_folder, settings_from
    from pamdp.train.policy_metadata import require_unseen
    from pamdp.workflows import backbones, copy_policy, fingerprint_of, kept, open_run, require_reward, split_of

    start = policy_folder(source)
    settings = settings_from(start, config, overrides)
    settings = settings if judge is None else settings.model_copy(update={"judge": named(settings.judge, judge)})
    split = split_of(settings)
    rated = rated_part(settings.data, split)
    require_unseen(split.test, [start])
    if rated:
        settings = feedback.with_clip(settings)
        require_local(settings.launcher, "learning from users' feedback")
    else:
        require_reward(settings, start)
    with launched(settings.launcher, offline_site, partial(Sent.of, settings, kept(run, start), plugin)) as launcher:
        bare, own = backbones(settings, load_backbone, settings.engine)
        rewards, ledger = (None, Ledger()) if rated else make_rewards(settings, lambda: bare)
        judges = [] if rewards is None else [rewards]
        if launcher is not None:
            launcher.ledger = ledger
        with open_run(run, settings, fingerprint_of(split, bare, judges), resume, (*may_change(), *NAMED)) as writing:
            copy_policy(start, run / "policy")
            cloned = load_start(run / "policy", own, settings)
            if rated:
                feedback.learn(cloned, rated, settings, writing)
            else:
                loop.offline(
                    cloned, split.train, judges[0], settings, writing, bare=bare, ledger=ledger, launcher=launcher
                )
            last = writing.metrics()[-1]
    said = (f"trained into {run}; next: pamdp eval {run} --controls", *_costs(ledger))
    show(as_json, {"run": str(run), "costs": ledger.to_json(), **last}, *said)


@train.command()
def online(
    *,
    run: RunDir,
    source: From = "shipped",
    config: Sources,
    plugin: Plugins,
    resume: Resume = False,
    as_json: Json = False,
    overrides: Overrides,
) -> None:
    """Online reinforcement learning (section 4.2) from a cloned policy, by talking with simulated users.

    Example: `pamdp train online --run runs/online online.rounds=4 rl.horizon=4`
    """
    from pamdp.models.embedded import load_backbone
    from pamdp.sites import Sent, launched, online_site
    from pamdp.train import online as loop
    from pamdp.train.env_factory import make_env_factory, may_change
    from pamdp.train.init_from import load_start, policy_folder, settings_from
    from pamdp.train.policy_metadata import require_unseen
    from pamdp.train.users import load_users
    from pamdp.workflows import backbones, copy_policy, fingerprint_of, kept, open_run, require_reward, tell_skipped

    start = policy_folder(source)
    settings = settings_from(start, config, overrides)
    split = tell_skipped(load_users(settings))
    require_unseen(split.test, [start])
    require_reward(settings, start)
    sent = partial(Sent.of, settings, kept(run, start), plugin)
    with launched(settings.launcher, online_site, sent, None) as launcher:
        bare, own = backbones(settings, load_backbone, settings.engine)
        world = make_env_factory(settings, bare)
        if launcher is not None:
            launcher.ledger = world.ledger
        fingerprint = fingerprint_of(split, bare).model_copy(update={"judges": world.fingerprints(split.train)})
        with open_run(run, settings, fingerprint, resume, may_change()) as writing:
            copy_policy(start, run / "policy")
            cloned = load_start(run / "policy", own, settings)
            loop.online(cloned, split.train, world, settings, writing, bare, launcher)
            last = writing.metrics()[-1]
    show(
        as_json,
        {"run": str(run), "costs": world.ledger.to_json(), **last},
        f"trained into {run}",
        *_costs(world.ledger),
    )


def _costs(ledger: Ledger) -> list[RenderableType]:
    """A table of what was called, if anything."""
    from pamdp.evaluation.tables import TidyTable

    costs = [{"role": role, **asdict(entry)} for role, entry in ledger.entries.items()]
    return [*TidyTable(costs, {"money": "{:.2f}".format}).terminal("What was called")] if costs else []


@app.command()
def estimate(
    *,
    of: Annotated[Literal["online", "offline"], typer.Option(help="What is to be trained.")] = "online",
    source: Annotated[
        str | None, typer.Option("--from", help="Run that was cloned, or `shipped`, whose settings come first.")
    ] = None,
    config: Sources,
    plugin: Plugins,
    as_json: Json = False,
    overrides: Overrides,
) -> None:
    """What training with these settings will call and cost, and what memory its model takes, before it runs.

    Example: `pamdp estimate --of offline judge.kind=openai judge.model=some-model`
    """
    from pamdp.evaluation.tables import TidyTable
    from pamdp.llm.stack import HERE
    from pamdp.models.place import place_of
    from pamdp.train import estimate as costs
    from pamdp.train.factory import load_split
    from pamdp.train.init_from import policy_folder, settings_from
    from pamdp.train.memory import memory_of
    from pamdp.train.users import load_users

    settings = settings_from(policy_folder(source), config, overrides) if source else load(Config, config, overrides)
    if of == "online":
        dialogues = load_users(settings).train
        rows = costs.estimate(settings, dialogues)
    else:
        dialogues = load_split(settings.data).train
        rows = costs.estimate_offline(settings, dialogues)
    shown = []
    for row in rows:
        money = "local" if row.kind in HERE else "no price" if row.money is None else f"{row.money:.2f}"
        shown.append(asdict(row) | {"money": money})
    title = f"What `train {of}` will call; answers at their longest, without retries and cache"
    counts = dict.fromkeys(("calls", "prompt_tokens", "completion_tokens"), "{:,}".format)
    known = [row.money for row in rows if row.money is not None]
    document: dict[str, object] = {
        "roles": [asdict(row) for row in rows], "money": sum(known) if len(known) == len(rows) else None,
    }  # fmt: skip
    tables: list[RenderableType] = [f"`train {of}` calls no model"]
    if rows:
        tables = [*TidyTable(shown, {"kind": None, **counts}).terminal(title)]
    place = place_of(settings.model)
    try:
        found = memory_of(settings, dialogues, place)
    except ModelError as error:  # what is called costs the same
        document |= {"memory": [], "model": str(error)}
        tables.append(f"memory: {error}")
    else:
        document["memory"] = [asdict(row) | {"total_gb": row.total_gb} for row in found]
        sizes = dict.fromkeys(("weights_gb", "learned_gb", "cache_gb", "passes_gb", "total_gb"), "{:,.2f}".format)
        title = f"Memory of {settings.model.name} in GB, about; {place.why}"
        whole = [asdict(row) | {"total_gb": row.total_gb} for row in found]
        tables += TidyTable(whole, sizes | dict.fromkeys(("parameters", "tokens"), "{:,}".format)).terminal(title)
    show(as_json, document, *tables)

"""What people import: load, clone, reinforce, evaluate; the command line calls the same functions of lower layers.

Owns how objects in memory (policies, dialogues, judges) become runs and results. Objects are returned new: training
changes none of its arguments. Heavy libraries are loaded when a function is called first.
"""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import tomli_w
from rich.console import Console

from pamdp import ranks
from pamdp.calls_config import JudgeConfig
from pamdp.config import Config, DataConfig, require_hf
from pamdp.errors import ConfigError
from pamdp.evaluation.offline_eval import judge_methods, write_replies
from pamdp.evaluation.records import Judgement
from pamdp.evaluation.success import SuccessRate, compare
from pamdp.evaluation.tables import to_table
from pamdp.fingerprint import Fingerprint
from pamdp.judges.base import Judge
from pamdp.judges.from_readings import REWARD, SECOND
from pamdp.judges.graders import Graders, named
from pamdp.launcher_config import require_local
from pamdp.llm.ledger import Ledger
from pamdp.models.backbone import Backbone
from pamdp.models.embedded import load_backbone
from pamdp.models.policy import Policy
from pamdp.models.recorded import Replies
from pamdp.place_config import PlaceConfig
from pamdp.runs import Run
from pamdp.settings import load as load_settings
from pamdp.train import clone as cloning
from pamdp.train.env_factory import NAMED, make_rewards, may_change
from pamdp.train.factory import Split, load_policy, new_policy
from pamdp.train.init_from import combined, latest_policy, placed, starting
from pamdp.train.offline import offline
from pamdp.train.policy_metadata import read_metadata, require_unseen_by
from pamdp.train.positions import fitting
from pamdp.types import Dialogue, PreferencePair
from pamdp.workflows import fingerprint_of, open_run

VANILLA = "Vanilla"
"""Name of the plain backbone in every comparison."""
IN_MEMORY = DataConfig(path="dialogues given in Python")


def load(source: str | Path = "shipped", backbone: Backbone | None = None) -> Policy:
    """A trained policy, ready to reply.

    Args:
      source: a run directory (what it reinforced or, where it has not yet, what it cloned), the folder of a stored
        policy, or "shipped" for the one that comes with the package.
      backbone: the language model that the policy was trained on, to share it; None: it is loaded, on the CPU. A
        policy that was cloned with all weights changes those of its backbone: give it one of its own.

    Returns:
      The policy; `policy.backbone` is the plain language model beside it, unless all weights were cloned.

    Raises:
      RunError: no policy is stored there, it is damaged, or it belongs to another backbone.
      ModelError: the language model is not there; the message says which command brings it.
    """
    folder = latest_policy(source)
    if backbone is None:
        backbone = load_backbone(placed(read_metadata(folder).config.model, PlaceConfig(device="cpu")))
    return load_policy(folder, backbone)


def clone(
    backbone: Backbone,
    dialogues: Sequence[Dialogue],
    *,
    run: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    pairs: Sequence[PreferencePair] = (),
    held_out: Sequence[Dialogue] | None = None,
    resume: bool = False,
) -> Policy:
    """Behaviour cloning (eq. 17): a policy that writes the dialogues' preferred replies.

    Args:
      backbone: stays as it is; the policy gets an adapter of its own on it (or, with `clone.backbone=full`, a copy).
      dialogues: records with preferred replies; rejected ones, where there are some, give actions a direction.
      run: directory for checkpoints, logs and the policy; None: nothing is kept on disk.
      settings: dotted settings (`pamdp config` prints all), such as {"clone.epochs": 1, "seed": 2}.
      pairs: preference pairs whose replies teach what actions mean, beside those of the dialogues.
      held_out: dialogues whose likelihood is logged at the end; None: two of the training dialogues.
      resume: continue an interrupted run.

    Raises:
      ConfigError: a setting is unknown or wrong.
      DataError: no dialogue has a preferred reply.
      RunError: the run exists and is not to be resumed, or was started from something else.
    """
    config = _config(settings).model_copy(update={"data": IN_MEMORY})
    if config.clone.backbone == "full":
        backbone = copy.deepcopy(backbone)
    watched = dialogues[:2] if held_out is None else held_out
    with _run(run, config, _fingerprint(dialogues, backbone, pairs=pairs), resume) as opened:
        return cloning.clone(new_policy(backbone, config), dialogues, watched, config, opened, pairs)


def reinforce(
    policy: Policy,
    dialogues: Sequence[Dialogue],
    *,
    judge: str | JudgeConfig | Judge | None = None,
    advantage: str | None = None,
    run: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    bare: Backbone | None = None,
    resume: bool = False,
) -> Policy:
    """Offline reinforcement learning (eqs. 6, 9, 12, 14) of a cloned policy on recorded dialogues.

    Args:
      policy: what was cloned; it stays as it is.
      dialogues: whose histories are replied to.
      judge: who rewards: a name (of a registered judge, or of a language model that is reached as the settings of
        `judge` say), a `JudgeConfig`, or a `Judge`; None: whom the settings name (`judge.model`, "signals").
      advantage: the estimator by its registered name; None: as the settings say (`rl.advantage`, "pamdp").
      run: directory for checkpoints, logs, traces and the policy; None: nothing is kept on disk.
      settings: dotted settings of `rl` and `judge`, such as {"rl.rounds": 2, "judge.base_url": "http://HOST/v1"}.
      bare: the plain backbone, for Vanilla's references and embedded judges, where cloning changed every weight.
      resume: continue an interrupted run.

    Returns:
      A new policy on the same backbone, with the clone's adapter and another actor.

    Raises:
      ConfigError: a setting or a name is unknown, or a setting contradicts what was cloned.
      EndpointError: the judge's server cannot be reached; what is done is saved in RUN.
      JudgeError: the judge failed on every reply of a round.
      ModelError: the judge belongs to another backbone; the message says who can judge.
      RunError: the run exists and is not to be resumed, or was started from something else.
    """
    asked = {**(settings or {}), **({} if advantage is None else {"rl.advantage": advantage})}
    config = combined(_config(asked), policy.config, "the policy").model_copy(update={"data": IN_MEMORY})
    plain, ledger = bare or policy.backbone, Ledger()
    if isinstance(judge, str | JudgeConfig):
        end = named(config.judge, judge) if isinstance(judge, str) else judge
        config, judge = config.model_copy(update={"judge": end}), None
    if judge is None:
        judge, ledger = make_rewards(config, lambda: plain)
    start = starting(policy, config)
    with _run(run, config, _fingerprint(dialogues, plain, judge), resume, (*may_change(), *NAMED)) as opened:
        return offline(start, dialogues, judge, config, opened, bare=bare, ledger=ledger)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Policies on test users, graded by judges; print it for a table.

    Attributes:
      rates: r_w (eq. 15) of every policy against Vanilla, and of every later policy against every earlier one, with
        95 % intervals over users.
      judgements: every verdict, both orders.
      replies: policy -> (dialogue id, turn) -> what it said.
    """

    rates: list[SuccessRate]
    judgements: list[Judgement]
    replies: dict[str, Replies]

    def __str__(self) -> str:
        """The rates as a table of text."""
        console = Console(width=100)
        with console.capture() as captured:
            console.print(to_table(self.rates))
        return captured.get()


def evaluate(
    policies: Mapping[str, Policy],
    dialogues: Sequence[Dialogue],
    *,
    judges: Sequence[str | JudgeConfig | Judge] = (REWARD, SECOND),
    max_reply: int | None = None,
    bare: Backbone | None = None,
) -> Evaluation:
    """Compare policies with the plain backbone and with one another on users that none of them learned from.

    Replies are greedy under the mean action. Judges are models: read replies before you believe a rate, and never let
    the judge that rewarded grade alone.

    Args:
      policies: name -> policy; Vanilla, the plain backbone, is added.
      dialogues: of test users; every turn is a state.
      judges: registered names, a `JudgeConfig`, or `Judge` objects; each grades in both orders.
      max_reply: longest reply in tokens, the same for all; None: `rl.max_reply` of the first policy.
      bare: the plain backbone, where every policy was cloned with all weights.

    Raises:
      ConfigError: there is nothing to compare, a name is "Vanilla", the plain backbone is missing, or there are several
        processes.
      RunError: a policy learned from some of these users.
    """
    ranks.require_one("pamdp.evaluate")
    if not policies or VANILLA in policies:
        raise ConfigError(f"evaluate takes one or more policies, none of them called {VANILLA}, which is added")
    require_unseen_by(dialogues, {name: policy.users for name, policy in policies.items()})
    first = next(iter(policies.values()))
    plain = bare or next((p.backbone for p in policies.values() if p.config.clone.backbone != "full"), None)
    if plain is None:
        raise ConfigError("all weights of these policies were cloned; give `bare`, the plain backbone, for Vanilla")
    dialogues = fitting(first, dialogues)
    graders = [_grader(judge, plain) for judge in judges]
    rl = first.config.rl.model_copy(update={} if max_reply is None else {"max_reply": max_reply})
    every = {VANILLA: Policy(plain, readout=first.readout), **policies}
    replies = {name: write_replies(policy, dialogues, rl, what=name) for name, policy in every.items()}
    names = list(every)
    pairs = [(later, earlier) for i, later in enumerate(names) for earlier in names[:i]]
    judgements = judge_methods(replies, pairs, dialogues, graders)
    return Evaluation(compare(judgements), judgements, replies)


def _grader(judge: str | JudgeConfig | Judge, backbone: Backbone) -> Judge:
    if isinstance(judge, str):
        judge = JudgeConfig(model=judge)
    return Graders(judge, lambda: backbone).judge(judge.model) if isinstance(judge, JudgeConfig) else judge


def _config(settings: Mapping[str, object] | None) -> Config:
    def text(value: object) -> str:
        return "none" if value is None else tomli_w.dumps({"value": value}).strip().removeprefix("value = ")

    config = load_settings(Config, (), [f"{key}={text(value)}" for key, value in (settings or {}).items()])
    require_local(config.launcher, "what is called from Python")
    require_hf(config.engine, "what is called from Python (but see pamdp.engines.vllm.use_engine)")
    return config


def _fingerprint(
    dialogues: Sequence[Dialogue],
    backbone: Backbone,
    judge: Judge | None = None,
    pairs: Sequence[PreferencePair] = (),
) -> Fingerprint:
    def digest(items: Sequence[Dialogue] | Sequence[PreferencePair]) -> str:
        return hashlib.sha256(json.dumps([asdict(item) for item in items]).encode()).hexdigest()

    split, judges = Split(tuple(dialogues), (), digest(dialogues)), () if judge is None else (judge,)
    return fingerprint_of(split, backbone, judges, digest(pairs) if pairs else "")


@contextmanager
def _run(
    path: str | Path | None, config: Config, fingerprint: Fingerprint, resume: bool, may_change: Sequence[str] = ()
) -> Iterator[Run]:
    """The run at PATH, or one that is forgotten."""
    with ExitStack() as stack:
        if path is None:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pamdp-"))) / "run"
        yield stack.enter_context(open_run(Path(path), config, fingerprint, resume, may_change))

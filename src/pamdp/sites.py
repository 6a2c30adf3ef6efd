"""From settings to who does the work: nobody but this process, or workers who build what it has from the same settings.

Owns what a worker is sent (settings, the cloned policy's files, plugins) and what it makes of that. Judges' weights,
models by path and plugins must be on its disk. Knows nothing of loops.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from pamdp import ranks
from pamdp.calls_config import JudgeConfig
from pamdp.config import Config
from pamdp.judges.graders import Graders
from pamdp.launcher_config import LauncherConfig
from pamdp.llm.limits import Limiter
from pamdp.models.backbone import Backbone
from pamdp.models.embedded import load_backbone
from pamdp.models.place import place_of
from pamdp.models.policy import Policy
from pamdp.ray_launcher import RayLauncher
from pamdp.registry import load_plugins
from pamdp.train.env_factory import make_env_factory, make_rewards
from pamdp.train.init_from import load_start
from pamdp.train.offline import REWARD
from pamdp.train.site import Site
from pamdp.workflows import backbones


@dataclass(frozen=True, slots=True)
class Sent:
    """What a worker needs to know.

    Attributes:
      config: the settings of the run.
      policy: the cloned policy's files, by name: workers need not share a disk.
      plugins: files that are read first.
    """

    config: Config
    policy: Mapping[str, bytes]
    plugins: Sequence[Path] = ()

    @classmethod
    def of(cls, config: Config, folder: Path, plugins: Sequence[Path] = ()) -> Sent:
        """The settings, with the policy in FOLDER; what stands for something else elsewhere is said outright."""
        model, judge = config.model, config.judge
        kind = str(place_of(model).dtype).removeprefix("torch.")  # `auto` would depend on the worker's machine
        name = str(Path(model.name).absolute()) if Path(model.name).is_dir() else model.name
        said = {
            "model": model.model_copy(update={"dtype": kind, "name": name}),
            "judge": judge.model_copy(update={"weights": judge.weights and str(Path(judge.weights).absolute())}),
            "cache": config.cache and str(Path(config.cache).absolute()),
        }
        files = {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()}
        return cls(config.model_copy(update=said), files, [file.absolute() for file in plugins])

    def load(self) -> tuple[Backbone, Policy]:
        """The bare backbone, and the policy."""
        load_plugins(self.plugins)
        bare, own = backbones(self.config, load_backbone, self.config.engine)
        with TemporaryDirectory() as folder:
            for name, content in self.policy.items():
                (Path(folder) / name).write_bytes(content)
            return bare, load_start(Path(folder), own, self.config)


def offline_site(sent: Sent, limiter: Limiter) -> Site:
    """Where replies to records are written and rewarded."""
    bare, policy = sent.load()
    judge, ledger = make_rewards(sent.config, lambda: bare, limiter)
    return Site(policy, bare, ledger, judges={REWARD: judge})


def online_site(sent: Sent, second: JudgeConfig | None, limiter: Limiter) -> Site:
    """Where users are talked with; SECOND is the judge who only grades, if any."""
    bare, policy = sent.load()
    world = make_env_factory(sent.config, bare, second, limiter)
    judges = {sent.config.judge.model: world.judge}
    if second is not None and world.second is not None:
        judges[second.model] = world.second
    return Site(policy, bare, world.ledger, world, judges)


def evaluation_site(sent: Sent, judge: JudgeConfig, names: Sequence[str], limiter: Limiter) -> Site:
    """Where policies reply to records, and judges of those NAMES, reached as JUDGE says, compare replies."""
    bare, policy = sent.load()
    made = Graders(judge, lambda: bare, Path(sent.config.cache) if sent.config.cache else None, limiter)
    return Site(policy, bare, made.ledger, judges={made.judge(name).name: made.judge(name) for name in names})


def launched(
    config: LauncherConfig, make: Callable[..., Site], sent: Callable[[], Sent], *arguments: object
) -> AbstractContextManager[RayLauncher[Site] | None]:
    """The workers that the settings ask for, each with the site that MAKE gives of what is SENT and ARGUMENTS.

    None: this process; nothing is read for it.
    """
    if config.kind == "local":
        return nullcontext()
    ranks.require_one("launcher.kind=ray")
    return RayLauncher(config, partial(make, sent(), *arguments))

"""What can be named: advantages, judges, users, chat models, data layouts and methods, one register for each kind.

Owns names and how a plugin adds to them: by decorator, by a file (`--plugin FILE.py`) or by an installed package's
entry points (group `pamdp.plugins`). Knows nothing of what is registered. The modules of the package's own parts are
read when a part is asked for, so that settings know every name without loading a model library.
"""

from __future__ import annotations

import difflib
import importlib
import runpy
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pamdp.errors import ConfigError

if TYPE_CHECKING:  # for the readers of types only: nothing above this layer is loaded here
    from pamdp.baselines.method import Method
    from pamdp.calls_config import EndpointConfig
    from pamdp.data.formats import Layout
    from pamdp.env.user import User
    from pamdp.judges.base import Judge
    from pamdp.llm.chat import ChatModel
    from pamdp.models.backbone import Backbone
    from pamdp.rl.advantages import Advantage
    from pamdp.types import Dialogue

GROUP = "pamdp.plugins"
"""Entry points of this group are loaded when a name is not among the package's own."""

T = TypeVar("T")
_loaded: set[str] = set()


class Registry(Generic[T]):
    """Parts of one kind by name.

    Args:
      what: the kind, in the singular, for messages.
      own: names of the package's own parts, each with the module that registers it when it is read.
    """

    def __init__(self, what: str, own: Mapping[str, str]) -> None:
        self.what, self._own, self._parts = what, dict(own), dict[str, T]()

    def __repr__(self) -> str:
        """In signatures that the API page shows: without an address of memory."""
        return f"Registry({self.what!r})"

    def add(self, name: str, part: T) -> T:
        """Register PART under NAME; one of the same name is replaced, so that a file may be read twice."""
        if not name or name != name.strip():
            raise ConfigError(f"{self.what} {name!r}: give it a name without blanks around it")
        self._parts[name] = part
        return part

    def __call__(self, name: str) -> Callable[[T], T]:
        """The decorator that registers what it stands on under NAME."""
        return lambda part: self.add(name, part)

    def __getitem__(self, name: str) -> T:
        """The part of that name; raises as `require`."""
        self.require(name)
        if name not in self._parts:
            importlib.import_module(self._own[name])
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        if name not in self._own and name not in self._parts:
            load_entry_points()
        return name in self._own or name in self._parts

    def __iter__(self) -> Iterator[str]:
        load_entry_points()
        return iter(dict.fromkeys([*self._own, *self._parts]))

    def require(self, name: str) -> str:
        """NAME, if it is known; else a ConfigError that lists what there is."""
        if name in self:
            return name
        names = list(self)
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"no {self.what} {name!r}; {hint}there are: {', '.join(names)}; --plugin FILE.py brings others"
        )


def load_plugins(files: Sequence[Path]) -> None:
    """Read Python files that register parts, each once; a ConfigError where one is missing."""
    for file in files:
        if not file.is_file():
            raise ConfigError(f"--plugin {file}: no such file; give a Python file that registers something")
        if (name := str(file.resolve())) not in _loaded:
            _loaded.add(name)
            runpy.run_path(name)


def load_entry_points() -> None:
    """Read the entry points `pamdp.plugins` of installed packages, once; a ConfigError where one cannot be loaded."""
    if GROUP in _loaded:
        return
    _loaded.add(GROUP)
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            raise ConfigError(f"the plugin {point.value} cannot be loaded: {error}; mend or uninstall it") from error


def _own(module: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, module)


ADVANTAGES: Registry[Advantage] = Registry(
    "advantage", _own("pamdp.rl.advantages", "a2c", "uaac", "dcrl", "pamdp", "odc", "odc_safe")
)
METHODS: Registry[Method] = Registry(
    "method",
    _own("pamdp.baselines.prompt", "Vanilla", "Prompt")
    | _own("pamdp.baselines.peft", "PEFT")
    | _own("pamdp.baselines.sft", "FPFT", "CoT")
    | _own("pamdp.baselines.latent", "BC", "RL-base", "UAAC", "DCRL", "PAMDP", "ODC")
    | _own("pamdp.baselines.preference", "DPO")
    | _own("pamdp.baselines.grpo", "GRPO"),
)
LAYOUTS: Registry[Layout] = Registry(
    "layout",
    _own("pamdp.data.formats", "aloe", "feedback", "jsonl", "prefeval", "spc", "trl", "pairs", "personas", "readings")
    | _own("pamdp.data.formats", "prefeval-mcq", "messages", "sharegpt", "alpaca"),
)
CHAT_MODELS: Registry[Callable[[EndpointConfig], ChatModel]] = Registry(
    "kind of chat model", _own("pamdp.llm.local", "embedded", "local") | _own("pamdp.llm.openai", "openai")
)
"""Kind -> what makes the model that an endpoint's settings describe; limits, retries and cache are llm/stack.py's."""
JUDGES: Registry[Callable[[Callable[[], Backbone]], Judge]] = Registry(
    "judge",
    _own("pamdp.judges.from_readings", "reward-model", "signals")
    | _own("pamdp.judges.read", "readings")
    | _own("pamdp.judges.embedded", "embedded", "match+sense", "match", "likelihood", "sense")
    | _own("pamdp.judges.likelihood", "likelihood-ratio"),
)
"""Name -> what makes the judge; it is given who brings the backbone, and need not ask for it."""
USERS: Registry[Callable[[Dialogue, int], User]] = Registry(
    "user", _own("pamdp.env.simulated", "simulated") | _own("pamdp.env.user", "recorded")
)
"""Name -> what makes the user of a record; the seed is that of the user's draws."""
REGISTRIES: tuple[Registry[Any], ...] = (ADVANTAGES, METHODS, LAYOUTS, CHAT_MODELS, JUDGES, USERS)
"""All of them, for tools that list what there is."""

"""pamdp: assistants that learn who they are talking to by talking to them.

The names below are the public API (docs/api.md). They are looked up when they are used first, so that `import pamdp`
loads no model library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pamdp.api import Evaluation, clone, evaluate, load, reinforce
    from pamdp.baselines.method import register_method as method
    from pamdp.calls_config import JudgeConfig
    from pamdp.config import Config
    from pamdp.data.formats import register_layout as layout
    from pamdp.data.load import load_dialogues, load_pairs
    from pamdp.env.user import register_user as user
    from pamdp.errors import PamdpError
    from pamdp.judges.base import Case, Verdict
    from pamdp.judges.base import register_judge as judge
    from pamdp.llm.chat import register_chat_model as chat_model
    from pamdp.models.backbone import Backbone
    from pamdp.models.embedded import load_backbone
    from pamdp.models.policy import Policy
    from pamdp.rl.advantages import register_advantage as advantage
    from pamdp.types import Dialogue, Message, Persona, Turn

__version__ = "0.1.0"

_WHERE = {
    "pamdp.api": ("Evaluation", "clone", "evaluate", "layout", "load", "reinforce"),
    "pamdp.calls_config": ("JudgeConfig",),
    "pamdp.config": ("Config",),
    "pamdp.data.load": ("load_dialogues", "load_pairs"),
    "pamdp.errors": ("PamdpError",),
    "pamdp.judges.base": ("Case", "Verdict"),
    "pamdp.models.backbone": ("Backbone",),
    "pamdp.models.embedded": ("load_backbone",),
    "pamdp.models.policy": ("Policy",),
    "pamdp.types": ("Dialogue", "Message", "Persona", "Turn"),
}
_LOOK_UP = {name: (module, name) for module, names in _WHERE.items() for name in names} | {
    "advantage": ("pamdp.rl.advantages", "register_advantage"),
    "chat_model": ("pamdp.llm.chat", "register_chat_model"),
    "judge": ("pamdp.judges.base", "register_judge"),
    "user": ("pamdp.env.user", "register_user"),
    "layout": ("pamdp.data.formats", "register_layout"),
    "method": ("pamdp.baselines.method", "register_method"),
}
__all__ = [
    "Backbone", "Case", "Config", "Dialogue", "Evaluation", "JudgeConfig", "Message", "PamdpError", "Persona", "Policy",
    "Turn", "Verdict", "advantage", "chat_model", "clone", "evaluate", "judge", "layout", "load", "load_backbone",
    "load_dialogues", "load_pairs", "method", "reinforce", "user",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Look a public name up where it is defined."""
    if name not in _LOOK_UP:
        raise AttributeError(f"module 'pamdp' has no attribute {name!r}; public names: {', '.join(__all__)}")
    module, attribute = _LOOK_UP[name]
    found = globals()[name] = getattr(import_module(module), attribute)
    return found


def __dir__() -> list[str]:
    """Public names first of all."""
    return [*__all__, "__version__"]

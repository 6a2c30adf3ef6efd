"""`pamdp chat`: a person talks to a trained assistant in the terminal.

The person is the one user of an environment without a reward. The assistant sees the history and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from pamdp.cli.options import Overrides, Plugins
from pamdp.config import HereConfig
from pamdp.errors import AnswerError
from pamdp.settings import load
from pamdp.types import History, Message

if TYPE_CHECKING:
    from pamdp.env.profile import Profiler
    from pamdp.models.critics import DualCritic
    from pamdp.models.policy import Policy

app = typer.Typer()


@app.command()
def chat(
    *,
    run: Annotated[str, typer.Argument(help="Run directory, or `shipped`.")] = "shipped",
    show: Annotated[
        bool, typer.Option("--show", help="Show V(h), the action and the inferred profile at each turn.")
    ] = False,
    plugin: Plugins,
    overrides: Overrides,
) -> None:
    """Talk to a trained assistant in the terminal; an empty line, Ctrl-D or Ctrl-C ends it.

    Example: `pamdp chat shipped --show`
    """
    from pamdp.env.dialogue import DialogueEnv
    from pamdp.env.profile import Profiler
    from pamdp.env.user import HumanUser
    from pamdp.llm.ask import Asking
    from pamdp.llm.local import LocalChat
    from pamdp.models.embedded import load_backbone
    from pamdp.models.generate import Sampling
    from pamdp.rl.returns import max_value
    from pamdp.rollout import collect
    from pamdp.train.factory import load_critics, load_policy
    from pamdp.train.init_from import latest_policy, placed
    from pamdp.train.policy_metadata import read_metadata
    from pamdp.train.reinforce import R_MAX
    from pamdp.workflows import backbones

    if "=" in run:
        overrides, run = [run, *overrides], "shipped"
    folder, asked = latest_policy(run), load(HereConfig, (), overrides)
    config = read_metadata(folder).config
    config = config.model_copy(update={"model": placed(config.model, asked.model)})
    bare, own = backbones(config, load_backbone)
    policy = load_policy(folder, own)
    critics = load_critics(folder, policy.width, max_value(R_MAX, config.rl.gamma, config.rl.horizon))
    profiler = Profiler(LocalChat(bare), Asking(max_tokens=80, attempts=2))
    console, history = Console(), list[Message]()

    def ask(reply: str | None) -> str:
        if reply is not None:
            console.print("[bold cyan]pamdp[/bold cyan] ", Text(reply), highlight=False)
            for note in notes(policy, critics, profiler, tuple(history)) if show else ():
                console.print(Text(note, "dim"))
            history.append(Message("assistant", reply))
        if not (said := console.input("[bold]you[/bold]  ").strip()):
            raise EOFError
        history.append(Message("user", said))
        return said

    console.print("[dim]Talk; an empty line ends it.[/dim]")
    with suppress(EOFError, KeyboardInterrupt):
        collect(policy, DialogueEnv([HumanUser("you", ask)], None), Sampling(config.rl.max_reply), explore=False)


def notes(policy: Policy, critics: DualCritic | None, profiler: Profiler, history: History) -> Iterator[str]:
    """What a reply to HISTORY came of: V(h) and the action; and what can be told about the user so far, in words."""
    from pamdp.async_bridge import run

    prefix = policy.prefix(policy.fitted(history))
    if (action := policy.mean_action(prefix)) is not None:
        value = "" if critics is None else f"V(h) {float(critics.v_h(policy.features(prefix))):+.2f}, "
        yield f"{value}|a| {float(action.norm()):.2f}, a {', '.join(f'{x:+.1f}' for x in action[:6].tolist())}, ..."
    try:
        with policy.backbone.adapter(None):  # the profiler may share the policy's backbone, which waits meanwhile
            profile = run(profiler.infer(history)).text or "nothing can be told yet"
    except AnswerError:
        profile = "the profiler gave no answer that could be read"
    yield f"profile so far: {profile}"

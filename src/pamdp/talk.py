"""`pamdp chat`: a person talks to a trained assistant in the terminal.

Owns the loop with a human. The assistant sees the history and nothing else.
"""

from __future__ import annotations

import torch
from rich.console import Console
from rich.text import Text

from pamdp.async_bridge import run
from pamdp.env.profile import Profiler
from pamdp.errors import AnswerError
from pamdp.models.critics import DualCritic
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy, Request
from pamdp.types import History, Message


def talk(
    policy: Policy,
    critics: DualCritic | None,
    show: bool,
    max_reply: int,
    console: Console | None = None,
    profiler: Profiler | None = None,
) -> None:
    """Read lines, answer each; an empty line, the end of input or Ctrl-C stops.

    Args:
      show: after each reply also V(h), the action and the inferred profile.
      profiler: infers it; the assistant is not told.
    """
    console = console or Console()
    console.print("[dim]Talk; an empty line ends it.[/dim]")
    history: list[Message] = []
    prefix = None
    while True:
        try:
            said = console.input("[bold]you[/bold]  ").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if not said:
            return
        history.append(Message("user", said))
        with torch.no_grad():
            prefix = policy.prefix(tuple(history), prefix)
        action = policy.mean_action(prefix)
        reply = policy.write([prefix], [Request(0, -1, action)], Sampling(max_reply))[0]
        console.print("[bold cyan]pamdp[/bold cyan] ", Text(reply), highlight=False)
        if show and action is not None:
            note = f"|a| {float(action.norm()):.2f}, a {', '.join(f'{x:+.1f}' for x in action[:6].tolist())}, ..."
            if critics is not None:
                note = f"V(h) {float(critics.v_h(policy.features(prefix)).detach()):+.2f}, {note}"
            console.print(Text(note, "dim"))
        if show and profiler is not None:
            console.print(Text(f"profile so far: {inferred(profiler, policy, tuple(history))}", "dim"))
        history.append(Message("assistant", reply))


def inferred(profiler: Profiler, policy: Policy, history: History) -> str:
    """What can be told about a user from what they wrote, in words."""
    try:
        with policy.backbone.adapter(None):  # the profiler may share the policy's backbone, which waits meanwhile
            found = run(profiler.infer(history))
    except AnswerError:
        return "the profiler gave no answer that could be read"
    return found.text or "nothing can be told yet"

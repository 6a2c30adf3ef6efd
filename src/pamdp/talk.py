"""`pamdp chat`: a person talks to a trained assistant in the terminal.

Owns the loop with a human. The assistant sees the history and nothing else.
"""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console
from rich.text import Text

from pamdp import checkpoint
from pamdp.models.critics import DualCritic
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy, Request
from pamdp.types import Message


def talk(
    policy: Policy, critics: DualCritic | None, show: bool, max_reply: int, console: Console | None = None
) -> None:
    """Read lines, answer each; an empty line, the end of input or Ctrl-C stops."""
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
            console.print(f"[dim]{note}[/dim]")
        history.append(Message("assistant", reply))


def load_critics(folder: Path, width: int, v_max: float) -> DualCritic | None:
    """The critics of a run's last checkpoint, if it has one."""
    stages = ("online", "offline")
    found = next((c for s in stages if (c := checkpoint.latest(folder / "checkpoints" / s)) is not None), None)
    if found is None:
        return None
    critics = DualCritic(width, width, v_max)
    critics.load_state_dict(checkpoint.load(found).weights["critics"])
    return critics

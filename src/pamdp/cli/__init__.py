"""The command line: one module for each verb or group of verbs, put together here.

Owns the entry point and how it ends: what a user can mend is one line on the error stream. A verb's options and what it
does stand together in its module. No module here imports a model library before its verb runs, so that help and checks
of data are there at once.
"""

from __future__ import annotations

import os
import sys
import time

import typer
from typer.exceptions import TyperException

from pamdp import ranks
from pamdp.cli import (
    chat,
    config,
    data,
    evaluate,
    feedback,
    judge,
    lab,
    quickstart,
    read,
    reproduce,
    serve,
    train,
)
from pamdp.errors import PamdpError

SEVERAL = [["train", "bc"], ["train", "offline"], ["train", "online"]]
"""Verbs that several processes can do together."""
PAUSE = 10.0
"""Seconds that a process beside the first one waits before it says what went wrong."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Assistants that learn who they are talking to by talking to them.",
)
for verbs in (quickstart, data, train, evaluate, read, chat, serve, judge, feedback, config, reproduce, lab):
    app.add_typer(verbs.app)


def main() -> None:
    """Run the verb, and exit: 0 all is well, 1 a user can mend it, 2 options make no sense, 130 interrupted."""
    # Before torch is loaded: its threads spin while they wait, and starve other processes (docs/performance.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        if (verb := sys.argv[1:3]) not in SEVERAL:
            ranks.require_one(f"`{' '.join(['pamdp', *verb])}`")
        code = app(standalone_mode=False)
        ranks.leave()
    except PamdpError as error:
        code = _say(str(error), 1)
    except TyperException as error:  # without a message it is help that was printed
        code = _say(" ".join(error.format_message().split()), error.exit_code)
    if code == 130:
        _say("stopped; the same command continues, with --resume where it has it", code)
    raise SystemExit(code)


def _say(text: str, code: int) -> int:
    if text and ranks.rank():
        # Most errors are those of all processes: the first one says it and is over, and its launcher ends the others.
        time.sleep(PAUSE)
        text = f"process {ranks.rank()}: {text}"
    if text:
        print(f"pamdp: {text}", file=sys.stderr)
    return code

"""The command line: verbs, options and what they print.

Owns wiring only: each verb reads settings, builds parts and calls one function of a lower layer (commands.py). Every
error that a user can mend is one line on the error stream and exit code 1.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from typer.core import TyperGroup

from pamdp import commands
from pamdp.errors import ConfigError, PamdpError
from pamdp.reproduce.config import Preset

Page = Literal["table2", "table3", "table5", "table6", "fig3", "fig4", "simulator"]


class Verbs(TyperGroup):
    """All verbs; Ctrl-C leaves a run that resumes, and says so (typer itself would leave without a word)."""

    # Typer hands its own context to what click declares for any.
    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Run a verb."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            print("pamdp: stopped; the same command continues, with --resume where it has it", file=sys.stderr)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Assistants that learn who they are talking to by talking to them.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look at data.")
train_app = typer.Typer(no_args_is_help=True, help="Clone, then reinforce.")
judge_app = typer.Typer(no_args_is_help=True, help="Judges: how good they are, and training the embedded ones.")
app.add_typer(data_app, name="data")
app.add_typer(train_app, name="train")
app.add_typer(judge_app, name="judge")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Config = Annotated[list[str] | None, typer.Option("--config", "-c", help="TOML file or preset; repeat to layer.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Dotted settings, such as clone.epochs=2.")]
RunDir = Annotated[Path, typer.Option("--run", help="Run directory.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a run that was interrupted.")]


def _print(result: commands.Result, as_json: bool) -> None:
    if as_json:
        print(result.to_json())
        return
    console = Console()
    for part in result.show():
        console.print(part)


@app.command()
def quickstart(
    run: RunDir = Path("runs/quickstart"),
    resume: Resume = False,
    as_json: Json = False,
    overrides: Overrides = None,
) -> None:
    """See the main job work: talk, learn, evaluate, report; at most ten minutes on two cores.

    Example: `pamdp quickstart`
    """
    _print(commands.quickstart(run, resume, overrides or [], as_json), as_json)


@data_app.command("check")
def data_check(
    path: Annotated[Path, typer.Argument(help="File or folder.")],
    format: Annotated[str, typer.Option(help="Layout, or auto.")] = "auto",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count and skip bad records.")] = False,
    as_json: Json = False,
) -> None:
    """Validate dialogues or preference pairs and say what is in them.

    Example: `pamdp data check my.jsonl --skip-bad`
    """
    result = commands.data_check(path, format, skip_bad)
    _print(result, as_json)
    raise typer.Exit(1 if result.problems else 0)


@train_app.command("bc")
def train_bc(
    run: RunDir, config: Config = None, resume: Resume = False, as_json: Json = False, overrides: Overrides = None
) -> None:
    """Behaviour cloning (eq. 17).

    Example: `pamdp train bc --run runs/clone clone.epochs=2 data.path=my.jsonl`
    """
    _print(commands.train_bc(run, config or [], overrides or [], resume), as_json)


@train_app.command("offline")
def train_offline(
    run: RunDir,
    source: Annotated[str, typer.Option("--from", help="Run that was cloned, or `shipped`.")] = "shipped",
    judge: Annotated[str, typer.Option(help="Judge that rewards.")] = "match+sense",
    config: Config = None,
    resume: Resume = False,
    as_json: Json = False,
    overrides: Overrides = None,
) -> None:
    """Offline reinforcement learning (eqs. 6, 9, 12, 14) from a cloned policy.

    Example: `pamdp train offline --run runs/rl --from runs/clone rl.advantage=a2c`
    """
    _print(commands.train_offline(run, source, judge, config or [], overrides or [], resume), as_json)


@train_app.command("online")
def train_online(
    run: RunDir,
    source: Annotated[str, typer.Option("--from", help="Run that was cloned, or `shipped`.")] = "shipped",
    config: Config = None,
    resume: Resume = False,
    as_json: Json = False,
    overrides: Overrides = None,
) -> None:
    """Online reinforcement learning (section 4.2) from a cloned policy, by talking with simulated users.

    Example: `pamdp train online --run runs/online online.rounds=4 rl.horizon=4`
    """
    _print(commands.train_online(run, source, config or [], overrides or [], resume), as_json)


@app.command()
def estimate(config: Config = None, as_json: Json = False, overrides: Overrides = None) -> None:
    """What `train online` with these settings will call and cost, before it runs.

    Example: `pamdp estimate online.simulator.kind=openai online.simulator.model=some-model`
    """
    _print(commands.estimate_run(config or [], overrides or []), as_json)


@app.command("eval")
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run directory of `train offline`.")],
    controls: Annotated[bool, typer.Option("--controls", help="Also run the action controls.")] = False,
    judges: Annotated[
        str, typer.Option(help="Judges that grade, comma-separated: embedded ones, or models on a server.")
    ] = "match+sense,likelihood",
    permuted: Annotated[
        Path | None,
        typer.Option(help="The control's run: `train offline` from the same clone, with rl.permute=true besides."),
    ] = None,
    config: Config = None,
    as_json: Json = False,
    overrides: Overrides = None,
) -> None:
    """Evaluate a run on its test users: r_w against Vanilla and against the cloned policy, with intervals.

    A judge that is no embedded one is a language model; `grader.base_url` says where its server is. The judge that
    rewarded cannot be the only one that grades.

    Example: `pamdp eval runs/rl --controls`
    """
    names = [name.strip() for name in judges.split(",")]
    _print(commands.evaluate_run(run, controls, names, config or [], overrides or [], permuted), as_json)


@judge_app.command("eval")
def judge_eval(
    pairs: Annotated[
        str,
        typer.Option(
            "--pairs", help="JSON lines of labelled pairs, or of the sample: sample, sample-valid, sample-fresh."
        ),
    ],
    judge: Annotated[str, typer.Option(help="Which judge: a registered one.")] = "embedded",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count and skip bad records.")] = False,
    as_json: Json = False,
) -> None:
    """Agreement of a judge with labelled pairs, per kind, with its controls.

    Example: `pamdp judge eval --pairs sample`
    """
    _print(commands.judge_eval(pairs, judge, skip_bad), as_json)


@judge_app.command("train")
def judge_train(
    out: Annotated[Path, typer.Option("--out", help="Folder for the weights.")],
    epochs: Annotated[int, typer.Option(help="Passes of the likelihood judge over its pairs.")] = 2,
    as_json: Json = False,
) -> None:
    """Train the embedded judges on the sample's training users (about an hour on two cores).

    Example: `pamdp judge train --out judges/`
    """
    _print(commands.judge_train(out, epochs), as_json)


@app.command()
def chat(
    run: Annotated[str, typer.Argument(help="Run directory, or `shipped`.")] = "shipped",
    show: Annotated[bool, typer.Option("--show", help="Show V(h) and the action at each turn.")] = False,
) -> None:
    """Talk to a trained assistant in the terminal; an empty line or Ctrl-D ends it.

    Example: `pamdp chat shipped --show`
    """
    commands.chat(run, show)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Run directory.")], as_json: Json = False) -> None:
    """Write RUN/report.html: one file, works offline.

    Example: `pamdp report runs/quickstart`
    """
    _print(commands.report(run), as_json)


@app.command()
def reproduce(
    table: Annotated[Page, typer.Argument(help="Which table or figure of the paper, or its audit of simulated users.")],
    preset: Annotated[
        Preset, typer.Option(help="`cpu`: the embedded backbone, small; `paper`: its models and settings.")
    ] = "cpu",
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Run directory; by default runs/reproduce-PRESET, or runs/reproduce-online-PRESET."),
    ] = None,
    method: Annotated[list[Path] | None, typer.Option(help="Python file that registers a method; repeat.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Resolve the settings and estimate the work.")] = False,
    jobs: Annotated[int, typer.Option(help="Processes that share the work, one thread each.", min=1)] = 1,
    render: Annotated[bool, typer.Option("--render", help="Only write the table again from what is stored.")] = False,
    config: Config = None,
    as_json: Json = False,
    overrides: Overrides = None,
) -> None:
    """Train what is missing, grade it against the same Vanilla replies, and write the table beside the paper's.

    What RUN already holds is not done again: a run that was interrupted continues, and tables share their methods.
    Online (`table3`, `fig4`, `simulator`): methods learn by talking with simulated users and are evaluated with others.

    Example: `pamdp reproduce table2 --preset cpu prefeval.path=data/prefeval`
    """
    if table == "table3" or table == "fig4" or table == "simulator":
        if method:
            raise ConfigError(f"--method is not for {table}: its methods learn online; name them in methods=[...]")
        path = run or Path(f"runs/reproduce-online-{preset}")
        online = commands.reproduce_online(
            table, preset, path, config or [], overrides or [], dry=dry_run, rendered=render
        )
        return _print(online, as_json)
    path = run or Path(f"runs/reproduce-{preset}")
    result = commands.reproduce_table(
        table, preset, path, method or [], config or [], overrides or [], dry=dry_run, rendered=render, jobs=jobs
    )
    _print(result, as_json)


@app.command()
def lab(
    figure: Annotated[Path | None, typer.Option(help="Also draw the results into this file (svg, png, pdf).")] = None,
    as_json: Json = False,
) -> None:
    """The theory in numbers: exact PAMDPs and the advantage estimators, in under a minute.

    Example: `pamdp lab --json`
    """
    _print(commands.lab(figure), as_json)


def main() -> None:
    """Entry point: a PamdpError is one line."""
    try:
        app()
    except PamdpError as error:
        print(f"pamdp: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()

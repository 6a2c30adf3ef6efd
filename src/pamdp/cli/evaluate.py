"""`pamdp eval` and `pamdp report`: a run's policies graded against each other, and a page on the run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pamdp.cli.options import KEY, SHEET, Json, Overrides, Plugins, Sources, show
from pamdp.config import Config, EvalConfig
from pamdp.errors import ConfigError
from pamdp.launcher_config import require_local
from pamdp.settings import load

app = typer.Typer()


@app.command("eval")
def evaluate(
    *,
    run: Annotated[Path, typer.Argument(help="Run directory of `train offline`.")],
    controls: Annotated[bool, typer.Option("--controls", help="Also run the action controls.")] = False,
    judges: Annotated[
        str, typer.Option(help="Judges that grade, comma-separated: registered ones, or language models.")
    ] = "signals,reward-model",
    permuted: Annotated[
        Path | None,
        typer.Option(help="The control's run: `train offline` from the same clone, with rl.permute=true besides."),
    ] = None,
    readings: Annotated[
        list[Path],
        typer.Option(help="Verdicts on a sheet of `pamdp read`; repeat.", default_factory=list, show_default=False),
    ],
    sheet: Annotated[Path | None, typer.Option(help="What they read; RUN/reading without.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key; RUN/reading-key.json without.")] = None,
    config: Sources,
    plugin: Plugins,
    as_json: Json = False,
    overrides: Overrides,
) -> None:
    """Evaluate a run on its test users: r_w against Vanilla and against the cloned policy, with intervals.

    A name that no judge is registered under is a language model, reached as the run's setting `judge` says, or as
    `judge.base_url` and its like say here. The judge that rewarded cannot be the only one that grades. All blind
    readers together are one judge more, called `readers`.

    Example: `pamdp eval runs/rl --controls`
    """
    from pamdp.evaluation.readings import load_readings
    from pamdp.models.embedded import load_backbone
    from pamdp.preflight import evaluated_split, require_judges
    from pamdp.runs import Run
    from pamdp.sites import Sent, evaluation_site, launched
    from pamdp.train.init_from import placed
    from pamdp.workflows import backbones, evaluate_policies, policies_of

    # What can be refused is refused before anything is loaded.
    if (sheet or key) and not readings:
        raise ConfigError("--sheet and --key say what --readings are of; name the files of verdicts, too")
    names = [name.strip() for name in judges.split(",")]
    asked, done = load(EvalConfig, config, overrides), Run(run)
    settings = done.config(Config)
    settings = settings.model_copy(update={"model": placed(settings.model, asked.model)})
    how = {name: getattr(asked.judge, name) for name in asked.judge.model_fields_set}
    reached = settings.judge.model_copy(update=how)
    require_judges(names, done, reached)
    split = evaluated_split(done, settings, permuted)
    read = load_readings(sheet or run / SHEET, key or run / KEY, readings) if readings else None
    if controls:
        require_local(asked.launcher, "--controls")
    sent = partial(Sent.of, settings.model_copy(update={"engine": asked.engine}), run / "policy", plugin)
    with launched(asked.launcher, evaluation_site, sent, reached, names) as launcher:
        bare, own = backbones(settings, load_backbone, asked.engine)
        result = evaluate_policies(
            policies_of(run, own, bare, permuted), split, names, settings, run, ("BC", "PAMDP") if controls else (),
            reached, {} if permuted is None else {"permuted": str(permuted)}, read, launcher,
        )  # fmt: skip
    show(as_json, result.json, *result.shown)


@app.command()
def report(
    *, run: Annotated[Path, typer.Argument(help="Run directory.")], plugin: Plugins, as_json: Json = False
) -> None:
    """Write RUN/report.html: one file, works offline.

    Example: `pamdp report runs/quickstart`
    """
    from pamdp.evaluation.report import write_report

    found = str(write_report(run))
    show(as_json, {"report": found}, f"report: {found}")

"""From records to the report's figures, with titles and captions.

Owns which figure shows what, and how the training log's keys are called. Knows nothing of axes and of HTML.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pamdp.evaluation import figures, svg
from pamdp.evaluation.controls import Control
from pamdp.evaluation.order import grouped, primary
from pamdp.evaluation.records import Judgement
from pamdp.evaluation.run_reader import Metric
from pamdp.evaluation.success import SuccessRate, by_turn
from pamdp.evaluation.tables import interval, signed

STAGES = {"clone": "Behaviour cloning", "offline": "Offline RL", "online": "Online RL"}

CURVES = {
    "reward": ("judged reward", "Mean reward of the replies sampled in one update."),
    "kl": ("KL to the cloned policy", "How far the policy has moved, in nats; the KL term is its leash."),
    "nll": ("negative log-likelihood", "Nats per token of the reference replies."),
    "loss": ("loss", ""),
}
"""Keys of the training log that are drawn: title and caption."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure with its title and caption."""

    title: str
    svg: Markup
    caption: str = ""


def success(rows: Sequence[SuccessRate]) -> Iterator[Drawing]:
    """One panel of bars per judge, on one scale."""
    limits = figures.shared_limits([row.rate for row in rows])
    for i, judge in enumerate(dict.fromkeys(row.judge for row in rows)):
        mine = [
            (f"{m} against {b}", m, row.rate) for m, b, group in grouped(rows) for row in group if row.judge == judge
        ]
        label = f"Success rates under {judge}: " + "; ".join(f"{n} {signed(e.value)} {interval(e)}" for n, _, e in mine)
        yield Drawing(judge, Markup(figures.rate_bars(mine, limits, label, f"bars{i}")))


def turns(judgements: Sequence[Judgement], rows: Sequence[SuccessRate]) -> Iterator[Drawing]:
    """Success turn by turn of the report's method, a figure per baseline."""
    for i, (method, baseline, group) in enumerate(grouped(rows)):
        judges = {row.judge: by_turn(judgements, method, baseline, row.judge) for row in group if row.n}
        if method == primary(rows) and any(len(found) > 1 for found in judges.values()):
            title = f"{method} against {baseline}"
            label = f"Success rate of {title} at each turn of the dialogue"
            yield Drawing(title, Markup(figures.turn_lines(judges, label, f"turns{i}")))


def training(metrics: Sequence[Metric]) -> Iterator[Drawing]:
    """The curves of every stage, in the order in which the stages ran; a loss only where no likelihood is logged."""
    for i, stage in enumerate(dict.fromkeys(m.stage for m in metrics)):
        rows = [m for m in metrics if m.stage == stage]
        keys = [key for key in CURVES if any(key in m.values for m in rows)]
        for key in keys:
            if key == "loss" and (stage != "clone" or "nll" in keys):
                continue  # a policy-gradient loss says nothing: its gradient does
            name, caption = CURVES[key]
            title = f"{STAGES.get(stage, stage)}: {name}"
            points = [(float(m.step), m.values[key]) for m in rows if key in m.values]
            line = figures.Curve(name, points, svg.SECOND if stage == "clone" else svg.ACCENT, smooth=True)
            drawn = figures.curves([line], "update", title, f"curve{i}{key}", zero=key == "reward")
            yield Drawing(title, Markup(drawn), caption)


def critics(metrics: Sequence[Metric]) -> Iterator[Drawing]:
    """Explained variance of both critics over every stage that logged it."""
    keys = {"explained_variance_h": ("V(h)", svg.SECOND), "explained_variance_hw": ("V(h, ω)", svg.ACCENT)}
    for i, stage in enumerate(dict.fromkeys(m.stage for m in metrics)):
        lines, late = list[figures.Curve](), list[str]()
        for key, (name, colour) in keys.items():
            points = [(float(m.step), m.values[key]) for m in metrics if m.stage == stage and key in m.values]
            if points:
                last = points[-max(1, len(points) // 5) :]
                late.append(f"{name} {signed(sum(y for _, y in last) / len(last))}")
                lines.append(figures.Curve(name, [(x, max(y, -1.0)) for x, y in points], colour, smooth=True))
        if lines:
            title = f"{STAGES.get(stage, stage)}: explained variance"
            caption = f"Mean over the last fifth: {', '.join(late)}. Values under −1 are drawn at −1."
            yield Drawing(title, Markup(figures.curves(lines, "update", title, f"critics{i}", zero=True)), caption)


def controls(rows: Sequence[Control]) -> Iterator[Drawing]:
    """One panel of dots per judge: judges may measure on different scales."""
    for i, judge in enumerate(dict.fromkeys(row.judge for row in rows)):
        mine = [row for row in rows if row.judge == judge]
        label = f"Controls under {judge}: " + "; ".join(
            f"{c.name} {signed(c.mean)} {interval(c.estimate)}" for c in mine
        )
        yield Drawing(judge, Markup(figures.control_dots(mine, label, f"controls{i}")))

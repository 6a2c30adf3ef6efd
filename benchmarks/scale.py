"""Online rounds on 1 to 1,000 workers, simulated: `python -m benchmarks.scale`.

Prints how time and bytes of a round change with the number of workers, and what the time goes to: for the run's own
users, and for EACH users on every worker; then what the whole run costs on some GPUs. The run is any settings of `pamdp
train online` over those of scale_run.toml (the paper's online run); costs are scale.toml's, and what is measured first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from matplotlib.axes import Axes

from benchmarks.scale_costs import Costs, measure, read_costs, sources
from benchmarks.scale_simulation import CAUSES, Played, Simulation
from pamdp.config import Config
from pamdp.data import load_sample
from pamdp.evaluation import svg
from pamdp.evaluation.tables import TidyTable
from pamdp.files import write_atomic
from pamdp.settings import load
from pamdp.types import Dialogue

RUN = Path(__file__).with_name("scale_run.toml")
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
GPUS = (1, 8, 64)
KINDS = ("small_gpu", "eager_7b", "graph_7b")
EACH = 8
"""Users of one worker where every worker brings its own: the default of `online.users`."""
ROUNDS = 3
"""Rounds whose mean a row shows, where there are not MANY workers, which make a mean of their own."""
MANY = 16
SERVERS = {"judge": "judge", "users": "simulator"}
"""A role of each server, by what the server is called here."""
COLOURS = dict(
    zip(CAUSES, (svg.ACCENT, svg.SECOND, svg.BAD, "#d98c86", svg.MUTED, svg.THIRD, "#b3a8d6", svg.INK), strict=True)
)


Growth = Sequence[tuple[int, dict[str, float], Played]]
"""Workers, mean seconds of a round by cause, and one round."""


def seconds_by_cause(rounds: Sequence[Played]) -> dict[str, float]:
    """Mean seconds of a round, by cause."""
    return {cause: sum(played.seconds[cause] for played in rounds) / len(rounds) for cause in CAUSES}


def grow(
    config: Config, costs: Costs, kind: str, dialogues: Sequence[Dialogue], unlimited: bool, each: int | None, seed: int
) -> Growth:
    """Rounds on all WORKERS, with EACH users on every one, or the run's."""
    found = []
    for workers in WORKERS:
        users = config.online.users if each is None else each * workers
        run = config.model_copy(update={"online": config.online.model_copy(update={"users": users})})
        simulation = Simulation(run, costs, getattr(costs, kind), workers, dialogues, unlimited, seed)
        rounds = simulation.rounds(ROUNDS if workers < MANY else 1)
        found.append((workers, seconds_by_cause(rounds), rounds[0]))
    return found


def growth_table(found: Growth, each: int | None) -> str:
    """One line for each number of workers: seconds, speed-up in users a second, shares of the time in percent, MB."""
    records = []
    for workers, seconds, played in found:
        total, one = sum(seconds.values()), sum(found[0][1].values())
        speedup = one / total * (1 if each is None else workers)
        records.append(
            {
                "workers": workers, "s": round(total), "speed-up": f"{speedup:.1f}", "eff.": f"{speedup / workers:.2f}",
                **{cause: round(100 * seconds[cause] / total) for cause in CAUSES},
                "MB out": round(played.bytes_out / 1e6), "MB back": round(played.bytes_in / 1e6),
            }
        )  # fmt: skip
    return TidyTable(records).markdown()


def cost_table(config: Config, costs: Costs, dialogues: Sequence[Dialogue], seed: int) -> str:
    """The whole run on some GPUs: minutes, GPU-hours, tokens of servers, and what most of the time goes to."""
    records = []
    for kind, gpus, unlimited in product(KINDS, GPUS, (True, False)):
        worker = getattr(costs, kind)
        run = Simulation(config, costs, worker, gpus, dialogues, unlimited, seed)
        seconds = seconds_by_cause(run.rounds(ROUNDS))
        tokens = {who: run.servers[role].tokens_asked * config.online.rounds / ROUNDS for who, role in SERVERS.items()}
        hours = (worker.load_s + config.online.rounds * sum(seconds.values())) / 3600
        most = max(CAUSES, key=lambda cause: seconds[cause])
        records.append(
            {
                "worker": kind, "GPUs": gpus, "limits": "none" if unlimited else "set",
                "minutes": f"{60 * hours:.1f}", "GPU-hours": f"{gpus * hours:.2f}",
                **{f"M tokens, {who}": f"{count / 1e6:.1f}" for who, count in tokens.items()},
                "most of the time": f"{most} {100 * seconds[most] / sum(seconds.values()):.0f} %",
            }
        )  # fmt: skip
    return TidyTable(records).markdown()


def figure(found: Growth, title: str) -> str:
    """Stacked bars: seconds of a round by cause, for every number of workers."""

    def paint(axes: Axes) -> None:
        bottoms = [0.0] * len(found)
        for cause in CAUSES:
            heights = [seconds[cause] for _, seconds, _ in found]
            axes.bar(range(len(found)), heights, bottom=bottoms, width=0.7, color=COLOURS[cause], label=cause)
            bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
        axes.set_xticks(range(len(found)), [str(workers) for workers, _, _ in found])
        axes.set(xlabel="workers", ylabel="seconds of a round")
        axes.legend(frameon=False, fontsize=7, ncols=2)

    return svg.draw(2.8, paint, title, "scale") + "\n"


def sources_table(measured: Path, overrides: Sequence[str]) -> str:
    """Every constant, its value and where it comes from."""
    rows = [
        {"constant": name, "value": value if len(value) < 30 else f"{value[:24]} ...", "source": source}
        for name, value, source in sources(measured, overrides)
    ]
    return TidyTable(rows).markdown()


def main() -> None:
    """Parse the command line, measure, simulate, print Markdown and write it beside the figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("run", nargs="*", metavar="FILE|KEY=VALUE", help="settings of the run, over scale_run.toml")
    parser.add_argument("--measured", type=Path, help="costs that an earlier call wrote; otherwise they are measured")
    parser.add_argument("--cost", action="append", default=[], metavar="PART.NAME=VALUE", help="another cost")
    parser.add_argument("--worker", default="eager_7b", choices=[*KINDS, "small_cpu"], help="default eager_7b")
    parser.add_argument("--out", type=Path, default=Path("runs/scale"), help="folder, default runs/scale")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    files = [text for text in given.run if "=" not in text]
    config = load(Config, ["paper", str(RUN), *files], [text for text in given.run if "=" in text])
    given.out.mkdir(parents=True, exist_ok=True)
    measured = given.measured or given.out / "costs.toml"
    if given.measured is None:
        write_atomic(measured, measure(config))
    costs, dialogues = read_costs(measured, given.cost), load_sample("train").dialogues
    lines = [f"**The run: {config.online.users} users, {config.online.rounds} rounds**", ""]
    lines += [cost_table(config, costs, dialogues, given.seed), "**Constants**", ""]
    lines += [sources_table(measured, given.cost)]
    print("\n".join(lines), flush=True)
    for each in (None, EACH):
        for unlimited in (True, False):
            users = f"{config.online.users} users" if each is None else f"{each} users on each worker"
            title = f"{given.worker}, {users}, limits {'none' if unlimited else 'set'}"
            found = grow(config, costs, given.worker, dialogues, unlimited, each, given.seed)
            lines += [f"**{title}**", "", growth_table(found, each)]
            print("\n".join(lines[-3:]), flush=True)
            name = f"scale-{'run' if each is None else 'each'}-{'free' if unlimited else 'limits'}.svg"
            write_atomic(given.out / name, figure(found, title))
    write_atomic(given.out / "scale.md", "\n".join(lines))


if __name__ == "__main__":
    main()

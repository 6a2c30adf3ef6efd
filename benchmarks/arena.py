"""Contenders side by side: each run in a fresh process, all of one repeat before the next; results as JSON.

Owns options, processes and ratios. Knows nothing of what is run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.measure import Measured, Prepared, machine, measure


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes of a benchmark.

    Attributes:
      users: dialogues, the first ones of the sample's test users (then of its training users).
      turns: most turns of each.
      tokens: longest reply.
      batch: replies written at once; dialogues of one optimizer step.
      replies: replies to one state.
      repeats: how often everything is run.
      threads: of PyTorch.
    """

    users: int = 8
    turns: int = 6
    tokens: int = 48
    batch: int = 32
    replies: int = 5
    repeats: int = 3
    threads: int = 2


@dataclass(frozen=True, slots=True)
class Duel:
    """One of our contenders against a peer; `target` is the ratio of times for each piece of work to reach."""

    ours: str
    peer: str
    target: float | None = None


Contender = Callable[[Options], Prepared]
Remark = Callable[[Mapping[str, Measured]], Mapping[str, object]]


def main(
    name: str,
    contenders: Mapping[str, Contender],
    duels: Sequence[Duel],
    default: Options,
    quick: Options,
    remark: Remark | None = None,
) -> None:
    """Parse the command line, run, print (and with --out write) the result as JSON.

    Args:
      contenders: by name; functions of modules, so that another process can import them.
      default, quick: sizes without and with --quick.
      remark: further facts of the last repeat, such as whether all contenders gave the same.
    """
    options, out = parse(name, default, quick)
    runs: list[dict[str, Measured]] = []
    for repeat in range(options.repeats):
        run = {}
        for contender, function in contenders.items():
            print(f"{name} {repeat + 1}/{options.repeats}: {contender}", file=sys.stderr)
            run[contender] = alone(function, options)
        runs.append(run)
    result = summary(name, options, runs, duels) | ({} if remark is None else dict(remark(runs[-1])))
    text = json.dumps(result, indent=2, ensure_ascii=False)
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")


def parse(name: str, default: Options, quick: Options) -> tuple[Options, Path | None]:
    """Options from the command line: --quick or not, then every size that is named."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--quick", action="store_true", help="small sizes, about a minute")
    parser.add_argument("--out", type=Path, help="also write the JSON to this file")
    for field in fields(Options):
        parser.add_argument(f"--{field.name}", type=int, help=f"default {getattr(default, field.name)}")
    given = vars(parser.parse_args())
    chosen = quick if given.pop("quick") else default
    out: Path | None = given.pop("out")
    return replace(chosen, **{key: value for key, value in given.items() if value is not None}), out


def alone(contender: Contender, options: Options) -> Measured:
    """Run a contender once in a process of its own, so that its memory is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_child, contender, options).result()


def _child(contender: Contender, options: Options) -> Measured:
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    return measure(partial(contender, options))


def summary(
    name: str, options: Options, runs: Sequence[Mapping[str, Measured]], duels: Sequence[Duel]
) -> dict[str, object]:
    """Medians and spreads; ratios are taken within each repeat, for each piece of work."""
    contenders = {
        who: {
            "seconds": _spread([run[who].seconds for run in runs]),
            "cpu_seconds": _spread([run[who].cpu for run in runs]),
            "units": runs[-1][who].units,
            "seconds_per_unit": statistics.median(run[who].seconds / run[who].units for run in runs),
            "loaded_mb": round(statistics.median(run[who].loaded_mb for run in runs)),
            "peak_mb": round(max(run[who].peak_mb for run in runs)),
            "gemm_share": round(statistics.median(run[who].share for run in runs), 3),
            "gemm_share_of_cpu": round(statistics.median(run[who].share_of_cpu for run in runs), 3),
            "gemm_gflops": round(statistics.median(run[who].gemm for run in runs) / 1e9, 1),
        }
        for who in runs[0]
    }
    compared = []
    for duel in duels:
        pairs = [(run[duel.ours], run[duel.peer]) for run in runs]
        ratios = [theirs.seconds / theirs.units * mine.units / mine.seconds for mine, theirs in pairs]
        # Beside other load this one tells more.
        of_cpu = [theirs.cpu / theirs.units * mine.units / mine.cpu for mine, theirs in pairs]
        compared.append(asdict(duel) | {"ratio": _spread(ratios), "cpu_ratio": _spread(of_cpu)})
    return {
        "benchmark": name,
        "machine": machine(),
        "options": asdict(options),
        "contenders": contenders,
        "duels": compared,
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    named = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {key: float(f"{value:.4g}") for key, value in named.items()}

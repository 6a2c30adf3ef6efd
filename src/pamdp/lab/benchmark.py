"""The benchmark behind `pamdp lab`: every problem, rate, seed and title is in benchmark.toml, fixed before it is run.

Owns what is compared and how; every row that is computed is printed. Knows nothing of the command line.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources

import torch
from jaxtyping import Float
from torch import Tensor

from pamdp.lab.environments import GAMMA, REGIMES, ask, persona, random_pamdps, seven_problems
from pamdp.lab.exact import (
    METHODS,
    Enumeration,
    ExactEstimator,
    Features,
    deltas,
    enumerate_turns,
    expected_gradient,
    optimal,
    second_moments,
    trajectory_moments,
)
from pamdp.lab.learn import learn, watch
from pamdp.lab.report import LabReport, LabResult, Row, Section, mean_cell, mean_ratio_cell, ratio_cell
from pamdp.lab.tabular import (
    Logits,
    TabularPamdp,
    objective,
    optimal_return,
    policy_gradient,
    replicate,
    solve,
    uniform,
)
from pamdp.progress import Progress

_FIXED = tomllib.loads((resources.files("pamdp.lab") / "benchmark.toml").read_text(encoding="utf-8"))
EXACT, LEARNED, POLICY = _FIXED["exact"], _FIXED["learned"], _FIXED["policy"]
LEARNERS = tuple(method for method in METHODS if method.advantage != "odc_safe")
BY_TURN = ExactEstimator("ODC by turn", "odc", "full")

Estimates = dict[str, tuple[list[Enumeration], list[Tensor]]]
"""Every transition of every turn and its advantage, by method."""


def run_benchmark() -> LabReport:
    """Run the whole benchmark, on one thread: its tensors are so small that threads only wait for one another."""
    began, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sections = (*exact_sections(), *learned_sections(), *policy_sections())
    finally:
        torch.set_num_threads(threads)
    return LabReport(sections, time.perf_counter() - began)


def exact_sections() -> list[Section]:
    """Variance of one dialogue's gradient with exact critics, and what of the theory is exact, in five regimes."""
    variance, checks = dict[str, Row](), dict[str, Row]()
    with Progress("exact critics", len(REGIMES)) as bar:
        for regime in REGIMES:
            problems = random_pamdps(regime, EXACT["problems"], seed=EXACT["seed"])
            variance[regime], checks[regime] = _exact_rows(*problems)
            bar.advance()
    return [_section("exact_variance", EXACT, variance), _section("exact_checks", EXACT | _FIXED["checks"], checks)]


def exact_estimates(pamdp: TabularPamdp, logits: Logits, features: Features) -> Estimates:
    """What every method makes of exact critics; ODC with exact coefficients, one pair for all turns or one by turn."""
    solution, found = solve(pamdp, logits), Estimates()
    for method in (*METHODS, BY_TURN):
        turns = enumerate_turns(pamdp, solution, solution.critics(method.oracle), features)
        coefficients = None
        if method is BY_TURN:
            coefficients = [optimal([turn], [1.0]) for turn in turns]
        elif method.advantage in ("odc", "odc_safe"):
            weights = [pamdp.gamma ** (2 * t) for t in range(len(turns))]
            coefficients = [optimal(turns, weights, safe=method.advantage == "odc_safe")] * len(turns)
        found[method.label] = turns, deltas(method, turns, coefficients)
    return found


def turn_moments(estimates: Estimates) -> dict[str, Float[Tensor, "T N"]]:
    """E[s²·δ²] of every turn, by method; `DCRL best` has the best β of each turn."""
    moments = {label: second_moments(*estimate) for label, estimate in estimates.items()}
    return moments | {"DCRL best": _best_mixture(moments["A2C"], moments["DCRL .5"], moments["UAAC"])}


def _best_mixture(at_0: Tensor, at_half: Tensor, at_1: Tensor) -> Tensor:
    """Minimum over β in [0, 1] of the parabola through three points: E[s²·δ²] of DCRL is one in β."""
    square, slope = 2 * (at_0 + at_1) - 4 * at_half, 4 * at_half - 3 * at_0 - at_1
    beta = torch.where(square > 0, -slope / (2 * square), 0.0).clamp(0, 1)
    return torch.minimum(at_0 + slope * beta + square * beta**2, torch.minimum(at_0, at_1))


def _exact_rows(pamdp: TabularPamdp, logits: Logits, features: Features) -> tuple[Row, Row]:
    exact, estimates = policy_gradient(pamdp, solve(pamdp, logits)), exact_estimates(pamdp, logits, features)
    variances, bias = dict[str, Tensor](), 0.0
    for label, (turns, delta) in estimates.items():
        _, variances[label] = trajectory_moments(pamdp, turns, delta, features)
        mean = expected_gradient(turns, delta, pamdp.gamma)
        bias = max(bias, *(float((a - b).abs().max()) for a, b in zip(mean, exact, strict=True)))
    moments = turn_moments(estimates)
    others = ("A2C", "UAAC", "DCRL best", "PAMDP-X")
    excess = torch.stack([moments["ODC by turn"] - moments[other] for other in others])
    checks = {
        "error of E[gradient]": bias,
        "violations": float((excess > 1e-9).sum()),
        "largest excess": float(excess.max()),
        "turns": float(excess.numel()),
    }
    rows = {label: ratio_cell(value, variances["A2C"]) for label, value in variances.items()}
    return rows, {name: LabResult(value) for name, value in checks.items()}


def learned_sections() -> list[Section]:
    """Mean squared error of the gradient with learned critics and a fixed policy, on the seven problems."""
    small, large, to_best = dict[str, Row](), dict[str, Row](), dict[str, Row]()
    problems = seven_problems()
    sizes = (LEARNED["dialogues a batch"], LEARNED["batches"] * LEARNED["dialogues a batch"])
    with Progress("learned critics", len(problems)) as bar:
        for name, problem in problems.items():
            errors = gradient_errors(problem, sizes, runs=LEARNED["runs"], seed=LEARNED["seed"])
            best_of = dict[str, LabResult]()
            for rows, (size, mse) in zip((small, large), errors.items(), strict=True):
                rows[name] = {label: mean_ratio_cell(value, mse["A2C"]) for label, value in mse.items()}
                others = [value for label, value in mse.items() if not label.startswith("ODC")]
                best = min(others, key=lambda value: float(value.mean()))
                best_of[f"batch of {size}"] = mean_ratio_cell(mse["ODC"], best)
            to_best[name] = best_of
            bar.advance()
    found = {"learned_32": small, "learned_512": large, "odc_to_best": to_best}
    return [_section(name, LEARNED | _FIXED["problems"], rows) for name, rows in found.items()]


def gradient_errors(
    problem: TabularPamdp, sizes: Sequence[int], *, runs: int, seed: int
) -> dict[int, dict[str, Float[Tensor, " N"]]]:
    """Mean squared error of the gradient of a new batch of each size; bias and variance are exact given the critics."""
    pamdp = replicate(problem, runs)
    generator = torch.Generator().manual_seed(seed)
    logits = [torch.randn(each.shape, dtype=each.dtype, generator=generator) for each in uniform(pamdp)]
    solution = solve(pamdp, logits)
    exact = policy_gradient(pamdp, solution)
    errors: dict[int, dict[str, Tensor]] = {size: {} for size in sizes}
    batches, episodes = LEARNED["batches"], LEARNED["dialogues a batch"]
    for method in METHODS:
        learned = watch(pamdp, method, solution.policy, batches=batches, episodes=episodes, seed=seed + 1)
        turns = enumerate_turns(pamdp, solution, learned.critics)
        for size in sizes:
            coefficients = learned.coefficients(size / episodes)
            delta = deltas(method, turns, None if coefficients is None else [coefficients] * len(turns))
            mean = expected_gradient(turns, delta, pamdp.gamma)
            moments = second_moments(turns, delta)
            square = torch.stack([pamdp.gamma ** (2 * t) * moment for t, moment in enumerate(moments)]).sum(0)
            bias_sq = _norm_sq(tuple(a - b for a, b in zip(mean, exact, strict=True)))
            errors[size][method.label] = bias_sq + (square - _norm_sq(mean)) / size
    return errors


def _norm_sq(gradient: tuple[Tensor, ...]) -> Float[Tensor, " N"]:
    return torch.stack([each.square().sum((1, 2)) for each in gradient]).sum(0)


def policy_sections() -> list[Section]:
    """Learning a policy: how much of the way from the uniform to the optimal policy, on two problems."""
    last, area = dict[str, Row](), dict[str, Row]()
    names = [(make, offset) for make in (persona, ask) for offset in (0, 4)]
    fixed = {"iterations": POLICY["iterations"], "episodes": POLICY["dialogues an iteration"], "rate": POLICY["rate"]}
    with Progress("learning", len(names) * len(LEARNERS)) as bar:
        for make, offset in names:
            problem, name = make(offset=offset, horizon=POLICY["T"]), make.__name__
            lowest, highest = float(objective(problem, uniform(problem))), float(optimal_return(problem))
            pamdp, shares = replicate(problem, POLICY[f"runs of {name}"]), dict[str, Tensor]()
            for method in LEARNERS:
                curve = learn(pamdp, method, seed=POLICY["seed"], **fixed)
                shares[method.label] = (curve - lowest) / (highest - lowest)
                bar.advance()
            row = f"{name}, offset {offset}"
            last[row] = {label: mean_cell(share[-1]) for label, share in shares.items()}
            area[row] = {label: mean_cell(share.mean(0)) for label, share in shares.items()}
    found = {"policy_last": last, "policy_mean": area}
    return [_section(name, POLICY | _FIXED["problems"], rows) for name, rows in found.items()]


def _section(name: str, settings: Mapping[str, str | int | float], rows: Mapping[str, Row]) -> Section:
    return Section(name, _FIXED["titles"][name], {**settings, "γ": GAMMA}, rows)

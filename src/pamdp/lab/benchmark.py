"""The benchmark behind `pamdp lab`, fixed before it is run: every problem, rate, seed and method stands in this file.

Owns what is compared and how; every row that is computed is printed. Knows nothing of the command line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pamdp.lab.environments import (
    DESCRIPTIONS,
    GAMMA,
    REGIMES,
    Regime,
    ask,
    persona,
    random_pamdps,
    seven_problems,
)
from pamdp.lab.exact import (
    METHODS,
    ExactEstimator,
    deltas,
    enumerate_turns,
    expected_gradient,
    optimal,
    second_moments,
    trajectory_moments,
)
from pamdp.lab.learn import learn, watch
from pamdp.lab.report import LabReport, LabResult, Section, mean_cell, mean_ratio_cell, ratio_cell
from pamdp.lab.tabular import TabularPamdp, objective, optimal_return, policy_gradient, replicate, solve, uniform

Progress = Callable[[str, int, int], None]

PROBLEMS = 200
RUNS = 100
BATCHES, EPISODES = 16, 32
POLICY_RUNS = {"persona": 100, "ask": 300}
POLICY_ITERATIONS, POLICY_RATE, POLICY_HORIZON = 40, 2.0, 2
OFFSETS = (0, 4)
PROBLEM_TEXTS = {name: DESCRIPTIONS[name] for name in ("persona", "ask", "+ or offset")}
LEARNERS = tuple(method for method in METHODS if method.advantage != "odc_safe")
BY_TURN = ExactEstimator("ODC by turn", "odc", "full")


def run_benchmark(progress: Progress | None = None) -> LabReport:
    """Run the whole benchmark, on one thread: its tensors are so small that threads only wait for one another.

    Args:
      progress: called after each step with the section, the steps done and the steps there are.
    """
    report = progress or (lambda _section, _done, _total: None)
    began, threads = time.perf_counter(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sections = (*exact_sections(report), *learned_sections(report), *policy_sections(report))
    finally:
        torch.set_num_threads(threads)
    return LabReport(sections, time.perf_counter() - began)


def exact_sections(progress: Progress) -> list[Section]:
    """Variance of one dialogue's gradient with exact critics, and what of the theory is exact, in five regimes."""
    variance, checks = dict[str, dict[str, LabResult]](), dict[str, dict[str, LabResult]]()
    for done, regime in enumerate(REGIMES, 1):
        variance[regime], checks[regime] = _exact_row(regime)
        progress("exact critics", done, len(REGIMES))
    settings: dict[str, str | int | float] = {
        "problems": PROBLEMS,
        "seed": 0,
        "T": 3,
        "profiles": 3,
        "utterances": 2,
        "answers": 2,
        "γ": GAMMA,
        "policy": "softmax(φ(h)·A), 4 shared features",
        **{regime: DESCRIPTIONS[regime] for regime in REGIMES},
    }
    return [
        Section(
            "exact_variance",
            "Exact critics: variance of one dialogue's gradient, as a ratio to A2C (geometric mean; less is better)",
            settings,
            variance,
        ),
        Section(
            "exact_checks",
            "Exact critics: error of E[gradient], and turns whose E[s²δ²] is larger for ODC by turn than for another",
            settings
            | {"compared with": "A2C, UAAC, PAMDP-X, and DCRL with each turn's best β", "violation": "by > 1e-9"},
            checks,
        ),
    ]


def turn_moments(regime: Regime, problems: int, *, seed: int) -> dict[str, Float[Tensor, "T N"]]:
    """E[s²·δ²] of every turn with exact critics, by method; `DCRL best` has the best β of each turn."""
    pamdp, logits, features = random_pamdps(regime, problems, seed=seed)
    solution = solve(pamdp, logits)
    moments = dict[str, Tensor]()
    for method in METHODS:
        turns = enumerate_turns(pamdp, solution, solution.critics(method.oracle), features)
        if method.advantage == "odc":
            coefficients = [optimal([turn], [1.0]) for turn in turns]
            moments["ODC by turn"] = second_moments(turns, deltas(method, turns, coefficients))
        elif method.advantage != "odc_safe":
            moments[method.label] = second_moments(turns, deltas(method, turns))
    moments["DCRL best"] = _best_mixture(moments["A2C"], moments["DCRL .5"], moments["UAAC"])
    return moments


def _best_mixture(at_0: Tensor, at_half: Tensor, at_1: Tensor) -> Tensor:
    """Minimum over β in [0, 1] of the parabola through three points: E[s²·δ²] of DCRL is one in β."""
    square, slope = 2 * (at_0 + at_1) - 4 * at_half, 4 * at_half - 3 * at_0 - at_1
    beta = torch.where(square > 0, -slope / (2 * square), 0.0).clamp(0, 1)
    return torch.minimum(at_0 + slope * beta + square * beta**2, torch.minimum(at_0, at_1))


def _exact_row(regime: Regime) -> tuple[dict[str, LabResult], dict[str, LabResult]]:
    pamdp, logits, features = random_pamdps(regime, PROBLEMS, seed=0)
    solution = solve(pamdp, logits)
    exact = policy_gradient(pamdp, solution)
    variances, bias = dict[str, Tensor](), 0.0
    for method in (*METHODS, BY_TURN):
        turns = enumerate_turns(pamdp, solution, solution.critics(method.oracle), features)
        coefficients = None
        if method is BY_TURN:
            coefficients = [optimal([turn], [1.0]) for turn in turns]
        elif method.advantage in ("odc", "odc_safe"):
            pooled = optimal(turns, [GAMMA ** (2 * t) for t in range(len(turns))], safe=method.advantage == "odc_safe")
            coefficients = [pooled] * len(turns)
        delta = deltas(method, turns, coefficients)
        _, variances[method.label] = trajectory_moments(pamdp, turns, delta, features)
        mean = expected_gradient(turns, delta, GAMMA)
        bias = max(bias, *(float((a - b).abs().max()) for a, b in zip(mean, exact, strict=True)))
    moments = turn_moments(regime, PROBLEMS, seed=0)
    odc = moments["ODC by turn"]
    others = ("A2C", "UAAC", "DCRL best", "PAMDP-X")
    excess = torch.stack([odc - moments[other] for other in others])
    rows = {label: ratio_cell(value, variances["A2C"]) for label, value in variances.items()}
    return rows, {
        "error of E[gradient]": LabResult(bias),
        "violations": LabResult(float((excess > 1e-9).sum())),
        "largest excess": LabResult(float(excess.max())),
        "turns": LabResult(float(excess.numel())),
    }


def learned_sections(progress: Progress) -> list[Section]:
    """Mean squared error of the gradient with learned critics and a fixed policy, on the seven problems."""
    small, large, to_best = (
        dict[str, dict[str, LabResult]](),
        dict[str, dict[str, LabResult]](),
        dict[str, dict[str, LabResult]](),
    )
    problems = seven_problems()
    for done, (name, problem) in enumerate(problems.items(), 1):
        errors = gradient_errors(problem, (EPISODES, BATCHES * EPISODES), runs=RUNS, seed=0)
        to_best[name] = {}
        for rows, (size, mse) in zip((small, large), errors.items(), strict=True):
            rows[name] = {label: mean_ratio_cell(value, mse["A2C"]) for label, value in mse.items()}
            others = [value for label, value in mse.items() if not label.startswith("ODC")]
            best = min(others, key=lambda value: float(value.mean()))
            to_best[name][f"batch of {size}"] = mean_ratio_cell(mse["ODC"], best)
        progress("learned critics", done, len(problems))
    settings: dict[str, str | int | float] = {
        "runs": RUNS,
        "seed": 0,
        "T": 3,
        "γ": GAMMA,
        "critics and coefficients from": f"{BATCHES} batches of {EPISODES} dialogues",
        "critics' step": "1 / visits",
        "policy": "logits N(0, 1) for each run",
        **PROBLEM_TEXTS,
    }
    title = "Learned critics: squared error of the gradient of a new batch of {}, as a ratio to A2C (less is better)"
    return [
        Section("learned_32", title.format(f"{EPISODES} dialogues"), settings, small),
        Section("learned_512", title.format(f"{BATCHES * EPISODES} dialogues"), settings, large),
        Section(
            "odc_to_best",
            "Learned critics: squared error of ODC, as a ratio to the best other method's",
            settings,
            to_best,
        ),
    ]


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
    for method in METHODS:
        learned = watch(pamdp, method, solution.policy, batches=BATCHES, episodes=EPISODES, seed=seed + 1)
        turns = enumerate_turns(pamdp, solution, learned.critics)
        for size in sizes:
            coefficients = learned.coefficients(size / EPISODES)
            delta = deltas(method, turns, None if coefficients is None else [coefficients] * len(turns))
            mean = expected_gradient(turns, delta, pamdp.gamma)
            square = torch.stack([pamdp.gamma ** (2 * t) * m for t, m in enumerate(second_moments(turns, delta))]).sum(
                0
            )
            bias_sq = _norm_sq(tuple(a - b for a, b in zip(mean, exact, strict=True)))
            errors[size][method.label] = bias_sq + (square - _norm_sq(mean)) / size
    return errors


def _norm_sq(gradient: tuple[Tensor, ...]) -> Float[Tensor, " N"]:
    return torch.stack([each.square().sum((1, 2)) for each in gradient]).sum(0)


def policy_sections(progress: Progress) -> list[Section]:
    """Learning a policy: how much of the way from the uniform to the optimal policy, on two problems."""
    last, area = dict[str, dict[str, LabResult]](), dict[str, dict[str, LabResult]]()
    names = [(name, make, offset) for name, make in (("persona", persona), ("ask", ask)) for offset in OFFSETS]
    steps = len(names) * len(LEARNERS)
    for i, (name, make, offset) in enumerate(names):
        problem = make(offset=offset, horizon=POLICY_HORIZON)
        lowest, highest = float(objective(problem, uniform(problem))), float(optimal_return(problem))
        pamdp = replicate(problem, POLICY_RUNS[name])
        row = f"{name}, offset {offset}"
        last[row], area[row] = {}, {}
        for j, method in enumerate(LEARNERS, 1):
            curve = learn(pamdp, method, iterations=POLICY_ITERATIONS, episodes=EPISODES, rate=POLICY_RATE, seed=0)
            share = (curve - lowest) / (highest - lowest)
            last[row][method.label], area[row][method.label] = mean_cell(share[-1]), mean_cell(share.mean(0))
            progress("learning", i * len(LEARNERS) + j, steps)
    settings: dict[str, str | int | float] = {
        "runs": ", ".join(f"{name} {runs}" for name, runs in POLICY_RUNS.items()),
        "seed": 0,
        "T": POLICY_HORIZON,
        "γ": GAMMA,
        "iterations": POLICY_ITERATIONS,
        "dialogues an iteration": EPISODES,
        "rate": POLICY_RATE,
        "critics' step": "1 / visits, at least .1",
        **PROBLEM_TEXTS,
    }
    title = "Learning: share of the way from the uniform to the best policy, {} (more is better)"
    return [
        Section("policy_last", title.format("at the end"), settings, last),
        Section("policy_mean", title.format("mean over the iterations"), settings, area),
    ]

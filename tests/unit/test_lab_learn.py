"""Learning with tables: what the critics converge to, what Eq. 14 to the letter costs, and the report."""

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pamdp.lab import benchmark
from pamdp.lab import learn as learning
from pamdp.lab.environments import ask, persona, random_pamdps, seven_problems
from pamdp.lab.exact import METHODS
from pamdp.lab.learn import LearnedAdvantage, learn, watch
from pamdp.lab.report import LabReport, LabResult, Section, mean_cell, mean_ratio_cell, ratio_cell
from pamdp.lab.sampling import sample, scores_sq
from pamdp.lab.tabular import (
    TabularPamdp,
    TabularStep,
    objective,
    optimal_return,
    policy_gradient,
    replicate,
    solve,
    uniform,
)
from pamdp.progress import Progress
from pamdp.rl.checks import AdvantageInputs
from pamdp.rl.odc import OptimalDualCritic
from pamdp.rl.returns import literal_target

A2C, UAAC, DCRL, PAMDP_X, PAMDP_W, ODC, SAFE = METHODS


@pytest.mark.parametrize("target", ["matched", "full"])
def test_critics_converge_to_the_oracle_value_that_their_target_means(target: str) -> None:
    method = {"matched": PAMDP_W, "full": UAAC}[target]
    pamdp = replicate(persona(offset=2.0), 4)
    s = solve(pamdp, uniform(pamdp))
    learned = watch(pamdp, method, s.policy, batches=300, episodes=128, seed=0)
    oracle, other = (s.matched, s.full) if target == "matched" else (s.full, s.matched)
    seen = [p.sum(0) > 0.02 for p in s.occupancy]
    for t in range(2):
        assert float((learned.v_h[t] - s.v[t])[:, seen[t].all(-1)].abs().mean()) < 0.15
        assert float((learned.v_hw[t] - oracle[t])[:, seen[t]].abs().mean()) < 0.15
    assert float((learned.v_hw[0] - other[0]).abs().mean()) > 1.0


def test_coefficients_come_from_earlier_dialogues_only() -> None:
    pamdp = replicate(persona(offset=2.0), 3)
    learned = LearnedAdvantage(pamdp, ODC)
    policy = [each.softmax(-1) for each in uniform(pamdp)]
    first = learned.coefficients()
    assert first is not None
    assert first.tolist() == [list(OptimalDualCritic().coefficients())] * 3
    for seed in range(3):
        dialogues = sample(pamdp, policy, 32, torch.Generator().manual_seed(seed))
        inputs = learned.inputs(dialogues)
        before = learned.coefficients()
        learned.advantage(inputs)
        assert torch.equal(learned.coefficients(), before)
        learned.update(dialogues, inputs, scores_sq(policy, dialogues))
    assert not torch.equal(learned.coefficients(), first)


def test_coefficients_are_taken_before_the_critics_see_the_dialogues() -> None:
    """The moments of the first batch are those of critics that are 0, so they say nothing: the prior stays."""
    pamdp = replicate(persona(offset=2.0), 1)
    learned = LearnedAdvantage(pamdp, ODC)
    policy = [each.softmax(-1) for each in uniform(pamdp)]
    dialogues = sample(pamdp, policy, 32, torch.Generator().manual_seed(0))
    learned.update(dialogues, learned.inputs(dialogues), scores_sq(policy, dialogues))
    assert learned.coefficients().tolist() == [[0.5, 0.5]]
    assert float(learned.v_hw[0].abs().max()) > 0


@pytest.mark.parametrize("name", list(seven_problems()))
def test_with_learned_critics_odc_is_within_15_percent_of_the_best(name: str) -> None:
    errors = benchmark.gradient_errors(seven_problems()[name], (32, 512), runs=50, seed=0)
    for size, by_method in errors.items():
        mse = {label: float(value.mean()) for label, value in by_method.items()}
        assert mse["ODC"] <= 1.15 * min(mse.values()), (size, mse)


def test_large_batches_lean_less_on_the_critic_that_is_bootstrapped_from() -> None:
    pamdp = replicate(persona(offset=2.0, resample=1.0), 20)
    policy = [each.softmax(-1) for each in uniform(pamdp)]
    learned = watch(pamdp, ODC, policy, batches=16, episodes=32, seed=0)
    alone, small, large = (learned.coefficients(size)[:, 1].mean() for size in (0, 1, 16))
    # a memoryless profile: Z2 is noise, so variance alone wants c2 = 0; but V_φ(h′) has the offset's noise, V_ξ has not
    assert alone < small < large
    assert abs(float(alone)) < 0.15
    assert float(large) > 0.3


def invest(*, gamma: float = 0.99) -> TabularPamdp:
    """One profile, T = 4: utterance 1 costs .25 at turns 0..2; reward 3 at turn 3 if it was chosen at all three."""
    turns = []
    for t in range(4):
        reward = torch.zeros(1, 2**t, 1, 2, dtype=torch.float64)
        if t < 3:
            reward[..., 1] = -0.25
        else:
            reward[:, -1] = 3.0
        one = torch.ones(1, 2**t, 1, 2, 1, dtype=torch.float64)
        turns.append(TabularStep(reward, one, one.unsqueeze(-1)))
    return TabularPamdp(torch.ones(1, 1, dtype=torch.float64), tuple(turns), gamma)


class LiteralAdvantage(LearnedAdvantage):
    """With Eq. 14 to the letter."""

    def targets(self, inputs: AdvantageInputs) -> tuple[torch.Tensor, torch.Tensor]:
        values = ((inputs.v_h, inputs.v_h_next), (inputs.v_hw, inputs.v_h_next))
        h, hw = (literal_target(inputs.reward, v, v_next) for v, v_next in values)
        return h, hw


# 12
def test_a_late_reward_is_learned_from_td_targets_and_lost_by_the_literal_ones() -> None:
    problem = invest()
    assert abs(float(optimal_return(problem)) - 2.1684) < 1e-4
    pamdp = replicate(problem, 4)
    given = {"iterations": 300, "episodes": 64, "rate": 5.0, "seed": 0}
    assert float(learn(pamdp, PAMDP_W, **given)[-1].min()) >= 2.16
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "LearnedAdvantage", LiteralAdvantage)
        assert float(learn(pamdp, PAMDP_W, **given)[-1].max()) <= 0.01


def test_every_method_learns() -> None:
    problem = persona(horizon=2)
    pamdp = replicate(problem, 10)
    for method in METHODS:
        curve = learn(pamdp, method, iterations=40, episodes=32, rate=2.0, seed=0)
        share = (curve[-1].mean() - objective(problem, uniform(problem))) / optimal_return(problem)
        assert float(share) > 0.9, method.label


def test_the_best_policy_is_at_least_as_good_as_every_other() -> None:
    pamdp, logits, _ = random_pamdps("static", 10, seed=1)
    best = optimal_return(pamdp)
    assert (best >= objective(pamdp, logits)).all()
    assert (best >= objective(pamdp, uniform(pamdp))).all()
    for _ in range(300):
        gradient = policy_gradient(pamdp, solve(pamdp, logits))
        logits = [a + 50 * b for a, b in zip(logits, gradient, strict=True)]
    assert float((best - objective(pamdp, logits)).median()) < 0.02


def test_the_named_problems_are_what_they_say() -> None:
    assert float(objective(persona(), uniform(persona()))) == pytest.approx(0)
    # asked at the first turn, every later guess is right: -.25 + .95 + .9025
    assert float(optimal_return(ask())) == pytest.approx(-0.25 + 0.95 + 0.95**2)
    assert float(optimal_return(ask(offset=2.0))) == pytest.approx(float(optimal_return(ask())))
    drawn = persona(resample=1.0).turns[0].drift
    assert torch.equal(drawn, torch.full_like(drawn, 0.5))
    assert float(persona(terminal=True).turns[1].reward.abs().max()) == 0
    with pytest.raises(Exception, match="unknown regime"):
        random_pamdps("weekly", 1, seed=0)


def test_cells() -> None:
    values = torch.tensor([1.0, 3.0], dtype=torch.float64)
    assert mean_cell(values).value == 2.0
    assert mean_cell(values).high == pytest.approx(2 + 1.96)
    assert ratio_cell(values * 3, values) == LabResult(pytest.approx(3.0), pytest.approx(3.0), pytest.approx(3.0))
    assert mean_ratio_cell(values, values) == LabResult(1.0, 1.0, 1.0)
    assert mean_ratio_cell(torch.tensor([4.0, 0.0]).double(), values).value == 1.0
    assert str(LabResult(0.5, 0.25, 0.75)) == "0.50 ±0.25"
    assert str(LabResult(3.0)) == "3"
    assert str(LabResult(1.3e-10)) == "1.3e-10"


def test_the_report_says_all_it_knows_in_three_forms(tmp_path: Path) -> None:
    section = Section(
        "s", "Title [of] it", {"seed": 0}, {"row": {"A2C": LabResult(1.0, 0.9, 1.1), "ODC": LabResult(7.0)}}
    )
    report = LabReport((section,), 1.5)
    read = json.loads(report.to_json())
    assert read["sections"][0]["rows"]["row"]["A2C"] == {"value": 1.0, "low": 0.9, "high": 1.1}
    console = Console(width=100, record=True)
    console.print(section.table())
    text = console.export_text()
    assert all(part in text for part in ("Title [of] it", "seed: 0", "1.00 ±0.10", "7"))
    report.figure(tmp_path / "lab.png")
    assert (tmp_path / "lab.png").stat().st_size > 1000


def test_the_benchmark_prints_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []

    class Bar(Progress):
        def advance(self, steps: int = 1, note: str = "") -> None:
            seen.append((self.what, self.total))

    monkeypatch.setattr(benchmark, "Progress", Bar)
    monkeypatch.setitem(benchmark.EXACT, "problems", 5)
    monkeypatch.setitem(benchmark.LEARNED, "runs", 3)
    for name, few in {"runs of persona": 2, "runs of ask": 2, "iterations": 2}.items():
        monkeypatch.setitem(benchmark.POLICY, name, few)
    report = benchmark.run_benchmark()
    rows = {section.name: section.rows for section in report.sections}
    assert list(rows["exact_variance"]) == ["static", "offset", "terminal", "evolving", "memoryless"]
    assert list(rows["learned_32"]) == list(rows["learned_512"]) == list(rows["odc_to_best"]) == list(seven_problems())
    assert list(rows["policy_last"]) == ["persona, offset 0", "persona, offset 4", "ask, offset 0", "ask, offset 4"]
    labels = [method.label for method in METHODS]
    assert all(list(row) == labels for row in rows["learned_32"].values())
    assert all(list(row) == labels[:-1] for row in rows["policy_last"].values())
    assert all(row["error of E[gradient]"].value < 1e-9 for row in rows["exact_checks"].values())
    assert all(section.settings["seed"] == 0 for section in report.sections)
    assert seen == [("exact critics", 5)] * 5 + [("learned critics", 7)] * 7 + [("learning", 24)] * 24
    assert rows["exact_variance"].keys() < report.sections[0].settings.keys()
    assert all(section.settings["γ"] == 0.95 for section in report.sections)

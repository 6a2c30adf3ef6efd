"""The advantage estimators by hand: r = [1, -1], γ = [.9, 0], and values that differ everywhere."""

from dataclasses import replace

import pytest
import torch

from pamdp.registry import ADVANTAGES
from pamdp.rl.advantages import (
    a2c_advantage,
    compute_advantage,
    dcrl_advantage,
    dual_critic_advantage,
    lambda_advantage,
    uaac_advantage,
)
from pamdp.rl.checks import AdvantageInputs
from pamdp.rl.odc import odc_advantage


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


R, G = vector(1, -1), vector(0.9, 0)
V, V_NEXT = vector(0.2, 0.4), vector(2, 7)
X, X_NEXT = vector(0.5, 0.6), vector(3, 9)
BATCH = AdvantageInputs(R, G, V, V_NEXT, X, X_NEXT)


def check(result: torch.Tensor, *expected: float) -> None:
    assert not result.requires_grad, "an advantage is a constant to the actor loss"
    torch.testing.assert_close(result, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a2c() -> None:
    check(a2c_advantage(R, G, V, V_NEXT), 2.6, -1.4)


def test_uaac() -> None:
    check(uaac_advantage(R, G, X, X_NEXT), 3.2, -1.6)


def test_dcrl() -> None:
    check(dcrl_advantage(R, G, V, V_NEXT, X, X_NEXT, 0.25), 2.75, -1.45)


def test_pamdp() -> None:
    check(dual_critic_advantage(R, G, V_NEXT, X), 2.3, -1.6)


def test_odc() -> None:
    check(odc_advantage(BATCH, 0.5, 0.25), 2.6 - 0.15 + 0.225, -1.4 - 0.1)


def test_odc_coefficients_by_turn() -> None:
    c1, c2 = torch.tensor([0.5, 1.0]), torch.tensor([0.25, 0.0])
    check(odc_advantage(BATCH, c1, c2), 2.675, -1.6)


def test_odc_further_controls() -> None:
    control = vector(1, 2)
    check(odc_advantage(replace(BATCH, controls=(control,)), 0.5, 0.25, (0.1,)), 2.575, -1.7)


def test_lambda_advantage() -> None:
    # G_1 = -1 + .9·7 = 5.3, G_0 = 1 + .9·(.5·2 + .5·5.3) = 4.285
    check(lambda_advantage(R, vector(0.9, 0.9), V_NEXT, X, 0.5), 3.785, 4.7)


def test_registry() -> None:
    check(compute_advantage("a2c", BATCH), 2.6, -1.4)
    check(compute_advantage("uaac", BATCH), 3.2, -1.6)
    check(compute_advantage("dcrl", BATCH), 2.9, -1.5)
    check(compute_advantage("dcrl", BATCH, beta=0.25), 2.75, -1.45)
    check(compute_advantage("pamdp", BATCH), 2.3, -1.6)
    check(compute_advantage("odc", BATCH, coefficients=(0.5, 0.25)), 2.675, -1.5)
    check(compute_advantage("odc_safe", BATCH, coefficients=(0.5, 0.25)), 2.45, -1.5)


def test_oracle_targets() -> None:
    targets = {name: ADVANTAGES[name].oracle_target for name in ADVANTAGES}
    assert {name for name, target in targets.items() if target == "full"} == {"uaac", "dcrl", "odc"}
    assert {name for name, target in targets.items() if target == "matched"} == {"a2c", "pamdp", "odc_safe"}


@pytest.mark.parametrize("name", ["a2c", "uaac", "dcrl", "pamdp", "odc", "odc_safe"])
def test_terminal_transition_takes_nothing_from_what_follows(name: str) -> None:
    far = AdvantageInputs(R, G, V, vector(2, 1e6), X, vector(3, -1e6))
    given = {"coefficients": (0.5, 0.25)}
    assert compute_advantage(name, far, **given)[1] == compute_advantage(name, BATCH, **given)[1]

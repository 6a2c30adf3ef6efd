"""Every registered advantage keeps the contract; one that does not is told how."""

from collections.abc import Callable

import pytest
import torch

from pamdp.registry import ADVANTAGES
from pamdp.rl.checks import AdvantageInputs
from pamdp.testing import check_advantage


@pytest.mark.parametrize("name", [name for name in ADVANTAGES if not name.startswith("odc")])
def test_it_keeps_the_contract(name: str) -> None:
    check_advantage(ADVANTAGES[name].estimate)


@pytest.mark.parametrize(
    ("estimate", "says"),
    [
        (lambda b: (b.reward - b.v_h)[:, None], "one number for each transition"),
        (lambda b: b.reward / 0.0, "finite"),
        (lambda b: b.reward + b.v_h_next - b.v_h, "use discount"),
    ],
)
def test_who_breaks_the_contract_is_told_how(estimate: Callable[[AdvantageInputs], torch.Tensor], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_advantage(estimate)

"""Every function of the mathematics refuses shapes that would broadcast and settings out of range, by name."""

from collections.abc import Callable

import pytest
import torch

from pamdp.errors import ConfigError, ShapeError
from pamdp.rl import advantages, losses, odc, returns
from pamdp.rl.checks import AdvantageInputs, kept, require_same_shape

FLAT, HEAD = torch.zeros(2), torch.zeros(2, 1)
TRUE = torch.ones(2, dtype=torch.bool)

ELEMENTWISE: dict[Callable[..., object], tuple[str, ...]] = {
    advantages.a2c_advantage: ("reward", "discount", "v_h", "v_h_next"),
    advantages.uaac_advantage: ("reward", "discount", "v_hw", "v_hw_next"),
    advantages.dual_critic_advantage: ("reward", "discount", "v_h_next", "v_hw"),
    returns.td_target: ("reward", "discount", "v_next"),
    returns.literal_target: ("reward", "v", "v_next"),
    losses.gaussian_log_prob: ("action", "mean"),
    losses.gaussian_kl: ("mean", "mean_ref"),
    losses.actor_loss: ("log_prob", "advantage", "kl", "mask"),
    losses.surrogate_loss: ("log_prob", "log_prob_old", "advantage", "mask"),
    losses.critic_loss: ("v_h", "target_h", "v_hw", "target_hw", "mask"),
    returns.explained_variance: ("prediction", "target", "mask"),
    advantages.dcrl_advantage: ("reward", "discount", "v_h", "v_h_next", "v_hw", "v_hw_next"),
    advantages.lambda_advantage: ("reward", "discount", "v_h_next", "v_hw"),
    returns.lambda_returns: ("reward", "discount", "v_next", "last"),
    odc.leave_one_out_control: ("target", "v_h", "mask"),
    AdvantageInputs: ("reward", "discount", "v_h", "v_h_next", "v_hw", "v_hw_next"),
}
OTHERS = {"beta": 0.5, "sigma": 1.0, "kl_coef": 0.1, "clip": 0.2, "lam": 0.5}
CASES = [(function, name) for function, names in ELEMENTWISE.items() for name in names]


def settings(function: Callable[..., object]) -> dict[str, float]:
    code = function.__init__.__code__ if isinstance(function, type) else function.__code__
    return {name: value for name, value in OTHERS.items() if name in code.co_varnames}


@pytest.mark.parametrize(("function", "odd"), CASES, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_a_column_among_rows_is_refused_by_name(function: Callable[..., object], odd: str) -> None:
    given = {name: TRUE if name in ("mask", "last") else FLAT for name in ELEMENTWISE[function]}
    function(**settings(function) | given)
    with pytest.raises(ShapeError, match=r"\(2, 1\)") as caught:
        function(**settings(function) | given | {odd: given[odd].unsqueeze(-1)})
    assert odd in str(caught.value) or odd == "last"


def test_the_message_names_every_argument_and_its_shape() -> None:
    with pytest.raises(ShapeError, match=r"reward \(2,\), v_hw \(2, 1\)"):
        require_same_shape(reward=FLAT, v_hw=HEAD)


def test_kept_without_mask_still_checks() -> None:
    with pytest.raises(ShapeError):
        kept(None, a=FLAT, b=HEAD)


def test_controls_are_checked_and_counted() -> None:
    six = [FLAT] * 6
    with pytest.raises(ShapeError, match=r"controls\[0\] \(2, 1\)"):
        AdvantageInputs(*six, controls=(HEAD,))
    with pytest.raises(ShapeError, match="1 controls but 0"):
        odc.odc_advantage(AdvantageInputs(*six, controls=(FLAT,)), 0.5, 0.5)
    for odd in ({"c1": HEAD}, {"c2": HEAD}):
        with pytest.raises(ShapeError, match=r"c[12] \(2, 1\)"):
            odc.odc_advantage(AdvantageInputs(*six), **{"c1": 0.5, "c2": 0.5} | odd)
    with pytest.raises(ShapeError, match="1 controls in the batch, 0 expected"):
        odc.OptimalDualCritic().update(AdvantageInputs(*six, controls=(FLAT,)), FLAT)
    with pytest.raises(ShapeError, match="score_sq"):
        odc.OptimalDualCritic().update(AdvantageInputs(*six), HEAD)


def test_odc_shapes() -> None:
    with pytest.raises(ShapeError):
        odc.optimal_coefficients(torch.eye(3), torch.zeros(2))
    with pytest.raises(ShapeError, match="features"):
        odc.gaussian_score_sq(torch.zeros(3, 4), torch.zeros(2, 1), torch.zeros(2, 1), 1.0)
    with pytest.raises(ShapeError, match="mean"):
        odc.gaussian_score_sq(torch.zeros(2, 4), torch.zeros(2, 1), torch.zeros(2, 3), 1.0)
    with pytest.raises(ShapeError, match="two samples"):
        odc.leave_one_out_control(torch.zeros(5, 1), torch.zeros(5, 1))


def test_cloning_loss_shapes() -> None:
    tokens, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ShapeError, match="token_log_prob"):
        losses.cloning_loss(tokens[:, :2], mask)
    with pytest.raises(ShapeError, match="transition_mask"):
        losses.cloning_loss(tokens, mask, TRUE.unsqueeze(-1))


REFUSED: list[Callable[[], object]] = [
    lambda: advantages.dcrl_advantage(*[FLAT] * 6, beta=1.1),
    lambda: advantages.dcrl_advantage(*[FLAT] * 6, beta=-0.1),
    lambda: advantages.compute_advantage("ppo", AdvantageInputs(*[FLAT] * 6)),
    lambda: advantages.compute_advantage("odc", AdvantageInputs(*[FLAT] * 6)),
    lambda: advantages.compute_advantage("odc", AdvantageInputs(*[FLAT] * 6), coefficients=(1.0,)),
    lambda: advantages.compute_advantage("odc_safe", AdvantageInputs(*[FLAT] * 6), coefficients=(1.0, 0.0, 0.0)),
    lambda: returns.lambda_returns(FLAT, FLAT, FLAT, -0.1),
    lambda: returns.max_value(0.0, 0.9, 3),
    lambda: returns.max_value(1.0, 0.9, 0),
    lambda: returns.max_value(1.0, 0.9, 3, margin=0.9),
    lambda: returns.max_value(1.0, 1.1, 3),
    lambda: losses.gaussian_log_prob(FLAT, FLAT, 0.0),
    lambda: losses.gaussian_kl(FLAT, FLAT, -1.0),
    lambda: losses.actor_loss(FLAT, FLAT, FLAT, -0.1),
    lambda: losses.surrogate_loss(FLAT, FLAT, FLAT, 0.0),
    lambda: losses.critic_loss(FLAT, FLAT, FLAT, FLAT, alpha1=-1.0),
    lambda: losses.critic_loss(FLAT, FLAT, FLAT, FLAT, alpha2=-1.0),
    lambda: losses.critic_loss(FLAT, FLAT, FLAT, FLAT, kind="huber"),
    lambda: odc.gaussian_score_sq(HEAD, HEAD, HEAD, 0.0),
    lambda: odc.OptimalDualCritic(decay=1.5),
    lambda: odc.OptimalDualCritic(ridge=-1.0),
    lambda: odc.OptimalDualCritic(controls=-1),
    lambda: odc.OptimalDualCritic().load_state_dict(odc.OptimalDualCritic(controls=1).state_dict()),
]


@pytest.mark.parametrize("call", REFUSED)
def test_settings_out_of_range_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        call()

"""How a reply's likelihood changes with the action: held against small steps in double precision."""

from __future__ import annotations

import pytest
import torch

from pamdp.models.actor import Planner
from pamdp.models.backbone import Readout
from pamdp.models.policy import Policy
from pamdp.types import Message
from tests.tools.tiny import make_tiny_backbone

ACTIONS = torch.tensor([[0.5, -1.0, 0.2], [1.0, 0.3, -0.4]], dtype=torch.float64)
REPLIES = ("Green tea, then.", "No.")


@pytest.fixture(scope="module", params=[0, 2])
def policy(request: pytest.FixtureRequest) -> Policy:
    """Actions shift hidden states; with 2 they are embeddings, too."""
    backbone = make_tiny_backbone(dtype=torch.float64)
    torch.manual_seed(0)
    planner = Planner(backbone.d, backbone.d, 3, request.param, steers=True).double()
    torch.nn.init.normal_(planner.steering)
    return Policy(backbone, planner, None, Readout(("header",), 1))


def test_scores_are_what_a_small_change_of_the_action_does(policy: Policy) -> None:
    prefix = policy.prefix((Message("user", "Tea?"),))
    replies = [policy.backbone.chat.reply(text) for text in REPLIES]
    found = policy.scores(prefix, -1, replies, list(ACTIONS))

    def log_p(k: int, action: torch.Tensor) -> float:
        with torch.no_grad():
            return float(policy.log_probs(prefix, [policy.branch(prefix, -1, replies[k], action)])[0].sum())

    step = 1e-2  # log-probabilities are single numbers
    for k, action in enumerate(ACTIONS):
        for i, unit in enumerate(torch.eye(3, dtype=torch.float64)):
            slope = (log_p(k, action + step * unit) - log_p(k, action - step * unit)) / (2 * step)
            assert float(found[k, i]) == pytest.approx(slope, rel=1e-2, abs=1e-2)


def test_sensitivities_are_the_scores_of_the_shift_itself() -> None:
    backbone = make_tiny_backbone(dtype=torch.float64)
    planner = Planner(backbone.d, backbone.d, 3, 0, steers=True).double()
    torch.nn.init.normal_(planner.steering)
    policy = Policy(backbone, planner, None, Readout(("header",), 1))
    prefix = policy.prefix((Message("user", "Tea?"),))
    replies = [policy.backbone.chat.reply(text) for text in REPLIES]
    shifts = policy.sensitivities(prefix, [(0, ids) for ids in replies])
    own = policy.scores(prefix, 0, replies, list(torch.zeros(2, 3, dtype=torch.float64)))
    assert own.abs().max() > 1e-3
    torch.testing.assert_close(own, shifts @ planner.steering.T)

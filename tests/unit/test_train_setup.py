"""A policy is built or refused: actions can only shift hidden states between two layers."""

from __future__ import annotations

import pytest

from pamdp.config import CloneConfig, Config, ModelConfig
from pamdp.errors import ConfigError, ModelError
from pamdp.train.setup import new_policy
from tests.tools.tiny import make_tiny_backbone


def _config(depth: float, steer: float) -> Config:
    return Config(model=ModelConfig(d_a=4, depth=depth), clone=CloneConfig(backbone="frozen", steer=steer))


@pytest.mark.parametrize(
    ("depth", "where"), [(1.0, "the last layer"), (0.9, "the last layer"), (0.0, "the embeddings")]
)
def test_steering_where_nothing_can_be_shifted_is_refused(depth: float, where: str) -> None:
    with pytest.raises(ConfigError, match=f"reads {where}.*set a depth between 0 and 1.*or clone.steer=0"):
        new_policy(make_tiny_backbone(), _config(depth, steer=8.0))
    policy = new_policy(make_tiny_backbone(), _config(depth, steer=0.0))
    assert policy.planner is not None and policy.planner.steering is None


def test_steering_between_two_layers_is_built() -> None:
    policy = new_policy(make_tiny_backbone(), _config(0.5, steer=8.0))
    assert policy.readout.layer == 1
    assert policy.planner is not None and policy.planner.steering is not None
    assert policy.planner.steering.shape == (4, 32)


@pytest.mark.parametrize("layer", [-1, 0])
def test_a_backbone_refuses_to_shift_where_there_is_no_layer(layer: int) -> None:
    backbone = make_tiny_backbone()
    with backbone.steering(layer, None):
        pass
    with pytest.raises(ModelError, match=f"layer {layer} cannot"), backbone.steering(layer, backbone.embed_ids([1])):
        pass

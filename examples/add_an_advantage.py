"""A new advantage in five lines, named in settings and tables as the package's own are.

`pamdp train offline --plugin examples/add_an_advantage.py --run runs/clipped rl.advantage=clipped`
`pamdp reproduce table2 --plugin examples/add_an_advantage.py 'methods=["clipped"]'`
"""

import torch

import pamdp
from pamdp.rl.checks import AdvantageInputs


@pamdp.advantage("clipped", oracle_target="matched")
def clipped(b: AdvantageInputs) -> torch.Tensor:
    """Eq. 6 with large surprises cut: (r + γ·V_φ(h′) − V_ξ(h, ω)), clipped to [−1, 1]; [n] in, [n] out."""
    return (b.reward + b.discount * b.v_h_next - b.v_hw).clamp(-1, 1)

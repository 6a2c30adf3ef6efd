"""How well a critic predicts.

Owns that figure of merit. Knows nothing of models; rates of success are in evaluation/success.py.
"""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from pamdp.rl.checks import kept


def explained_variance(
    prediction: Float[Tensor, "..."], target: Float[Tensor, "..."], mask: Bool[Tensor, "..."] | None = None
) -> float:
    """Share of the target's variance that a critic explains; 1 perfect, 0 a constant, below 0 worse than one.

        1 − Var[target − prediction] / Var[target]

    NaN where the target does not vary (or fewer than two entries count): there is nothing to explain.

    Raises:
      ShapeError: shapes differ.
    """
    prediction, target = kept(mask, prediction=prediction, target=target)
    if target.numel() < 2:
        return float("nan")
    total = target.double().var(correction=0)
    if total <= 0:
        return float("nan")
    return float(1 - (target.double() - prediction.double()).var(correction=0) / total)

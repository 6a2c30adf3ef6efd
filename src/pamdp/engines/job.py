"""What an engine is asked for, and what it tells meanwhile.

Owns plain records. Knows nothing of how replies are written, or of who asks over which protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pamdp.errors import PamdpError
from pamdp.models.generate import Sampling
from pamdp.models.policy import Policy
from pamdp.types import History

Numbers = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """The history was read.

    Attributes:
      prompt_tokens: of the history.
      cached_tokens: how many of them were known from an earlier turn.
      seconds: from being asked to having been read.
    """

    prompt_tokens: int
    cached_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Piece:
    """More text of reply number `index`."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A reply is over.

    Attributes:
      text: all of it.
      rest: what no `Piece` has brought.
      reason: "length" where the budget broke it off.
      tokens: how many were written.
      action, mean: u's latent action and the mean that it was drawn around; None where the policy has no planner.
      sigma: standard deviation with which it was drawn; 0 where it is the mean.
    """

    index: int
    text: str
    rest: str
    reason: Literal["stop", "length"]
    tokens: int
    action: Numbers | None
    mean: Numbers | None
    sigma: float


@dataclass(frozen=True, slots=True)
class Failed:
    """No more comes of this job."""

    error: PamdpError


Event = Started | Piece | Ended | Failed


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Replies to one history.

    Attributes:
      policy: who replies.
      history: what it sees, after its own instruction.
      sampling: how tokens are drawn; `max_tokens` shrinks to what the context leaves.
      space: who may use what is kept of this history: the user first, then what else tells two readings apart.
      emit: is told every event, in the engine's thread; it must not wait.
      n: how many replies.
      seed: of the draws of the first reply; the others' follow from it.
      stop: texts before which a reply ends.
      stream: whether pieces are wanted.
      explore: share of the policy's σ with which actions are drawn; 0: the mean action.
      actions: under what each reply is written in place of the policy's own; None, or none at all: its own.
    """

    policy: Policy
    history: History
    sampling: Sampling
    space: tuple[str, ...]
    emit: Callable[[Event], None]
    n: int = 1
    seed: int = 0
    stop: tuple[str, ...] = ()
    stream: bool = False
    explore: float = 0.0
    actions: tuple[Numbers | None, ...] = ()

"""What the server writes down of a reply that it has given: enough to learn from it later.

Owns the record alone. Knows nothing of HTTP, of engines and of where records are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pamdp.types import History


@dataclass(frozen=True, slots=True)
class ServedReply:
    """One reply to one user.

    Attributes:
      id: of the reply; what a client sees as the completion's id, and what feedback refers to.
      user: who was talking: the client's `user` field, or else the name of its key.
      model: the name that the client asked for.
      version: of the policy that replied, so that ratios of actions are taken against the right one.
      history: what the policy saw, its own instruction left out; a client's system message may begin it, and the
        user's message ends it.
      text: the reply, whole.
      action, mean: u's latent action and the mean that it was drawn around, each of length d_a; None where the model
        has no planner.
      sigma: standard deviation of the action; 0 where it is the mean.
      created: seconds since 1970.
    """

    id: str
    user: str
    model: str
    version: str
    history: History
    text: str
    action: tuple[float, ...] | None
    mean: tuple[float, ...] | None
    sigma: float
    created: float

    @property
    def spoken(self) -> History:
        """The history without a client's system message: what all data hold of a chat."""
        return self.history[1:] if self.history[0].role == "system" else self.history


class Recorder(Protocol):
    """Where served replies go. Returns once the record would survive a crash."""

    def served(self, reply: ServedReply) -> None:
        """Write one down."""

"""Doing the same with many items, here or elsewhere: what a launcher is, and the one that calls a function.

Owns the protocol. Knows nothing of what is done, nor of other processes (ray_launcher.py). A function that is launched
stands in a module; it is given the site (models and judges, which are built once and stay where they are), what all
items share, its item, and whom to tell what happens meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)
X = TypeVar("X")
I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")
Tell = Callable[[object], None]
"""Told what happens while an item is done, such as turns that ended; it is heard before the item's result is."""


def unheard(event: object) -> None:
    """Whom to tell what nobody wants to know."""


class Launcher(Protocol[S_co]):
    """Does items at sites S."""

    @property
    def workers(self) -> int:
        """How many items are done at a time; 0: by this process, in which objects need not be sent anywhere."""

    def map(
        self,
        function: Callable[[S_co, X, I, Tell], R],
        shared: X,
        items: Sequence[Callable[[], I]],
        heard: Tell = unheard,
    ) -> list[R]:
        """FUNCTION of every item, in order.

        Args:
          items: makers of the items; one that a dead worker had is made again, so that what was heard of it is in it.
          heard: hears what is told, in this thread; of one item in its order.

        Raises:
          PamdpError: one of an item; the others that are under way end first.
        """

    def rates(self) -> str:
        """What each worker does in a second, to show beside a bar."""


@dataclass(frozen=True, slots=True)
class Local(Generic[S]):
    """Does one item after another, here, at SITE."""

    site: S
    workers: int = 0

    def map(
        self, function: Callable[[S, X, I, Tell], R], shared: X, items: Sequence[Callable[[], I]], heard: Tell = unheard
    ) -> list[R]:
        """FUNCTION of every item, in order; see Launcher."""
        return [function(self.site, shared, item(), heard) for item in items]

    def rates(self) -> str:
        """Nothing: the bar says it."""
        return ""

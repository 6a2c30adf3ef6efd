"""Methods by name: those of the package, those that plugins bring, and one for every registered advantage.

Owns what a name means in a table. A new method is a file that calls `register` (examples/add_a_method.py).
"""

from __future__ import annotations

from pamdp.baselines.latent import reinforced_method
from pamdp.baselines.method import Method
from pamdp.registry import ADVANTAGES, METHODS


def find(name: str) -> Method:
    """The method of that name; the name of an advantage is the method that reinforces with it.

    Raises:
      ConfigError: there is none; the message lists what there is.
    """
    if name not in METHODS and name in ADVANTAGES:
        return reinforced_method(name)
    return METHODS[name]


def names() -> tuple[str, ...]:
    """Names of all methods that are known."""
    return tuple(METHODS)

"""Who asks, and whose users are whose.

Owns how ids of users carry the name of their key. Knows nothing of how a key is checked.
"""

from __future__ import annotations

from collections.abc import Callable

Asker = tuple[str, str, bool]
"""Who asks: the name of the key, the user that it speaks for, and whether it may ask for everybody."""
Who = Callable[..., Asker]
"""A dependency of FastAPI that gives the asker, or answers 401 by itself."""


def namespaced(key: str, user: str | None) -> str:
    """The id of what a client calls USER; all who talk through a key without such a name are one user, the key's.

    A key's name holds no colon (keys.py), so no other key's user has this id.
    """
    return f"{key}:{user}" if user and user != key else key


def belongs(id: str, key: str) -> bool:
    """Whether the user ID is one of the KEY's."""
    return id == key or id.startswith(f"{key}:")

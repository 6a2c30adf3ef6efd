"""Keys of clients: made, stored as hashes, and recognised; and how much each may ask for.

Owns the file of keys and the counting. Knows nothing of HTTP. A key is 256 random bits, so its plain sha256 gives
nothing away.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from pamdp.errors import ConfigError
from pamdp.settings import Settings, load

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
"""A key's name; it has no colon, which parts it from the names of its users."""
WINDOW = 60.0


class Key(Settings):
    """One key.

    Attributes:
      sha256: of the key, in hexadecimal.
      requests_per_minute, concurrent: limits of what it may ask for; none without.
      admin: whether it may load other policies and read metrics.
    """

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    requests_per_minute: int | None = Field(default=None, ge=1)
    concurrent: int | None = Field(default=None, ge=1)
    admin: bool = False


class KeyFile(Settings):
    """A file of keys.

    Attributes:
      keys: each by its name.
    """

    keys: dict[Name, Key]

    @field_validator("keys")
    @classmethod
    def _any(cls, keys: dict[str, Key]) -> dict[str, Key]:
        if not keys:
            raise ValueError("there is no key in it; make one with `pamdp serve-key NAME`")
        return keys


class Caller:
    """Who asks: a key, and what it has asked for lately."""

    def __init__(self, name: str, key: Key, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.admin, self._key, self._clock = name, key.admin, key, clock
        self._asked: deque[float] = deque()
        self.running = 0

    def ask(self) -> float:
        """Count a request; more than 0: none is left, and so many seconds until there is."""
        now = self._clock()
        while self._asked and self._asked[0] <= now - WINDOW:
            self._asked.popleft()
        if self._key.requests_per_minute is not None and len(self._asked) >= self._key.requests_per_minute:
            return self._asked[0] + WINDOW - now
        if self._key.concurrent is not None and self.running >= self._key.concurrent:
            return 1.0
        self._asked.append(now)
        return 0.0


class Keys:
    """The keys of a server; None: whoever reaches it is its owner."""

    def __init__(self, keys: Mapping[str, Key] | None = None) -> None:
        self.open = keys is None
        owner = Caller("local", Key(sha256="0" * 64, admin=True))
        self._owner = owner if self.open else None
        self._callers = [(bytes.fromhex(key.sha256), Caller(name, key)) for name, key in (keys or {}).items()]

    def caller(self, secret: str) -> Caller | None:
        """Whose key it is; how long it takes does not depend on that."""
        digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        found = self._owner
        for stored, caller in self._callers:
            if hmac.compare_digest(stored, digest):
                found = caller
        return found


def read_keys(file: Path) -> Keys:
    """The keys in FILE (TOML); a ConfigError where it is no such file."""
    if file.suffix != ".toml":
        raise ConfigError(f"{file}: the name of a file of keys ends in .toml")
    return Keys(load(KeyFile, [file]).keys)


def new_key(name: str) -> tuple[str, str]:
    """A new key, and the lines by which a file of keys knows it; a ConfigError where NAME is none."""
    secret = f"pamdp-{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    load(KeyFile, (), [f'keys={{"{name}" = {{sha256 = "{digest}"}}}}'])
    return secret, f'[keys."{name}"]\nsha256 = "{digest}"\nrequests_per_minute = 60\nconcurrent = 8\n'

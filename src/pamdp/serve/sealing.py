"""How texts lie in the store: as JSON, encrypted where the store has a key.

Owns keys and the form of a sealed value. Knows nothing of tables. Encryption is Fernet's (AES-128-CBC with HMAC-SHA256,
of `cryptography`, extra `pamdp[encrypt]`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pamdp.errors import ConfigError, StoreError
from pamdp.files import Json

KEY_ENV = "PAMDP_STORE_KEY"
"""The environment variable that holds a store's key, unless options name another."""


def read_key(env: str = KEY_ENV, file: Path | None = None) -> str | None:
    """The key in FILE, or else in the variable ENV; None where neither has one. A ConfigError for a missing file."""
    if file is None:
        return os.environ.get(env, "").strip() or None
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} holds no key of a store ({type(error).__name__}); name a readable file") from None


class Sealer:
    """Seals values and opens them; without a KEY they lie open.

    Raises:
      ConfigError: the key is none of Fernet's, or `cryptography` is missing. The message does not hold the key.
    """

    def __init__(self, key: str | None = None) -> None:
        self._fernet: Any = None
        if key is None:
            return
        try:
            from cryptography.fernet import Fernet
        except ImportError as error:
            raise ConfigError("an encrypted store needs `pip install pamdp[encrypt]`") from error
        try:
            self._fernet = Fernet(key)
        except ValueError:
            make = 'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
            raise ConfigError(f"the store's key is not 32 bytes of URL-safe base64; make one: {make}") from None

    @property
    def encrypts(self) -> bool:
        """Whether there is a key."""
        return self._fernet is not None

    def seal(self, value: Json) -> str:
        """VALUE as text for a column; half characters become question marks."""
        text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        return (self._fernet.encrypt(text) if self.encrypts else text).decode()

    def open(self, sealed: str) -> Any:
        """The value of a sealed text; a StoreError where it was sealed with another key, or is damaged."""
        try:
            return json.loads(self._fernet.decrypt(sealed) if self.encrypts else sealed)
        except Exception as error:  # Fernet's InvalidToken, which is only there with the extra
            raise StoreError("a text of the store cannot be read: another key, or damage; give its key") from error

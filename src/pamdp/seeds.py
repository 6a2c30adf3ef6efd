"""Seeds from names and numbers: every draw has its own, so that results do not depend on order or batch.

Owns the hash. Knows nothing of what is drawn.
"""

from __future__ import annotations

import hashlib


def seed_of(*parts: object) -> int:
    """A 63-bit seed from names and numbers, the same on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1

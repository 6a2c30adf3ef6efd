"""What a result was computed from, so that two results can be told comparable or not.

Owns the fingerprint's fields and how data, code and machine are named in it. Knows nothing of runs. Where a model is
served is recorded and not compared: a server that moved serves the same model. Nor is what its server refuses: that is
found out while it is asked.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

import torch
from pydantic import BaseModel, ConfigDict

from pamdp.files import Json

ADDRESS = "base_url"
"""Field of a model's fingerprint that says where it is served, without user, password and key."""
REFUSED = "refused"
"""Field of a model's fingerprint that says which parameters its server was found to refuse, if any."""
NUMBERS = ("dtype", "quantization")
"""Fields that say in which numbers a model of this machine computes: recorded and not compared, since another machine
may have others."""


class Identity(TypedDict):
    """What a fingerprint notes of a backbone."""

    model: str
    revision: str
    dtype: str
    quantization: str


class Fingerprint(BaseModel):
    """What a run was computed from. Two runs compare only if these agree; a resumed run must agree with itself.

    Attributes:
      data: sha256 of the dialogues (`CheckReport.sha256`).
      skipped, repaired: bad records of the data that were left out, and what was mended in those that were kept.
      model, revision: the backbone and the version of its weights.
      dtype, quantization: the numbers that it computes in, as the last session had them.
      pairs: sha256 of the preference pairs that were cloned from; empty where there were none.
      judges: of each judge and simulator its `fingerprint`, with its "name" and its "role" (such as "reward").
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    data: str
    skipped: int = 0
    repaired: int = 0
    model: str
    revision: str
    dtype: str = "float32"
    quantization: str = "none"
    pairs: str = ""
    judges: tuple[dict[str, str], ...] = ()

    @property
    def compared(self) -> dict[str, Json]:
        """What must agree: all but the addresses of servers, what they refuse, and in which numbers models compute."""
        known = self.model_dump(mode="json", exclude=set(NUMBERS))
        left_out = (ADDRESS, REFUSED, *NUMBERS)
        judges = [{key: x for key, x in judge.items() if key not in left_out} for judge in self.judges]
        return {**known, "judges": judges}

    @property
    def servers(self) -> list[str]:
        """Addresses of all servers, each once, in order."""
        return list(dict.fromkeys(judge[ADDRESS] for judge in self.judges if ADDRESS in judge))


def environment(servers: Sequence[str] = ()) -> dict[str, Json]:
    """Versions of the code, of Python and torch, the platform, and the servers that are called, if any."""
    return {
        **({"servers": list(servers)} if servers else {}),
        "pamdp": version("pamdp"),
        "commit": _commit(Path(__file__).resolve().parents[2]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{sys.platform} {platform.machine()}",
    }


def _commit(root: Path) -> str | None:
    """The commit of a source checkout, with "+" where files differ from it; None for an installed package."""
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None

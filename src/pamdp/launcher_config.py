"""Settings of where a run's work is done: in this process, or by workers of a Ray cluster.

Owns their names, and the refusal of workers where there are none. Knows nothing of what is done (launch.py).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pamdp.errors import ConfigError
from pamdp.settings import Settings


class LauncherConfig(Settings):
    """Where dialogues are played, replies judged and the cells of a comparison computed; results do not depend on it.

    Attributes:
      kind: "local", in this process, or "ray", by workers (`pip install "pamdp[ray]"`), each with a model of its own.
      workers: how many, with one thread each.
      gpus_per_worker: GPUs that a worker is given; a part of one, such as 0.5, is shared.
      address: of a Ray cluster ("ray://HOST:10001", or "auto" on one of its machines); empty: workers of this machine.
    """

    kind: Literal["local", "ray"] = "local"
    workers: int = Field(default=2, ge=1)
    gpus_per_worker: float = Field(default=0.0, ge=0)
    address: str = ""


def require_local(config: LauncherConfig, what: str) -> None:
    """A ConfigError where WHAT is to be done by workers, which cannot do it."""
    if config.kind != "local":
        raise ConfigError(f"{what} runs in this process only; leave out launcher.kind={config.kind}")

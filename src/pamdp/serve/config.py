"""The settings of a server: limits, what replies are drawn with where a client does not say, and what is kept.

Knows nothing of how they are read (settings.py) or used.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pamdp.calls_config import EndpointConfig
from pamdp.config import HereConfig
from pamdp.registry import CHAT_MODELS
from pamdp.settings import known


class ProfilerConfig(EndpointConfig):
    """The endpoint that infers profiles, if its model is named."""

    kind: Annotated[str, known(CHAT_MODELS)] = "openai"
    model: str = ""


class ServeConfig(HereConfig):
    """What a server allows and keeps, and `model`: where its backbone computes.

    Attributes:
      places: most replies of one adapter that are written at once; others wait.
      queue: most requests that wait; more are refused with status 429.
      context: most tokens of a chat and its reply; what the backbone can see limits it, too.
      max_tokens: most tokens of a reply; a client that asks for more gets so many.
      n: most replies to one request.
      timeout: seconds after which a request that is not done is given up.
      body_kb: largest request, in KB (1024 bytes).
      cache_mb: size of the conversations that are kept so that a next turn is read quickly, in MB; 0: none.
      explore: share of the policy's sigma with which actions are drawn, to learn from what comes of them; 0: mean
        actions.
      grace: seconds that replies under way have to end when the server is told to stop.
      store: where replies, feedback and profiles are kept: a file of SQLite, or a database's URL. "auto" is store.db
        beside the run, or in the user's data folder for the shipped policy; "" keeps nothing.
      retention: days after which replies, and what was said of them, are erased; absent: never.
      profile_every: after how many replies to a user its profile is inferred anew; 0: only when asked for.
      profiler: who infers profiles; without a model's name nobody does, and they hold what users write.
    """

    places: int = Field(default=32, ge=1)
    queue: int = Field(default=64, ge=1)
    context: int = Field(default=4096, ge=64)
    max_tokens: int = Field(default=512, ge=1)
    n: int = Field(default=4, ge=1)
    timeout: float = Field(default=120.0, gt=0)
    body_kb: int = Field(default=256, ge=1)
    cache_mb: int = Field(default=512, ge=0)
    explore: float = Field(default=0.0, ge=0)
    grace: float = Field(default=30.0, ge=0)
    store: str = "auto"
    retention: float | None = Field(default=None, gt=0)
    profile_every: int = Field(default=8, ge=0)
    profiler: ProfilerConfig = ProfilerConfig()

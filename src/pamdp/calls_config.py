"""Settings of how language models are called: those that play a role of a run, and those that judge in evaluations.

Owns names, defaults and ranges of these settings; config.py has all others. Knows nothing of clients (llm/).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pamdp.place_config import PlaceConfig
from pamdp.registry import CHAT_MODELS
from pamdp.settings import known


class CallConfig(PlaceConfig):
    """How language models are called, whichever it is; where one of this machine computes, as `PlaceConfig` has it.

    Attributes:
      kind: "embedded" is what comes with the package, "local" any Hugging Face causal LM on this machine, "openai" a
        server that speaks OpenAI's chat completions; others are registered.
      base_url: of the server, up to and including /v1; with ?api-version=... where the server wants it.
      key_env: name of the environment variable that holds the server's key. The key itself is no setting, because
        settings are written into the run.
      temperature: of answers.
      max_tokens: of answers, thinking included. A verdict that it cuts off, or thinking without an answer, is asked for
        again with 4 times as many, as often as `attempts` allows; a model that reasons aloud needs some thousands.
      seed: of draws.
      timeout: seconds for one call.
      tries: most tries of a call that fails in passing, ever more slowly.
      attempts: most answers asked for where one cannot be used.
      concurrency: most calls under way at once; a model on this machine takes all.
      requests_per_minute, tokens_per_minute: limits of the server, if it has any.
    """

    kind: Annotated[str, known(CHAT_MODELS)] = "embedded"
    base_url: str = "http://127.0.0.1:8000/v1"
    key_env: str = "OPENAI_API_KEY"
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=200, ge=1)
    seed: int = Field(default=0, ge=0)
    timeout: float = Field(default=60.0, gt=0)
    tries: int = Field(default=8, ge=1)
    attempts: int = Field(default=3, ge=1)
    concurrency: int = Field(default=16, ge=1)
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)


class EndpointConfig(CallConfig):
    """A language model that plays one role.

    Attributes:
      model: its name; for a judge of kind "embedded", the name of the judge.
      price_prompt, price_completion: money for a million tokens, for `pamdp estimate` and the costs of a run.
    """

    model: str = "embedded"
    price_prompt: float | None = Field(default=None, ge=0)
    price_completion: float | None = Field(default=None, ge=0)


class SimulatorConfig(EndpointConfig):
    """The user's endpoint: its messages are drawn, and short."""

    temperature: float = Field(default=0.7, ge=0)
    max_tokens: int = Field(default=48, ge=1)


class JudgeConfig(EndpointConfig):
    """Who judges: a registered judge where `kind` is "embedded", else a language model that is asked.

    Attributes:
      model: name of the registered judge, or of the language model.
      weights: folder that `pamdp judge train` wrote, for the judges of the package; empty: those that come with it.
      both_orders: ask a language model in both orders of the replies; costs twice the calls.
      urls: model -> base URL, of further language models by name that another server has (`pamdp eval --judges`).
    """

    base_url: str = ""
    model: str = "signals"
    weights: str = ""
    both_orders: bool = False
    urls: dict[str, str] = Field(default={})

"""Judges by name, whoever they are: the embedded ones of the package, or a language model behind an endpoint.

Owns which name means which, and the wrappers around a model that is called: cache, retries, limits. Knows nothing of
what is asked (pairwise.py, scores.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pamdp.async_bridge import run
from pamdp.config import GraderConfig
from pamdp.errors import ConfigError
from pamdp.judges.base import Judge
from pamdp.judges.embedded import NAMES, load_judge
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.judges.scores import ReplyScorer
from pamdp.llm.cache import Cached
from pamdp.llm.chat import ChatModel, Decoding
from pamdp.llm.limits import Limited, Retrying
from pamdp.llm.local import LocalChat
from pamdp.llm.openai import OpenAIChat, public_url
from pamdp.models.backbone import Backbone
from pamdp.models.embedded import cache_dir, load_backbone
from pamdp.types import Message

GREETING = (Message("user", "Answer with the one word OK."),)


class JudgeRegistry:
    """Judges and scorers by name; each model is set up once.

    Args:
      config: how language models are reached.
      backbone: gives the backbone of the embedded judges.
      load: brings a model of this machine by name.
      cache: folder of remembered answers; None: the user's cache folder.
    """

    def __init__(
        self,
        config: GraderConfig,
        backbone: Callable[[], Backbone],
        load: Callable[[str], Backbone] = load_backbone,
        cache: Path | None = None,
    ) -> None:
        self.config, self.backbone, self.load = config, backbone, load
        self.cache = cache_dir() / "answers" if cache is None else cache
        self._models: dict[str, ChatModel] = {}
        self._judges: dict[str, Judge] = {}

    def judge(self, name: str) -> Judge:
        """The judge of that name.

        Raises:
          ConfigError: it is no embedded judge, and no server is named.
          ModelError: a model of this machine is missing.
        """
        if name not in self._judges:
            c = self.config
            self._judges[name] = (
                load_judge(name, self.backbone())
                if name in NAMES
                # Both orders are asked by whoever compares, and kept apart.
                else PairwiseJudge(name, self.model(name), False, c.attempts, c.temperature, c.max_tokens, c.seed)
            )
        return self._judges[name]

    def scorer(self, name: str) -> ReplyScorer:
        """The language model of that name as a scorer of single replies.

        Raises:
          ConfigError: it is the name of an embedded judge, which only compares, or no server is named.
        """
        if name in NAMES:
            raise ConfigError(f"{name!r} only compares replies; scorers takes names of language models")
        c = self.config
        return ReplyScorer(name, self.model(name), c.attempts, c.temperature, c.max_tokens, c.seed)

    def model(self, name: str) -> ChatModel:
        """The language model of that name, with its cache, retries and limits."""
        if name not in self._models:
            self._models[name] = Cached(Retrying(self._bare(name), self.config.tries), self.cache)
        return self._models[name]

    def check(self, name: str) -> None:
        """Ask a language model for a word: one that cannot be reached is found out before hours of work.

        Raises:
          EndpointError: it cannot be reached.
        """
        if name not in NAMES:
            # Past the cache, which would answer for a server that is gone.
            model = self.model(name)
            asked = model.model if isinstance(model, Cached) else model
            run(asked.complete(GREETING, Decoding(max_tokens=4)))

    def _bare(self, name: str) -> ChatModel:
        c = self.config
        if c.kind == "local":
            return Limited(LocalChat(self.load(name)), 64)
        url = c.urls.get(name, c.base_url)
        if not url:
            raise ConfigError(
                f"no judge {name!r}; there are: {', '.join(NAMES)}; for a language model on a server set "
                "grader.base_url"
            )
        if public_url(url) != url:
            # Settings are written into the run, and this one is not repeated here either.
            raise ConfigError(
                "grader.base_url holds more than an address; put the key into an environment variable and name it in "
                "grader.key_env"
            )
        model = OpenAIChat(name, url, c.key_env, c.timeout)
        return Limited(model, c.concurrency, c.requests_per_minute, c.tokens_per_minute)

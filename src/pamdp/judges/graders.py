"""Who judges and scores in an evaluation, by name: a registered judge, or a language model behind an endpoint.

Owns which name means which. Knows nothing of what is asked (pairwise.py, scores.py), nor of what stands around a model
that is called (llm/stack.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pamdp.async_bridge import run
from pamdp.calls_config import GraderConfig
from pamdp.errors import ConfigError
from pamdp.judges.base import Judge
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.judges.scores import ReplyScorer
from pamdp.llm.chat import ChatModel, Decoding
from pamdp.llm.ledger import Ledger
from pamdp.llm.stack import asking, build_chat_models
from pamdp.models.backbone import Backbone
from pamdp.registry import JUDGES
from pamdp.types import Message

GREETING = (Message("user", "Answer with the one word OK."),)


class Graders:
    """Judges and scorers by name; each model is set up once; CACHE: folder of answers, or the user's cache folder."""

    def __init__(self, config: GraderConfig, backbone: Callable[[], Backbone], cache: Path | None = None) -> None:
        self.config, self.backbone, self.cache = config, backbone, cache
        self._models: dict[str, ChatModel] = {}
        self._judges: dict[str, Judge] = {}

    def judge(self, name: str) -> Judge:
        """The judge of that name; errors are those of the judge, or of `model`."""
        if name not in self._judges and name in JUDGES:
            self._judges[name] = JUDGES[name](self.backbone)
        elif name not in self._judges:
            # Both orders are asked by whoever compares, and kept apart.
            self._judges[name] = PairwiseJudge(name, self.model(name), how=asking(self.config.endpoint(name)))
        return self._judges[name]

    def scorer(self, name: str) -> ReplyScorer:
        """The language model of that name as a scorer; ConfigError for a registered judge, which only compares."""
        if name in JUDGES:
            raise ConfigError(f"{name!r} only compares replies; scorers takes names of language models")
        return ReplyScorer(name, self.model(name), asking(self.config.endpoint(name)))

    def model(self, name: str) -> ChatModel:
        """The language model of that name, with its cache, retries and limits; ConfigError where no server is named."""
        if name not in self._models:
            end = self.config.endpoint(name)
            if end.kind == "openai" and not end.base_url:
                raise ConfigError(
                    f"no judge {name!r}; there are: {', '.join(JUDGES)}; for a language model on a server set "
                    "grader.base_url"
                )
            self._models[name] = build_chat_models({"grader": ("judge", end)}, Ledger(), self.cache)["grader"]
        return self._models[name]

    def check(self, name: str) -> None:
        """Ask a language model for a word: an EndpointError comes before hours of work."""
        if name not in JUDGES:
            # A drawn answer: the cache would answer for a server that is gone.
            run(self.model(name).complete(GREETING, Decoding(1.0, 4)))

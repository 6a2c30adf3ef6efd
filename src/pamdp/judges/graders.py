"""From the setting `judge`, or a name, to who judges and scores: a registered judge, or a language model that is asked.

Owns which setting means whom, and the refusal of a judge that belongs to another backbone. Knows nothing of what is
asked (pairwise.py, scores.py), nor of what stands around a model that is called (llm/stack.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from pamdp.async_bridge import run
from pamdp.calls_config import EndpointConfig, JudgeConfig
from pamdp.errors import ConfigError
from pamdp.judges.base import Judge
from pamdp.judges.folder import Trained, read_about
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.judges.scores import ReplyScorer
from pamdp.llm.chat import ChatModel, Decoding
from pamdp.llm.ledger import Ledger, Role
from pamdp.llm.limits import Limiter
from pamdp.llm.stack import asking, build_chat_models, require_public
from pamdp.models.backbone import Backbone
from pamdp.registry import JUDGES
from pamdp.types import Message

GREETING = (Message("user", "Answer with the one word OK."),)


def make_judge(end: JudgeConfig, backbone: Callable[[], Backbone], model: ChatModel | None = None) -> Judge:
    """The judge that a setting describes; MODEL is the language model that is asked, if `kind` says so.

    Raises:
      ConfigError: no judge has that name, weights are named for one that has none, or an address holds a key.
      ModelError: its weights are missing, or belong to another backbone.
    """
    require_public("judge", end.base_url, *end.urls.values())  # stored with the settings, whoever is asked
    if model is not None:
        return PairwiseJudge(end.model, model, end.both_orders, asking(end))
    made, folder = JUDGES[end.model], _folder(end)
    return made.load(end.model, backbone(), folder) if isinstance(made, Trained) and folder else made(backbone)


def require_fitting(ends: Iterable[JudgeConfig], name: str, revision: str) -> None:
    """Refuse judges that cannot judge beside the backbone NAME, before anything is loaded; errors of `make_judge`."""
    for end in ends:
        if end.kind == "embedded" and (folder := _folder(end)) is not None:
            read_about(folder, name, revision, "pamdp judge train")


def named(config: JudgeConfig, name: str) -> JudgeConfig:
    """The judge NAME: a registered one, or else the language model of that name, reached as CONFIG says.

    A ConfigError where it is neither.
    """
    if name in JUDGES:
        return config.model_copy(update={"kind": "embedded", "model": name})
    base_url, kind = config.urls.get(name, config.base_url), config.kind
    if kind == "embedded":
        kind = "openai"
        if not base_url:
            try:
                JUDGES.require(name)
            except ConfigError as error:
                hint = "for a language model set judge.base_url to its server, or judge.kind=local"
                raise ConfigError(f"{error}; {hint}") from None
    return config.model_copy(update={"kind": kind, "model": name, "base_url": base_url})


def grader(config: JudgeConfig, name: str) -> JudgeConfig:
    """The judge NAME as one that grades: whoever compares asks in both orders and keeps them apart."""
    end = named(config, name).model_copy(update={"both_orders": False})
    trained = end.kind == "embedded" and isinstance(JUDGES[name], Trained)
    return end if trained else end.model_copy(update={"weights": ""})


def _folder(end: JudgeConfig) -> Path | None:
    """Where the weights of a registered judge are; None for one that has none."""
    made = JUDGES[end.model]
    if isinstance(made, Trained):
        return Path(end.weights) if end.weights else made.shipped()
    if end.weights:
        raise ConfigError(
            f"judge.weights={end.weights}: the judge {end.model!r} is none of those that `pamdp judge train` makes; "
            "leave the setting out, or name one with judge.model"
        )
    return None


class Graders:
    """Judges and scorers by name; each is set up once, and all calls are on one account.

    CONFIG says how language models are reached; CACHE is the folder of answers, or None for the user's cache folder;
    LIMITER as of build_chat_models.
    """

    def __init__(
        self,
        config: JudgeConfig,
        backbone: Callable[[], Backbone],
        cache: Path | None = None,
        limiter: Limiter | None = None,
    ) -> None:
        self.config, self.backbone, self.cache, self.ledger, self.limiter = config, backbone, cache, Ledger(), limiter
        self._models: dict[str, ChatModel] = {}
        self._judges: dict[str, Judge] = {}

    def judge(self, name: str) -> Judge:
        """The judge of that name; errors are those of `make_judge`, or of `model`."""
        if name not in self._judges:
            end = grader(self.config, name)
            self._judges[name] = make_judge(end, self.backbone, None if end.kind == "embedded" else self.model(name))
        return self._judges[name]

    def scorer(self, name: str) -> ReplyScorer:
        """The language model of that name as a scorer; ConfigError for a registered judge, which only compares."""
        if name in JUDGES:
            raise ConfigError(f"{name!r} only compares replies; scorers takes names of language models")
        return ReplyScorer(name, self.model(name), asking(named(self.config, name)))

    def model(self, name: str) -> ChatModel:
        """The language model of that name, with its cache, retries and limits; errors as of build_chat_models."""
        if name not in self._models:
            end = named(self.config, name)
            ends: dict[str, tuple[Role, EndpointConfig]] = {"judge": ("judge", end)}
            self._models[name] = build_chat_models(ends, self.ledger, self.cache, limiter=self.limiter)["judge"]
        return self._models[name]

    def check(self, name: str) -> None:
        """Ask a language model for a word: an EndpointError comes before hours of work."""
        if name not in JUDGES:
            # A drawn answer: the cache would answer for a server that is gone.
            run(self.model(name).complete(GREETING, Decoding(1.0, 4)))

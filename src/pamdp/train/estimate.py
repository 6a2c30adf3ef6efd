"""What a run will call and cost, before it runs.

Owns the arithmetic. Knows nothing of models: it counts calls from the settings and tokens from the length of prompts
and recorded messages. Answers are counted at their longest; retries and what the cache already holds are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pamdp.calls_config import EndpointConfig
from pamdp.config import Config
from pamdp.llm.ledger import Price
from pamdp.llm.stack import HERE
from pamdp.prompts.render import load
from pamdp.types import Dialogue

CHARACTERS = 4.0
"""Characters of a token, about."""
MESSAGE, REPLY = 129.0, 155.0
"""Characters of a user's message and of a reply, about (means of the sample), where users have no record."""

JUDGED = ("judge_pair",)
"""Prompts of a judge."""


@dataclass(frozen=True, slots=True)
class RoleCost:
    """Calls and tokens of one role in a whole run.

    Attributes:
      role, model, kind: who is called; "embedded" and "local" models run on this machine.
      calls, prompt_tokens, completion_tokens: all rounds together.
      money: None where prices are not given; 0 on this machine.
    """

    role: str
    model: str
    kind: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    money: float | None


def estimate(config: Config, dialogues: Sequence[Dialogue]) -> list[RoleCost]:
    """One estimate for each role that `train online` needs with these settings."""
    online, settings = config.online, config.rl
    said = _mean([turn.user for d in dialogues for turn in d.turns]) or MESSAGE
    reply = _mean([turn.reply or "" for d in dialogues for turn in d.turns]) or REPLY
    person = _mean([d.persona.text for d in dialogues])
    played = min(online.users, len(dialogues)) * online.rounds

    def role(
        name: str, end: EndpointConfig, prompts: Sequence[str], beside: float, turns: range, times: int = 1
    ) -> RoleCost:
        """One role, whose prompt holds texts, BESIDE further characters, and the history h_t."""
        characters = sum(beside + said + t * (said + reply) for t in turns)
        return _cost(name, end, prompts, played * len(turns) * times, played * times * characters)

    every = range(settings.horizon)
    opened = range(-1 if online.opening == "own" else 0, settings.horizon)
    simulated = online.user == "simulated"
    rows = [role("simulator", online.simulator, ("user", "user_open"), person + reply, opened)] if simulated else []
    if settings.profile == "inferred" and simulated:
        # h_T too: its profile is what V(h, ω) is bootstrapped from.
        rows.append(role("profiler", online.profiler, ("profile",), 0, range(settings.horizon + 1)))
    if config.judge.kind != "embedded":
        rows.append(role("judge", config.judge, JUDGED, person + 2 * reply, every, 1 + config.judge.both_orders))
    if online.reference == "written":
        rows.append(role("reference", online.writer, ("reference",), 0, every))
    return rows


def estimate_offline(config: Config, dialogues: Sequence[Dialogue]) -> list[RoleCost]:
    """What `train offline` needs with these settings: the judge, where it is a language model."""
    if config.judge.kind == "embedded":
        return []
    reply = _mean([turn.reply or "" for d in dialogues for turn in d.turns]) or REPLY
    judged = [(d, t) for d in dialogues for t, turn in enumerate(d.turns)]
    if config.rl.reference == "preferred":
        judged = [(d, t) for d, t in judged if d.turns[t].preferred]
    asked = sum(len(d.persona.text) + 2 * reply + sum(len(m.content) for m in d.history(t)) for d, t in judged)
    times = config.rl.rounds * config.rl.samples * (1 + config.judge.both_orders)
    return [_cost("judge", config.judge, JUDGED, times * len(judged), times * asked)]


def _cost(role: str, end: EndpointConfig, prompts: Sequence[str], calls: int, characters: float) -> RoleCost:
    """A role that is called so often, with CHARACTERS in all beside its prompts."""
    tokens = round((calls * sum(len(load(prompt)) for prompt in prompts) + characters) / CHARACTERS)
    answers = calls * end.max_tokens
    price = Price(0, 0) if end.kind in HERE else Price(end.price_prompt, end.price_completion)
    return RoleCost(role, end.model, end.kind, calls, tokens, answers, price.of(tokens, answers))


def _mean(texts: Sequence[str]) -> float:
    return sum(map(len, texts)) / max(len(texts), 1)

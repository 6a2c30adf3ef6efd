"""What an online run will call and cost, before it runs.

Owns the arithmetic. Knows nothing of models: it counts calls from the settings and tokens from the length of prompts
and recorded messages. Answers are counted at their longest; retries and what the cache already holds are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pamdp.config import Config, EndpointConfig
from pamdp.llm.ledger import Price
from pamdp.llm.stack import HERE
from pamdp.prompts.render import load
from pamdp.types import Dialogue

CHARACTERS = 4.0
"""Characters of a token, about."""
MESSAGE, REPLY = 129.0, 155.0
"""Characters of a user's message and of a reply, about (means of the sample), where users have no record."""


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
    """One estimate for each role that the settings need."""
    online, settings = config.online, config.rl
    said = _mean([turn.user for d in dialogues for turn in d.turns]) or MESSAGE
    reply = _mean([turn.reply or "" for d in dialogues for turn in d.turns]) or REPLY
    person = _mean([d.persona.text for d in dialogues])
    played = min(online.users, len(dialogues)) * online.rounds

    def history(t: int) -> float:
        return said + t * (said + reply)

    def role(name: str, end: EndpointConfig, prompt: Callable[[int], float], turns: range, times: int = 1) -> RoleCost:
        calls = played * len(turns) * times
        tokens = round(played * times * sum(prompt(t) for t in turns) / CHARACTERS)
        answers = calls * end.max_tokens
        here = end.kind in HERE
        money = 0.0 if here else Price(end.price_prompt, end.price_completion).of(tokens, answers)
        return RoleCost(name, end.model, end.kind, calls, tokens, answers, money)

    every = range(settings.horizon)
    fixed = {name: float(len(load(name))) for name in ("user", "user_open", "profile", "judge_pair", "reference")}
    rows = []
    if online.user == "simulated":
        rows.append(
            role(
                "simulator",
                online.simulator,
                lambda t: fixed["user"] + fixed["user_open"] + person + history(t) + reply,
                range(-1, settings.horizon) if online.opening == "own" else every,
            )
        )
    if settings.profile == "inferred" and online.user == "simulated":
        # h_T too: its profile is what V(h, ω) is bootstrapped from.
        rows.append(
            role(
                "profiler", online.profiler, lambda t: fixed["profile"] + history(t), range(settings.horizon + 1)
            )
        )  # fmt: skip
    if online.judge.kind != "embedded":
        times = 2 if online.both_orders else 1
        rows.append(
            role("judge", online.judge, lambda t: fixed["judge_pair"] + person + history(t) + 2 * reply, every, times)
        )
    if online.reference == "written":
        rows.append(role("reference", online.writer, lambda t: fixed["reference"] + history(t), every))
    return rows


def _mean(texts: Sequence[str]) -> float:
    return sum(map(len, texts)) / max(len(texts), 1)

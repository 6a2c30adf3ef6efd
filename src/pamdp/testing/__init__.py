"""What holds for every judge, user, chat model, advantage and method, to be checked on one's own parts.

Owns the contracts: each function raises AssertionError, which says what is broken. Knows nothing of who keeps them, and
needs no test framework: `check_judge(MyJudge())`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from pamdp.async_bridge import run, together
from pamdp.baselines.replies import Replier, veil
from pamdp.env.dialogue import DialogueEnv
from pamdp.env.user import User
from pamdp.judges.base import Case, Judge, Verdict, forget, swap
from pamdp.llm.chat import ChatModel, Decoding
from pamdp.rl.advantages import Estimator
from pamdp.rl.checks import AdvantageInputs
from pamdp.types import Dialogue, History, Message, Persona, TimeStep

__all__ = ["check_advantage", "check_chat_model", "check_judge", "check_replier", "check_user"]

NURSE = Persona("Ana is a nurse who works nights.", "She is brief.")
TEA: History = (Message("user", "How do you like your tea?"),)
SOUP: History = (Message("user", "I work nights."), Message("assistant", "Eat soup."), Message("user", "Which one? 🙂"))
CASES = (
    Case(NURSE, TEA, "Strong and black, on nights.", "With milk."),
    Case(Persona("Ben sells boats.", "He likes jokes."), TEA, "Strong and black, on nights.", "With milk."),
    Case(NURSE, SOUP, "Onions, cut thin.", "Ask the butcher, and let him tell you a joke."),
    Case(NURSE, TEA, "With milk.", "A pot of it, please."),
    Case(Persona(), TEA, "Tea.", "Milk and honey."),
    Case(Persona(profile="A nurse."), TEA, "Tea.", "Milk and honey."),
    Case(Persona(personality="Brief."), TEA, "Tea.", "Milk and honey."),
)
"""Cases on which judges are checked, some of them for persons of whom little or nothing is known."""


def check_judge(judge: Judge, cases: Sequence[Case] = CASES) -> None:
    """Check that a judge keeps what `Judge` promises, asked CASES or others; equal within 1e-4."""
    _require(isinstance(judge, Judge), "a judge has a name, a fingerprint and a method judge(cases)")
    _check_fingerprint(judge.fingerprint, "name")
    _require(judge.fingerprint["name"] == judge.name, "a judge's fingerprint holds its name")
    _require(judge.judge([]) == [], "no case has no verdict")
    forget(judge)
    found = judge.judge(cases)
    _require(len(found) == len(cases), "every case has one verdict")
    for v in found:
        _require(min(v.p_a, v.p_b, v.p_tie) >= 0, f"probabilities are not negative: {v}")
        _require(abs(v.p_a + v.p_b + v.p_tie - 1) < 1e-6, f"probabilities sum to 1: {v}")
    mirrored = [Verdict(v.p_b, v.p_a, v.p_tie) for v in judge.judge([swap(case) for case in cases])]
    _require(_near(found, mirrored), "replies in the other order have the mirrored verdict")
    _require(_near(found, judge.judge(cases[::-1])[::-1]), "verdicts stand in the order of the cases")
    alone = [verdict for case in cases for verdict in judge.judge([case])]
    _require(_near(found, alone), "a verdict does not depend on the cases beside it")
    same = judge.judge([Case(c.persona, c.history, c.a, c.a) for c in cases])
    _require(all(v.outcome == "tie" for v in same), "a reply against itself is a tie")
    forget(judge)
    _require(judge.judge(cases) == found, "a judge that forgot answers as a new one")


def check_advantage(estimate: Estimator) -> None:
    """Check an advantage on six transitions, three of which end their dialogue: shape, numbers, no look beyond an end.

    Args:
      estimate: what `register_advantage` stands on.
    """
    g = torch.Generator().manual_seed(0)
    reward, v_h, v_h_next, v_hw, v_hw_next = torch.randn(5, 6, generator=g)
    discount = torch.tensor([0.9, 0.0] * 3)
    ended, far = discount == 0, torch.full((6,), 1e6)
    found = estimate(AdvantageInputs(reward, discount, v_h, v_h_next, v_hw, v_hw_next))
    _require(found.shape == (6,), "an advantage has one number for each transition")
    _require(bool(found.isfinite().all()), "advantages of finite values are finite")
    after = (torch.where(ended, far, x) for x in (v_h_next, v_hw_next))
    moved = estimate(AdvantageInputs(reward, discount, v_h, next(after), v_hw, next(after)))
    _require(torch.equal(found[ended], moved[ended]), "an ended dialogue takes nothing from what follows: use discount")


def check_replier(replier: Replier, dialogues: Sequence[Dialogue]) -> None:
    """Check what a method has trained: every state gets a reply, which depends on its own history and on nothing else.

    Args:
      dialogues: two or more, of two or more turns each.
    """
    seen = [veil(d) for d in dialogues]
    whole, done = dict[tuple[str, int], str](), list[int]()
    whole |= replier.write(seen, done.append)
    _require(set(whole) == {(d.id, t) for d in seen for t in range(len(d.turns))}, "every state gets a reply")
    _require(all(isinstance(u, str) for u in whole.values()) and sum(done) == len(whole), "replies are counted texts")
    cut = [replace(d, turns=d.turns[:1]) for d in reversed(seen)]
    first = {key: u for key, u in whole.items() if key[1] == 0}
    _require(dict(replier.write(cut)) == first, "later turns and other dialogues change nothing")
    _require(dict(replier.write(seen)) == whole, "writing leaves no trace")


def check_user(make_user: Callable[[], User]) -> None:
    """Check that a user, made anew by MAKE_USER, keeps what `User` promises, through the environment that asks it."""
    replies = ("Tea.", "A {soup}.", "No.")
    moments = _play(make_user(), replies)
    before: History = ()
    for t, moment in enumerate(moments):
        roles = [message.role for message in moment.history]
        _require(roles == ["user", "assistant"] * t + ["user"], f"a history begins and ends with the user: {roles}")
        _require(moment.history[: len(before)] == before, "a history extends the one before")
        _require(all(m.content.strip() for m in moment.history), "no message is without words")
        _require((moment.t, moment.key) == (t, moments[0].key), "turns are counted and a dialogue keeps its key")
        _require(isinstance(moment.privileged, Persona) and moment.known, "a profile is there at every turn")
        before = moment.history
    _require(_play(make_user(), replies) == moments, "the same user says the same again")
    heard = tuple(message.content for message in before if message.role == "assistant")
    deaf = [m.history for m in _play(make_user(), replies[::-1])] == [m.history for m in moments]
    _require(deaf or heard == replies[: len(heard)], "a history holds what was replied, or follows a record")


def check_chat_model(model: ChatModel) -> None:
    """Check that a chat model keeps what `ChatModel` promises; it is asked about twenty times for a few words."""
    _require(isinstance(model, ChatModel), "a chat model has a fingerprint and a method complete(messages)")
    _check_fingerprint(model.fingerprint, "kind", "model")
    greedy, drawn = Decoding(max_tokens=4), Decoding(temperature=1.0, max_tokens=4)
    asked, other = (Message("system", "Be brief."), *TEA), (Message("user", "What should I cook?"),)
    calls = [(asked, drawn, 1), (other, greedy, 2), (other, drawn, 3), (asked, greedy, 4), (asked, drawn, 5)]
    alone = [run(model.complete(m, d, seed=s)) for m, d, s in calls]
    for answer in alone:
        _require(answer.text == answer.text.strip() != "", f"an answer is trimmed text: {answer.text!r}")
        _require(min(answer.prompt_tokens, answer.completion_tokens) >= 0, "tokens are counted, or 0")
        _require(not answer.refused, "an innocent question is not refused")
    together_ = run(together(model.complete(m, d, seed=s) for m, d, s in calls))
    texts = [answer.text for answer in alone]
    _require([a.text for a in together_] == texts, "the same call has the same answer, whatever is asked beside it")
    seeds = {run(model.complete(asked, drawn, seed=seed)).text for seed in range(6)}
    _require(len(seeds) > 1, "answers that are drawn differ between seeds")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def _check_fingerprint(found: Mapping[str, str], *names: str) -> None:
    _require(json.loads(json.dumps(found)) == found, "a fingerprint is plain JSON")
    _require(set(names) <= set(found), f"a fingerprint has {' and '.join(names)}")


def _near(first: Sequence[Verdict], second: Sequence[Verdict]) -> bool:
    return all(
        abs(v.p_a - w.p_a) < 1e-4 and abs(v.p_b - w.p_b) < 1e-4 and abs(v.p_tie - w.p_tie) < 1e-4
        for v, w in zip(first, second, strict=True)
    )


def _play(user: User, replies: Sequence[str]) -> list[TimeStep]:
    env = DialogueEnv([user])
    moments = env.reset()
    for reply in replies:
        [[outcome]] = env.step(moments[-1:], [[reply]])
        _require(outcome.reward is None and not outcome.truncated, "nobody rewards here, and nothing ends at a horizon")
        if outcome.next is None:
            break
        moments.append(outcome.next)
    return moments

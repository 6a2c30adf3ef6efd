"""What holds for every judge: one suite, run on each of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest
import torch

from pamdp.judges.base import Case, Judge, Verdict, forget
from pamdp.judges.likelihood import RatioScorer
from pamdp.judges.match import MatchScorer
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.judges.scoring import Calibration, Scorer, ScoringJudge, Sum
from pamdp.judges.sense import SenseHead, SenseScorer
from pamdp.judges.signals import Signals, SignalsScorer
from pamdp.testing import check_judge
from pamdp.types import History, Message, Persona
from tests.tools.chats import LONE, NURSE
from tests.tools.judges import make_likelihood, make_match
from tests.tools.scripted import ScriptedChat
from tests.tools.tiny import make_tiny_backbone

PERSON = Persona("Ana is a nurse who works nights.", "She is brief.")
OTHER = Persona("Ben sells boats.", "He likes jokes.")


class WordScorer:
    """Counts the reply's words that the persona has too, and prefers short replies."""

    messages = 1
    personal = True

    def score(self, persona: Persona, history: History, replies: Sequence[str]) -> list[float]:
        known = set(persona.text.lower().split())
        return [sum(w in known for w in r.lower().split()) - 0.01 * len(r) for r in replies]


def _sense(match: MatchScorer) -> SenseScorer:
    head = SenseHead(2 * match.backbone.d)
    head.weight.copy_(torch.randn(len(head.weight), generator=torch.Generator().manual_seed(3)))
    return SenseScorer(match, head)


def _match_and_sense() -> Sum:
    match = make_match()
    return Sum([(match, 2.0), (_sense(match), 2.0)])


def _weighed(signals: Signals) -> Signals:
    signals.weight.copy_(torch.randn(len(signals.weight), generator=torch.Generator().manual_seed(3)))
    return signals


SCORERS: dict[str, Callable[[], Scorer]] = {
    "words": WordScorer,
    "match": make_match,
    "likelihood": make_likelihood,
    "likelihood-ratio": lambda: RatioScorer(make_tiny_backbone()),
    "match+sense": _match_and_sense,
    "sum": lambda: Sum([(make_match(), 2.0), (WordScorer(), 0.5)]),
}


@pytest.fixture(scope="module", params=SCORERS)
def scorer(request: pytest.FixtureRequest) -> Scorer:
    return SCORERS[str(request.param)]()


def _reader(messages: Sequence[Message], seed: int) -> str:
    """A chat model that judges as WordScorer does, from what the prompt says."""
    prompt = messages[-1].content
    person = " ".join(re.findall(r"^(?:Profile|Personality): (.*)$", prompt, re.M)[:2])
    a, b = (WordScorer().score(Persona(person), LONE, [reply])[0] for reply in re.findall(r"<<<\n(.*?)\n>>>", prompt))
    return f"Because of the words.\n[[{'A' if a > b else 'B' if b > a else 'C'}]]"


@pytest.fixture(scope="module", params=[*SCORERS, "pairwise", "both orders"])
def judge(request: pytest.FixtureRequest) -> Judge:
    if request.param in SCORERS:
        return ScoringJudge("it", SCORERS[request.param](), Calibration(2.0), {"weights": "random"})
    return PairwiseJudge("it", ScriptedChat(_reader), both_orders=request.param == "both orders")


CASES = [
    Case(PERSON, LONE, "Strong and black, on nights.", "With milk."),
    Case(OTHER, LONE, "Strong and black, on nights.", "With milk."),
    Case(PERSON, NURSE, "Cut it thin.", "Ask the butcher, and let him tell you a joke 🙂"),
    Case(PERSON, LONE, "With milk.", "A pot of it, please."),
]


def test_it_keeps_the_contract(judge: Judge) -> None:
    check_judge(judge)
    check_judge(judge, CASES)
    assert judge.fingerprint["name"] == "it"
    assert judge.fingerprint["temperature"] == ("2" if "weights" in judge.fingerprint else "0")


def test_it_decides_and_identical_replies_are_a_certain_tie(judge: Judge) -> None:
    assert any(v.p_a != v.p_b for v in judge.judge(CASES))
    (verdict,) = judge.judge([Case(PERSON, LONE, "Tea.", "Tea.")])
    assert verdict.p_tie == 1


def test_it_answers_as_a_new_one_after_it_forgot(judge: Judge) -> None:
    forget(judge)
    first = judge.judge(CASES)
    judge.judge([Case(PERSON, LONE, "With milk.", "Iced."), Case(OTHER, LONE, "Iced.", "A pot of it, please.")])
    forget(judge)
    assert judge.judge(CASES) == first


def test_a_reply_s_score_does_not_depend_on_the_others(scorer: Scorer) -> None:
    replies = ["Tea.", "A long reply about soup, bread and what the night brings.", "Milk 🙂"]
    together = scorer.score(PERSON, NURSE, replies)
    alone = [scorer.score(PERSON, NURSE, [reply])[0] for reply in replies]
    assert together == pytest.approx(alone, abs=1e-4)
    assert together[::-1] == pytest.approx(scorer.score(PERSON, NURSE, replies[::-1]), abs=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        *SCORERS.values(),
        lambda: _sense(make_match()),
        lambda: SignalsScorer(make_tiny_backbone(), _weighed(Signals(make_tiny_backbone().d))),
    ],
)
def test_who_is_not_for_a_person_scores_alike_for_everybody(make: Callable[[], Scorer]) -> None:
    scorer, replies = make(), ["Strong and black, on nights.", "With milk, on boats and nights.", "Tea."]
    ours, theirs = (scorer.score(who, LONE, replies) for who in (PERSON, OTHER))
    assert (ours != theirs) is scorer.personal and len({*ours}) == 3


def test_the_person_matters(judge: Judge) -> None:
    first, second = judge.judge(CASES[:2])
    assert first.p_a != pytest.approx(second.p_a, abs=1e-6)


class Biased:
    """Likes what it sees first, and breaks one more promise."""

    def __init__(self, verdict: Verdict = Verdict(0.6, 0.4), **broken: object) -> None:
        self.name, self.fingerprint, self.verdict = "it", {"name": "it"}, verdict
        vars(self).update(broken)

    def judge(self, cases: Sequence[Case], progress: object = None) -> list[Verdict]:
        return [self.verdict for _ in cases]


@pytest.mark.parametrize(
    ("judge", "says"),
    [
        (Biased(), "mirrored verdict"),
        (Biased(Verdict(0.5, 0.6)), "sum to 1"),
        (Biased(Verdict(1.5, -0.5)), "not negative"),
        (Biased(fingerprint={"name": "another"}), "holds its name"),
        (Biased(fingerprint={}), "a fingerprint has name"),
        (Biased(judge=lambda cases: []), "every case"),
        (object(), "a judge has a name"),
    ],
)
def test_who_breaks_the_contract_is_told_how(judge: Judge, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        check_judge(judge)
    check_judge(Biased(Verdict(0.5, 0.5)))


def test_verdicts_that_depend_on_company_or_order_are_found() -> None:
    class Company(Biased):
        def judge(self, cases: Sequence[Case], progress: object = None) -> list[Verdict]:
            return [Verdict(1 / (1 + len(cases)), 1 / (1 + len(cases)), 1 - 2 / (1 + len(cases))) for _ in cases]

    class Reversed(Biased):
        def judge(self, cases: Sequence[Case], progress: object = None) -> list[Verdict]:
            return [Verdict(0.5, 0.5) if i else Verdict(0, 0, 1) for i, _ in enumerate(cases)]

    with pytest.raises(AssertionError, match="beside it"):
        check_judge(Company())
    with pytest.raises(AssertionError, match="in the order"):
        check_judge(Reversed())

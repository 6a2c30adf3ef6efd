"""What holds for every judge: one suite, run on each of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
import torch

from pamdp.judges.base import Case, Judge, forget, swap
from pamdp.judges.likelihood import ADAPTER, LikelihoodHead, LikelihoodScorer
from pamdp.judges.match import MatchHead, MatchScorer
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.judges.scoring import Calibration, Scorer, ScoringJudge, Sum
from pamdp.judges.sense import SenseHead, SenseScorer
from pamdp.llm.scripted import ScriptedChat
from pamdp.models.adapters import add_adapter
from pamdp.types import History, Message, Persona
from tests.tools.chats import LONE, NURSE
from tests.tools.tiny import make_tiny_backbone

PERSON = Persona("Ana is a nurse who works nights.", "She is brief.")
OTHER = Persona("Ben sells boats.", "He likes jokes.")


class WordScorer:
    """Counts the reply's words that the persona has too, and prefers short replies."""

    def score(self, persona: Persona, history: History, replies: Sequence[str]) -> list[float]:
        known = set(persona.text.lower().split())
        return [sum(w in known for w in r.lower().split()) - 0.01 * len(r) for r in replies]


def _match() -> MatchScorer:
    torch.manual_seed(1)
    backbone = make_tiny_backbone()
    return MatchScorer(backbone, MatchHead(4 * backbone.d, 2 * backbone.d, 8, 2), (1, 2))


def _likelihood() -> LikelihoodScorer:
    torch.manual_seed(2)
    backbone = make_tiny_backbone()
    add_adapter(backbone, ADAPTER, 2, 1)
    for name, weight in backbone.model.named_parameters():
        if "lora_B" in name:  # zero at first: the adapter would do nothing
            weight.data.normal_(std=0.3)
    head = LikelihoodHead(backbone.d)
    torch.nn.init.normal_(head.readout.weight)
    return LikelihoodScorer(backbone, head, 1)


def _sense(match: MatchScorer) -> SenseScorer:
    head = SenseHead(2 * match.backbone.d)
    head.weight.copy_(torch.randn(len(head.weight), generator=torch.Generator().manual_seed(3)))
    return SenseScorer(match, head)


def _match_and_sense() -> Sum:
    match = _match()
    return Sum([(match, 2.0), (_sense(match), 2.0)])


SCORERS = {
    "words": WordScorer,
    "match": _match,
    "likelihood": _likelihood,
    "match+sense": _match_and_sense,
    "sum": lambda: Sum([(_match(), 2.0), (WordScorer(), 0.5)]),
}


@pytest.fixture(scope="module", params=SCORERS)
def scorer(request: pytest.FixtureRequest) -> Scorer:
    found: Scorer = SCORERS[request.param]()
    return found


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


def test_it_is_a_judge_that_can_be_identified(judge: Judge) -> None:
    assert isinstance(judge, Judge)
    assert judge.fingerprint["name"] == judge.name == "it"
    assert judge.fingerprint["temperature"] == ("2" if "weights" in judge.fingerprint else "0")


def test_probabilities_sum_to_one_and_decide(judge: Judge) -> None:
    verdicts = judge.judge(CASES)
    for v in verdicts:
        assert min(v.p_a, v.p_b, v.p_tie) >= 0
        assert v.p_a + v.p_b + v.p_tie == pytest.approx(1)
    assert any(v.p_a != v.p_b for v in verdicts)


def test_the_other_order_gives_the_mirrored_verdict(judge: Judge) -> None:
    for v, w in zip(judge.judge(CASES), judge.judge([swap(case) for case in CASES]), strict=True):
        assert (v.p_a, v.p_b, v.p_tie) == pytest.approx((w.p_b, w.p_a, w.p_tie), abs=1e-4)


def test_it_answers_as_a_new_one_after_it_forgot(judge: Judge) -> None:
    forget(judge)
    first = judge.judge(CASES)
    judge.judge([Case(PERSON, LONE, "With milk.", "Iced."), Case(OTHER, LONE, "Iced.", "A pot of it, please.")])
    forget(judge)
    assert judge.judge(CASES) == first


def test_identical_replies_tie(judge: Judge) -> None:
    (verdict,) = judge.judge([Case(PERSON, LONE, "Tea.", "Tea.")])
    assert verdict.outcome == "tie" and verdict.p_tie == 1


def test_a_reply_s_score_does_not_depend_on_the_others(scorer: Scorer) -> None:
    replies = ["Tea.", "A long reply about soup, bread and what the night brings.", "Milk 🙂"]
    together = scorer.score(PERSON, NURSE, replies)
    alone = [scorer.score(PERSON, NURSE, [reply])[0] for reply in replies]
    assert together == pytest.approx(alone, abs=1e-4)
    assert together[::-1] == pytest.approx(scorer.score(PERSON, NURSE, replies[::-1]), abs=1e-4)


def test_nobody_and_half_known_persons_can_be_judged_for(judge: Judge) -> None:
    persons = [Persona(), Persona(profile="A nurse."), Persona(personality="Brief.")]
    verdicts = judge.judge([Case(p, LONE, "Tea.", "Milk and honey.") for p in persons])
    assert all(v.p_a + v.p_b + v.p_tie == pytest.approx(1) for v in verdicts)


def test_verdicts_keep_the_order_of_cases(judge: Judge) -> None:
    together = judge.judge(CASES)
    for case, verdict in zip(CASES, together, strict=True):
        assert verdict.p_a == pytest.approx(judge.judge([case])[0].p_a, abs=1e-4)
    for verdict, again in zip(reversed(together), judge.judge(CASES[::-1]), strict=True):
        assert verdict.p_a == pytest.approx(again.p_a, abs=1e-4)
    assert judge.judge([]) == []


def test_the_person_matters(judge: Judge) -> None:
    first, second = judge.judge(CASES[:2])
    assert first.p_a != pytest.approx(second.p_a, abs=1e-6)

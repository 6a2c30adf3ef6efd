"""Scores of single replies: what a language model is asked, how its answer is read, and the figures made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from pamdp.calls_config import EndpointConfig, JudgeConfig
from pamdp.errors import AnswerError, ConfigError, DataError, EndpointError
from pamdp.evaluation.scores import Scored, report_scores, scorer_kappa
from pamdp.judges.base import Case, Verdict, register_judge
from pamdp.judges.graders import Graders, named
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.judges.scores import Adherence, Category, ReplyCase, ReplyScorer, parse_adherence, parse_score
from pamdp.llm.chat import ChatModel
from pamdp.llm.limits import Retrying
from pamdp.registry import CHAT_MODELS
from pamdp.stored import read_records, write_records
from pamdp.types import Message, Persona
from tests.tools.chats import LONE, NURSE
from tests.tools.scripted import Faulty, ScriptedChat
from tests.tools.tiny import make_tiny_backbone

PERSON = Persona("Ana is a {nurse}.", "Ana wants no advice on food.")
FOUR = "mentions: {}\ninvents: {}\nviolates: {}\nhelps: {}"


@pytest.mark.parametrize(
    ("text", "expected"), [("Fits.\n[[4]]", 4), ("[[1]] as said: [[1]]", 1), ("[[5]].", 5), ("[[2]]?\n[[3]]", 3)]
)
def test_ratings_are_read(text: str, expected: int) -> None:
    assert parse_score(text) == expected


@pytest.mark.parametrize("text", ["", "4", "[4]", "[[0]]", "[[6]]", "[[3]] or [[4]]", "[[4.5]]"])
def test_what_is_no_rating_is_not_read_as_one(text: str) -> None:
    with pytest.raises(AnswerError):
        parse_score(text)


def test_checks_are_read() -> None:
    expected = Adherence(mentions=True, invents=False, violates=True, helps=False)
    assert parse_adherence(FOUR.format("yes", "no", "yes", "no")) == expected
    assert parse_adherence("- **Helps**: No.\n- **mentions**: YES\n* invents: no\nviolates : yes, it does") == expected


@pytest.mark.parametrize(
    "text", ["", "yes\nno\nyes\nno", "mentions: yes\ninvents: no\nviolates: yes",
             FOUR.format("maybe", "no", "no", "no"), FOUR.format("yes", "no", "yes", "no") + "\nmentions: no"],
)  # fmt: skip
def test_checks_that_lack_one_or_contradict_are_not_read(text: str) -> None:
    with pytest.raises(AnswerError):
        parse_adherence(text)


@pytest.mark.parametrize(
    ("checks", "expected"),
    [
        ((False, False, False, True), "followed"),
        ((True, True, False, True), "followed"),
        ((False, False, True, True), "unaware"),
        ((True, True, True, True), "hallucinated"),
        ((True, False, True, True), "inconsistent"),
        ((True, False, True, False), "unhelpful"),
        ((True, False, False, False), "unhelpful"),
    ],
)
def test_categories(checks: tuple[bool, bool, bool, bool], expected: Category) -> None:
    assert Adherence(*checks).category == expected


def test_the_scorer_is_shown_everything_as_it_is() -> None:
    model = ScriptedChat(lambda *_: "[[2]]")
    done: list[int] = []
    assert ReplyScorer("s", model).fit([ReplyCase(PERSON, NURSE, "Eat {it}!")], done.append) == [2]
    ((message,),) = model.asked
    for part in (PERSON.profile, PERSON.personality, "Eat {it}!", "Person: I am a nurse and I work nights."):
        assert part in message.content
    assert message.content.count(NURSE[-1].content) == 1 and done == [1]


def test_the_preference_is_what_adherence_is_checked_against() -> None:
    model = ScriptedChat(lambda *_: FOUR.format("no", "no", "yes", "yes"))
    (found,) = ReplyScorer("s", model).adherence([ReplyCase(PERSON, LONE, "Eat.")])
    assert found is not None and found.category == "unaware"
    ((message,),) = model.asked
    assert f"The preference\n{PERSON.personality}" in message.content and PERSON.profile in message.content


def test_an_answer_that_cannot_be_read_is_asked_for_again_then_only_it_is_missing() -> None:
    def answer(messages: Sequence[Message], seed: int) -> str:
        return "three" if "<<<\nbad" in messages[-1].content else "[[3]]"

    model = ScriptedChat(answer)
    scorer = ReplyScorer("s", model)
    assert scorer.fit([ReplyCase(PERSON, LONE, reply) for reply in ("x", "bad", "z")]) == [3, None, 3]
    assert len(model.asked) == 2 + 3
    dead = ReplyScorer("s", Retrying(Faulty(model, {"cut": 1.0}), attempts=2, base=0.0))
    with pytest.raises(EndpointError):
        dead.fit([ReplyCase(PERSON, LONE, "x")])


def _scored(user: str, turn: int, rating: int | None, category: Category | None = None) -> Scored:
    return Scored("BC", "s", user, user, turn, 0, rating, category)


def test_figures_by_hand(tmp_path: Path) -> None:
    """Ana gains one point a turn, Bea none: the pooled slope is 0.5."""
    scores = [_scored("ana", t, 2 + t, "followed") for t in range(3)] + [
        _scored("bea", t, 3, "unaware") for t in range(3)
    ]
    scores.append(_scored("bea", 2, None))
    write_records(tmp_path / "s.jsonl", scores)
    assert read_records(tmp_path / "s.jsonl", Scored) == scores
    found = report_scores(scores, n=200)
    assert found.rating.value == pytest.approx(3.0) and found.by_turn == pytest.approx((2.5, 3.0, 3.5))
    assert found.slope.value == pytest.approx(0.5) and found.slope.low < 0.5 < found.slope.high
    assert found.followed.value == 0.5 and found.categories["unaware"] == 0.5 and found.categories["unhelpful"] == 0
    assert (found.n, found.masked, found.unread) == (7, 1, 1)


def test_figures_of_one_turn_and_of_nothing() -> None:
    one = report_scores([_scored("ana", 0, 4), _scored("bea", 0, 2)], n=50)
    assert one.rating.value == 3 and math.isnan(one.slope.value) and one.categories == {} and one.unread == 0
    none = report_scores([_scored("ana", 0, None)], n=50)
    assert math.isnan(none.rating.value) and none.by_turn == () and none.masked == 1


def test_scorers_agree_as_far_as_chance_leaves() -> None:
    first = [_scored("a", t, r) for t, r in enumerate((1, 1, 5, 5))]
    assert scorer_kappa(first, first)[0] == pytest.approx(1.0) and scorer_kappa(first, first)[2] == 4
    other = [_scored("a", t, r) for t, r in enumerate((1, 5, 1, 5))]
    assert scorer_kappa(first, other)[0] == pytest.approx(0.0)
    assert all(math.isnan(x) for x in scorer_kappa(first, [])[:2])


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"method": "BC"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"s\.jsonl:1: scorer: Field required"):
        read_records(tmp_path / "s.jsonl", Scored)


@pytest.fixture
def served() -> JudgeConfig:
    """Graders whose server is a function."""

    @CHAT_MODELS("served")
    def make(end: EndpointConfig) -> ChatModel:
        assert end.base_url == "http://x/v1"
        says = ScriptedChat(lambda messages, seed: "[[A]]" if "assistant A" in messages[-1].content else "[[3]]")
        return Faulty(says, {"cut": 1.0}) if end.model == "gone" else says

    return JudgeConfig(kind="served", base_url="http://x/v1", tries=1, max_tokens=256)


def test_a_name_is_a_registered_judge_or_a_model_on_a_server(served: JudgeConfig, tmp_path: Path) -> None:
    @register_judge("mine")
    def mine(case: Case) -> float:
        return 0.75

    graders = Graders(served, make_tiny_backbone, tmp_path)
    assert graders.judge("mine").judge([Case(PERSON, LONE, "x", "y")]) == [Verdict(0.75, 0.25)]
    judge = graders.judge("some/model")
    assert isinstance(judge, PairwiseJudge) and judge.fingerprint["name"] == "some/model"
    assert judge is graders.judge("some/model") and judge.how.max_tokens == 256
    assert judge.judge([Case(PERSON, LONE, "x", "y")])[0].outcome == "win"
    assert graders.scorer("some/model").fit([ReplyCase(PERSON, LONE, "x")]) == [3]
    graders.check("some/model")
    graders.check("mine")  # nothing to ask
    # Remembered: another process with the same cache asks nobody for what is known.
    CHAT_MODELS.add("served", lambda end: ScriptedChat(lambda messages, seed: "nothing"))
    again = Graders(served, make_tiny_backbone, tmp_path)
    assert again.scorer("some/model").fit([ReplyCase(PERSON, LONE, "x")]) == [3]


@pytest.mark.parametrize(
    ("grader", "says"),
    [
        (
            JudgeConfig(),
            r"no judge .mach.; did you mean .match.\? there are: reward-model, signals, .*; for a language model",
        ),
        (JudgeConfig(base_url="http://me:secret@x/v1"), "environment variable"),
        (JudgeConfig(base_url="http://x/v1", urls={"mach": "http://y/v1?key=secret"}), "environment variable"),
    ],
)
def test_a_judge_that_cannot_be_reached_is_said_in_one_line(grader: JudgeConfig, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        Graders(grader, make_tiny_backbone, tmp_path).judge("mach")
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


def test_a_registered_judge_scores_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only compares"):
        Graders(JudgeConfig(), make_tiny_backbone, tmp_path).scorer("match")


def test_a_model_that_is_gone_is_found_out_past_the_cache(served: JudgeConfig, tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="failed 1 times"):
        Graders(served, make_tiny_backbone, tmp_path).check("gone")


def test_the_endpoint_of_a_grader_is_its_own_or_the_shared_one() -> None:
    grader = JudgeConfig(base_url="http://x/v1", urls={"b": "http://y/v1"}, seed=3, key_env="KEY")
    assert [named(grader, name).base_url for name in "ab"] == ["http://x/v1", "http://y/v1"]
    end = named(grader, "b")
    assert (end.kind, end.model, end.seed, end.key_env) == ("openai", "b", 3, "KEY")
    assert (named(grader, "match").kind, named(grader, "match").model) == ("embedded", "match")
    assert named(JudgeConfig(kind="local"), "b").kind == "local"

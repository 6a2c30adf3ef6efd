"""What holds for every method: one suite, run on each of them with a tiny random backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pamdp.baselines.latent import find
from pamdp.baselines.method import Job, Method
from pamdp.baselines.replies import Replier, Scores, veil
from pamdp.registry import METHODS
from pamdp.testing import check_replier
from pamdp.types import Dialogue, Persona, Turn
from tests.tools.methods import few, make_job

pytest.importorskip("trl")

TEST = few("test", 3, 3)


@pytest.fixture(scope="module", params=tuple(METHODS))
def method(request: pytest.FixtureRequest) -> Method:
    return find(request.param)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """One job for all methods, so that those that share a cloned policy clone once."""
    return make_job(tmp_path_factory.mktemp("methods"))


@pytest.fixture(scope="module")
def replier(method: Method, job: Job) -> Replier:
    return method.train(job)


def _write(replier: Replier, dialogues: Sequence[Dialogue]) -> dict[tuple[str, int], str]:
    return replier.write([veil(d) for d in dialogues])


def test_it_replies_to_every_state(replier: Replier, job: Job) -> None:
    done: list[int] = []
    replies = replier.write([veil(d) for d in TEST], done.append)
    assert set(replies) == {(d.id, t) for d in TEST for t in range(len(d.turns))}
    assert all(isinstance(reply, str) for reply in replies.values())
    assert sum(done) == len(replies)
    chat = job.load().chat
    # Half a letter is decoded to a sign that has more tokens than it was made of; a random model writes many of them.
    whole = [reply for reply in replies.values() if "\ufffd" not in reply]
    assert all(len(chat.reply(reply)) - 1 <= job.config.rl.max_reply for reply in whole)


def test_it_keeps_the_contract(replier: Replier) -> None:
    check_replier(replier, TEST)


def test_a_reply_depends_on_nothing_but_its_own_history(replier: Replier) -> None:
    """Other users, later turns and the order of the dialogues change nothing; writing leaves no trace."""
    whole = _write(replier, TEST)
    cut = [replace(d, turns=d.turns[:2]) for d in TEST]
    strange = Dialogue("x", "x", Persona("canary"), (Turn("canary canary", preferred="canary"), Turn("canary")))
    again = _write(replier, [strange, *reversed(cut)])
    assert {key: reply for key, reply in again.items() if key[0] != "x"} == {
        key: reply for key, reply in whole.items() if key[1] < 2
    }
    assert _write(replier, TEST) == whole


def test_its_budget_is_stated(method: Method, job: Job) -> None:
    turns = sum(len(d.turns) for d in job.train)
    budget = method.budget(job.config, job.tune, turns)
    assert (budget.context, budget.reply) == (job.config.clone.max_context, job.config.rl.max_reply)
    assert (budget.weights == "none") == (budget.examples == budget.draws == 0)
    assert method.seeded == (budget.weights != "none")


def test_a_likelihood_is_one_of_every_reference(replier: Replier) -> None:
    if isinstance(replier, Scores):
        found = replier.reference_nll(TEST)
        assert set(found) == {(d.id, t) for d in TEST for t, turn in enumerate(d.turns) if turn.preferred}
        assert all(nll > 0 for nll in found.values())


def test_the_veil_hides_all_but_what_was_said() -> None:
    for dialogue in TEST:
        veiled = veil(dialogue)
        text = repr(veiled)
        assert dialogue.persona.text not in text and not veiled.user_id
        assert veiled.turns[-1].reply is None
        for t, turn in enumerate(dialogue.turns):
            assert veiled.history(t) == dialogue.history(t)
            unsaid = turn.rejected if turn.chosen == "preferred" else turn.preferred
            assert unsaid is None or unsaid not in text

"""Online learning on a random backbone: no fault loses or doubles a turn, a kill costs a turn, no profile is seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from pamdp.config import CloneConfig, Config, OnlineConfig
from pamdp.errors import ConfigError, EndpointError
from pamdp.evaluation.online import talk_with
from pamdp.files import Json
from pamdp.journal import Journal
from pamdp.llm.chat import ChatModel
from pamdp.models.policy import Policy
from pamdp.runs import Run
from pamdp.train.env_factory import EnvFactory
from pamdp.train.online import failures, online, users_of
from pamdp.transitions import Rollout, Transition
from pamdp.types import Dialogue, Message, Persona, TimeStep
from tests.tools.learning import (
    CANARY,
    PRINT,
    ROUNDS,
    USERS,
    T,
    learn,
    make_dialogues,
    make_learning,
    make_policy,
    make_world,
)
from tests.tools.methods import VowelJudge
from tests.tools.scripted import ERRORS, FAULTS
from tests.tools.spies import spy_on_reading
from tests.tools.tiny import make_tiny_backbone


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    return make_dialogues()


def _ids(traces: Sequence[Mapping[str, Json]]) -> list[tuple[Json, ...]]:
    return [(t["step"], t["dialogue"], t["turn"], t["sample"]) for t in traces]


def _expected(dialogues: Sequence[Dialogue], config: Config) -> set[tuple[Json, ...]]:
    return {
        ((step + 1) * config.rl.epochs, d.id, t, 0)
        for step in range(ROUNDS)
        for d in users_of(dialogues, step, USERS, config.seed)
        for t in range(T)
    }


@pytest.fixture(scope="module")
def plain(
    tmp_path_factory: pytest.TempPathFactory, dialogues: list[Dialogue]
) -> tuple[dict[str, torch.Tensor], list[dict[str, Json]]]:
    config = make_learning()
    return learn(tmp_path_factory.mktemp("plain") / "run", config, dialogues, make_world(config))


def test_every_turn_of_every_user_is_played_once(
    plain: tuple[dict[str, torch.Tensor], list[dict[str, Json]]], dialogues: list[Dialogue]
) -> None:
    _, traces = plain
    assert Counter(_ids(traces)) == Counter(_expected(dialogues, make_learning()))
    assert all(t["reward"] in (1.0, -1.0) for t in traces)
    assert {t["profile"] for t in traces} == {f"{CANARY} after {n} messages." for n in range(1, T + 1)}


@pytest.mark.parametrize("faults", [*((name,) for name in FAULTS), FAULTS], ids=lambda names: "+".join(names))
def test_no_fault_loses_or_doubles_a_transition(
    tmp_path: Path, dialogues: list[Dialogue], faults: tuple[str, ...]
) -> None:
    config = make_learning()
    world = make_world(config, dict.fromkeys(faults, 0.1))
    _, traces = learn(tmp_path / "run", config, dialogues, world)
    ids = _ids(traces)
    assert len(ids) == len(set(ids)) and set(ids) == _expected(dialogues, config)
    kept = [t["reward"] for t in traces if t["reward"] is not None]
    assert set(kept) <= {1.0, -1.0}  # a failure is never a score
    if set(faults) <= set(ERRORS):
        assert len(kept) == len(ids)  # what passes costs calls and no transition
    assert any(entry.failed for entry in world.ledger.entries.values()) == bool(set(faults) & set(ERRORS))
    masked = [m["masked"] for m in Run(tmp_path / "run").metrics()]
    assert sum(map(float, masked[::2])) * USERS * T == pytest.approx(len(ids) - len(kept))


class _Kill(BaseException):
    """What a kill looks like from inside: nothing catches it."""


@pytest.mark.parametrize("torn", [False, True], ids=["between lines", "within a line"])
@pytest.mark.parametrize("at", [1, 4, 6, 11, 17, 24, 30])
def test_a_kill_costs_the_turns_in_flight_and_nothing_else(
    tmp_path: Path,
    dialogues: list[Dialogue],
    plain: tuple[dict[str, torch.Tensor], list[dict[str, Json]]],
    monkeypatch: pytest.MonkeyPatch,
    at: int,
    torn: bool,
) -> None:
    config, append, count = make_learning(), Journal._append, []

    def dying(self: Journal, record: Mapping[str, Json]) -> None:
        count.append(1)
        if len(count) == at:
            if torn:
                assert self._file is not None
                self._file.write('{"key": "cut sho')
                self._file.flush()
            raise _Kill
        append(self, record)

    monkeypatch.setattr(Journal, "_append", dying)
    first, second = make_world(config), make_world(config)
    with pytest.raises(_Kill):
        learn(tmp_path / "run", config, dialogues, first)
    monkeypatch.setattr(Journal, "_append", append)
    actor, traces = learn(tmp_path / "run", config, dialogues, second)
    assert traces == plain[1]
    for name, value in plain[0].items():
        assert torch.equal(value, actor[name]), name
    # Two groups of two users were under way: at most one turn of each user is asked for again.
    judged = second.ledger.entries["judge"].calls
    assert ROUNDS * USERS * T <= judged <= ROUNDS * USERS * T + 2 * USERS


def test_a_dead_endpoint_pauses_with_what_is_done_saved(
    tmp_path: Path, dialogues: list[Dialogue], plain: tuple[dict[str, torch.Tensor], list[dict[str, Json]]]
) -> None:
    config = make_learning()

    class Dying:
        def __init__(self, model: ChatModel) -> None:
            self.model, self.left = model, 6
            self.fingerprint = model.fingerprint

        async def complete(self, *args: object, **settings: object) -> object:
            self.left -= 1
            if self.left < 0:
                raise EndpointError("nobody answers")
            return await self.model.complete(*args, **settings)

    dying = make_world(config, wrap=lambda role, m: Dying(m) if role == "simulator" else m)
    with pytest.raises(EndpointError, match="nobody answers"):
        learn(tmp_path / "run", config, dialogues, dying)
    (file,) = (tmp_path / "run" / "journal").iterdir()
    with Journal(file) as journal:
        assert len(journal.openings) == USERS and len(journal.turns) == 6
    assert (tmp_path / "run" / "costs.json").is_file()
    actor, traces = learn(tmp_path / "run", config, dialogues, make_world(config))
    assert traces == plain[1] and all(torch.equal(value, actor[name]) for name, value in plain[0].items())
    assert not list((tmp_path / "run" / "journal").iterdir())


@pytest.mark.parametrize("profile", ["persona", "inferred"])
def test_no_profile_reaches_the_policy(
    tmp_path: Path, dialogues: list[Dialogue], monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    config = make_learning().model_copy(update={"rl": make_learning().rl.model_copy(update={"profile": profile})})
    read = spy_on_reading(monkeypatch)
    world = make_world(config)
    if profile == "persona":
        world.profiler = None
    learn(tmp_path / "run", config, dialogues, world)
    decode = make_tiny_backbone().tokenizer.decode
    assert len(read.policy) >= ROUNDS * USERS * T and not any(CANARY in decode(list(ids)) for ids in read.policy)
    assert any(CANARY in decode(list(ids)) for ids in read.backbone)  # the critic's input has it: the test can fail


def test_the_reference_may_be_a_policy_s_own_reply(tmp_path: Path, dialogues: list[Dialogue]) -> None:
    for reference in ("clone", "vanilla"):
        config = make_learning().model_copy(update={"online": OnlineConfig(rounds=1, users=2, reference=reference)})
        world = make_world(config)
        world.writer = None
        _, traces = learn(tmp_path / reference, config, dialogues, world)
        assert len(traces) == 2 * T and "reference" not in world.ledger.entries


def test_vanilla_writes_references_with_weights_that_cloning_did_not_change(
    tmp_path: Path, dialogues: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_learning().model_copy(
        update={
            "online": OnlineConfig(rounds=1, users=2, reference="vanilla"), "clone": CloneConfig(backbone="full"),
        }
    )  # fmt: skip
    config = config.model_copy(update={"rl": config.rl.model_copy(update={"form_states": 0})})  # which would write, too
    world, policy, bare = make_world(config), make_policy(config), make_tiny_backbone()
    world.writer = None
    with Run.create(tmp_path / "run", config, PRINT) as run:
        with pytest.raises(ConfigError, match=r"online\.reference=vanilla: cloning changed every weight"):
            online(policy, dialogues, world, config, run)
        wrote, write = list[bool](), Policy.write

        def spy(self: Policy, *args: object) -> object:
            wrote.append(self.backbone is bare)
            return write(self, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(Policy, "write", spy)
        online(policy, dialogues, world, config, run, bare)
    assert wrote.count(True) == wrote.count(False) == 2 * T  # two groups write in turn


def test_failures_are_told_from_the_rollout_by_whose_they_are() -> None:
    """A masked reply counts for the user or the profile where those failed, and for the judge elsewhere."""

    def moment(t: int, known: bool = True, stock: bool = False) -> TimeStep:
        return TimeStep("d", t, (Message("user", "?"),), Persona(), known, stock)

    def reply(t: int, reward: float | None) -> Transition:
        return Transition("d", t, 0, "!", None, None, 0.0, reward, ("d", t + 1))

    moments = [moment(0), moment(1), moment(2, stock=True), moment(3, known=False), moment(4)]
    rewards = [1.0, None, None, None]  # then the user, then the judge, then the profile
    rollout = Rollout([reply(t, x) for t, x in enumerate(rewards)], {("d", m.t): m for m in moments}, {}, {})
    assert failures(rollout) == {"user": 1, "profile": 1, "judge": 1}


def test_users_take_turns_and_the_order_changes(dialogues: list[Dialogue]) -> None:
    rounds = [users_of(dialogues * 1, step, 2, seed=3) for step in range(8)]
    for i in range(0, 8, 2):
        drawn = [d.id for d in rounds[i] + rounds[i + 1]]
        assert len(set(drawn)) == 4
    assert len({tuple(d.id for d in r) for r in rounds}) > 4
    assert len(users_of(dialogues, 0, 99, seed=3)) == len(dialogues)


def test_what_a_server_is_found_to_refuse_is_in_the_run_s_fingerprint(
    tmp_path: Path, dialogues: list[Dialogue]
) -> None:
    config = make_learning().model_copy(update={"online": OnlineConfig(rounds=1, users=2, reference="written")})
    world, judge = make_world(config), VowelJudge()
    world.judge = judge
    with Run.create(
        tmp_path / "run", config, PRINT.model_copy(update={"judges": world.fingerprints(dialogues)})
    ) as run:
        before = run.fingerprint()["judges"]
        judge.fingerprint = {**judge.fingerprint, "refused": "seed"}
        online(make_policy(config), dialogues, world, config, run)
    after = Run(run.path).fingerprint()["judges"]
    assert after == [{**j, "refused": "seed"} if j["role"] == "reward" else j for j in before]  # type: ignore[union-attr, index, call-overload]


def test_recorded_users_teach_and_evaluate_too(tmp_path: Path) -> None:
    """They end where their record ends, before the horizon, and no model plays them."""
    plain = make_learning()
    config = plain.model_copy(update={"online": plain.online.model_copy(update={"user": "recorded"})})
    dialogues, writer = make_dialogues(), make_world(config).writer
    world = EnvFactory(config, None, VowelJudge(), None, writer)
    learn(tmp_path / "run", config, dialogues, world)
    talks = talk_with(make_policy(config), dialogues, world, seed=0)
    assert T > 2 and [len(talk.exchanges) for talk in talks] == [2] * len(dialogues)
    for talk, dialogue in zip(talks, dialogues, strict=True):
        assert [m.content for m in talk.messages if m.role == "user"] == [turn.user for turn in dialogue.turns]
        assert talk.messages[-1].role == "assistant" and all(e.known for e in talk.exchanges)

"""Online learning on a random backbone: no fault loses or doubles a turn, a kill costs a turn, no profile is seen."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from pamdp.config import CloneConfig, Config, ModelConfig, OnlineConfig, RLConfig
from pamdp.data import load_sample
from pamdp.env.profile import Profiler
from pamdp.env.references import WrittenReferences
from pamdp.errors import EndpointError
from pamdp.files import Json
from pamdp.fingerprint import Fingerprint
from pamdp.journal import Journal
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.llm.chat import ChatModel
from pamdp.llm.ledger import Ledger, Metered, Role
from pamdp.llm.limits import Limited, Retrying
from pamdp.llm.scripted import ERRORS, FAULTS, Faulty, ScriptedChat
from pamdp.models.policy import Policy
from pamdp.runs import Run
from pamdp.train.online import online, users_of
from pamdp.train.setup import new_policy
from pamdp.train.world import World
from pamdp.types import Dialogue, Message, Persona
from tests.tools.spies import spy_on_reading
from tests.tools.tiny import make_tiny_backbone

PRINT = Fingerprint(data="0", model="tiny", revision="0")
CANARY = "xyzzy"
T, USERS, ROUNDS = 3, 4, 2


def _config(**settings: object) -> Config:
    return Config(
        model=ModelConfig(d_a=8, depth=0.5),
        clone=CloneConfig(backbone="frozen"),
        rl=RLConfig(
            epochs=2, batch_size=4, actor_every=1, lr_actor=1e-2, max_reply=6, horizon=T, profile="inferred",
            **settings,
        ),
        online=OnlineConfig(rounds=ROUNDS, users=USERS, groups=2, reference="written"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    def marked(d: Dialogue) -> Dialogue:
        return Dialogue(d.id, d.user_id, Persona(f"{CANARY} {d.persona.profile}", d.persona.personality), d.turns[:2])

    return [marked(d) for d in load_sample("train").dialogues[: USERS + 1]]


def _policy(config: Config) -> Policy:
    policy = new_policy(make_tiny_backbone(), config)
    assert policy.planner is not None
    policy.planner.actor.sigma.fill_(1.0)
    torch.manual_seed(0)
    torch.nn.init.normal_(policy.planner.injector.a2.weight)
    return policy


def _talk(messages: Sequence[Message], seed: int) -> str:
    return f"Well, I would say {seed % 1000}."


def _tell(messages: Sequence[Message], seed: int) -> str:
    turns = len(re.findall(r"^\[\d+\] Person", messages[-1].content, re.M))
    return f"[{turns}] {CANARY} after {turns} messages"


def _judge(messages: Sequence[Message], seed: int) -> str:
    a, b = re.findall(r"<<<\n(.*?)\n>>>", messages[-1].content, re.S)
    return f"[[{'A' if sum(c in 'aeiou' for c in a) > sum(c in 'aeiou' for c in b) else 'B'}]]"


ANSWERS: dict[Role, Callable[[Sequence[Message], int], str]] = {
    "simulator": _talk, "profiler": _tell, "judge": _judge, "reference": lambda m, s: f"Have a tea, or {s % 10}.",
}  # fmt: skip


async def _instantly(seconds: float) -> None:
    pass


def _world(
    config: Config, rates: Mapping[str, float] | None = None, wrap: Callable[[Role, ChatModel], ChatModel] | None = None
) -> World:
    ledger = Ledger()

    def model(role: Role) -> ChatModel:
        found: ChatModel = ScriptedChat(ANSWERS[role], role)
        if wrap is not None:
            found = wrap(role, found)
        faulty = Faulty(found, rates or {}, seed=len(role))
        return Retrying(Metered(Limited(faulty), ledger, role), attempts=20, sleep=_instantly)

    judge = PairwiseJudge("j", model("judge"))
    writer = WrittenReferences(model("reference"))
    return World(config, model("simulator"), judge, Profiler(model("profiler")), writer, ledger)


def _run(
    path: Path, config: Config, dialogues: Sequence[Dialogue], world: World
) -> tuple[dict[str, torch.Tensor], list[dict[str, Json]]]:
    policy = _policy(config)
    with Run.resume(path, config, PRINT) if path.exists() else Run.create(path, config, PRINT) as run:
        online(policy, dialogues, world, config, run)
        assert policy.planner is not None
        return dict(policy.planner.state_dict()), run.traces()


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
    config = _config()
    return _run(tmp_path_factory.mktemp("plain") / "run", config, dialogues, _world(config))


def test_every_turn_of_every_user_is_played_once(
    plain: tuple[dict[str, torch.Tensor], list[dict[str, Json]]], dialogues: list[Dialogue]
) -> None:
    _, traces = plain
    assert Counter(_ids(traces)) == Counter(_expected(dialogues, _config()))
    assert all(t["reward"] in (1.0, -1.0) for t in traces)
    assert {t["profile"] for t in traces} == {f"{CANARY} after {n} messages." for n in range(1, T + 1)}


@pytest.mark.parametrize("faults", [*((name,) for name in FAULTS), FAULTS], ids=lambda names: "+".join(names))
def test_no_fault_loses_or_doubles_a_transition(
    tmp_path: Path, dialogues: list[Dialogue], faults: tuple[str, ...]
) -> None:
    config = _config()
    world = _world(config, dict.fromkeys(faults, 0.1))
    _, traces = _run(tmp_path / "run", config, dialogues, world)
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
    config, append, count = _config(), Journal._append, []

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
    first, second = _world(config), _world(config)
    with pytest.raises(_Kill):
        _run(tmp_path / "run", config, dialogues, first)
    monkeypatch.setattr(Journal, "_append", append)
    actor, traces = _run(tmp_path / "run", config, dialogues, second)
    assert traces == plain[1]
    for name, value in plain[0].items():
        assert torch.equal(value, actor[name]), name
    # Two groups of two users were under way: at most one turn of each user is asked for again.
    judged = second.ledger.entries["judge"].calls
    assert ROUNDS * USERS * T <= judged <= ROUNDS * USERS * T + 2 * USERS


def test_a_dead_endpoint_pauses_with_what_is_done_saved(
    tmp_path: Path, dialogues: list[Dialogue], plain: tuple[dict[str, torch.Tensor], list[dict[str, Json]]]
) -> None:
    config = _config()

    class Dying:
        def __init__(self, model: ChatModel) -> None:
            self.model, self.left = model, 6
            self.fingerprint = model.fingerprint

        async def complete(self, *args: object, **settings: object) -> object:
            self.left -= 1
            if self.left < 0:
                raise EndpointError("nobody answers")
            return await self.model.complete(*args, **settings)

    dying = _world(config, wrap=lambda role, m: Dying(m) if role == "simulator" else m)
    with pytest.raises(EndpointError, match="nobody answers"):
        _run(tmp_path / "run", config, dialogues, dying)
    (file,) = (tmp_path / "run" / "journal").iterdir()
    with Journal(file) as journal:
        assert len(journal.openings) == USERS and len(journal.turns) == 6
    assert (tmp_path / "run" / "costs.json").is_file()
    actor, traces = _run(tmp_path / "run", config, dialogues, _world(config))
    assert traces == plain[1] and all(torch.equal(value, actor[name]) for name, value in plain[0].items())
    assert not list((tmp_path / "run" / "journal").iterdir())


@pytest.mark.parametrize("profile", ["persona", "inferred"])
def test_no_profile_reaches_the_policy(
    tmp_path: Path, dialogues: list[Dialogue], monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    config = _config().model_copy(update={"rl": _config().rl.model_copy(update={"profile": profile})})
    read = spy_on_reading(monkeypatch)
    world = _world(config)
    if profile == "persona":
        world.profiler = None
    _run(tmp_path / "run", config, dialogues, world)
    decode = make_tiny_backbone().tokenizer.decode
    assert len(read.policy) >= ROUNDS * USERS * T and not any(CANARY in decode(list(ids)) for ids in read.policy)
    assert any(CANARY in decode(list(ids)) for ids in read.backbone)  # the critic's input has it: the test can fail


def test_the_reference_may_be_a_policy_s_own_reply(tmp_path: Path, dialogues: list[Dialogue]) -> None:
    for reference in ("clone", "vanilla"):
        config = _config().model_copy(update={"online": OnlineConfig(rounds=1, users=2, reference=reference)})
        world = _world(config)
        world.writer = None
        _, traces = _run(tmp_path / reference, config, dialogues, world)
        assert len(traces) == 2 * T and "reference" not in world.ledger.entries


def test_users_take_turns_and_the_order_changes(dialogues: list[Dialogue]) -> None:
    rounds = [users_of(dialogues * 1, step, 2, seed=3) for step in range(8)]
    for i in range(0, 8, 2):
        drawn = [d.id for d in rounds[i] + rounds[i + 1]]
        assert len(set(drawn)) == 4
    assert len({tuple(d.id for d in r) for r in rounds}) > 4
    assert len(users_of(dialogues, 0, 99, seed=3)) == len(dialogues)

"""From settings to a world: which wrappers, which limits are shared, what is said of it, and what it will cost."""

from __future__ import annotations

import asyncio
import math
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from pamdp.calls_config import EndpointConfig, JudgeConfig
from pamdp.config import Config, EvalConfig, ModelConfig, OnlineConfig
from pamdp.data import load_sample
from pamdp.env import simulated
from pamdp.env.simulated import SimulatedUser
from pamdp.env.user import RecordedUser, register_user
from pamdp.errors import ConfigError
from pamdp.fingerprint import Fingerprint
from pamdp.judges.base import Case, register_judge
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.llm import local
from pamdp.llm.cache import Cached
from pamdp.llm.chat import Completion
from pamdp.llm.ledger import Metered
from pamdp.llm.limits import Limited, Limits, Retrying
from pamdp.llm.local import LocalChat
from pamdp.llm.openai import OpenAIChat
from pamdp.models.backbone import Backbone
from pamdp.prompts.render import render
from pamdp.registry import CHAT_MODELS, USERS
from pamdp.reproduce.config import OnlineReproduceConfig, ReproduceConfig
from pamdp.runs import Run
from pamdp.settings import dump, flatten, load
from pamdp.train.env_factory import NAMED, EnvFactory, make_env_factory, may_change
from pamdp.train.estimate import estimate, estimate_offline
from pamdp.types import Dialogue, Message, Persona
from tests.tools.scripted import ScriptedChat
from tests.tools.tiny import make_tiny_backbone
from tests.tools.virtual_time import play

SERVER = ["judge.kind=openai", "judge.model=big", "judge.base_url=http://host/v1"]
PLAYED = [f"online.{setting}".replace("judge", "simulator") for setting in SERVER]


def _load(*overrides: str) -> Config:
    return load(Config, (), ["cache=answers", *overrides])


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models of this machine that were loaded."""
    names = list[str]()

    def bring(model: ModelConfig) -> Backbone:
        names.append(model.name)
        return make_tiny_backbone()

    monkeypatch.setattr(local, "load_backbone", bring)
    return names


def _build(*overrides: str) -> EnvFactory:
    return make_env_factory(_load(*overrides), make_tiny_backbone())


def _peel(model: object) -> tuple[Cached, Retrying, Metered, object]:
    assert isinstance(model, Cached) and isinstance(model.model, Retrying)
    metered = model.model.model
    assert isinstance(metered, Metered)
    return model, model.model, metered, metered.model


def _limits(model: object) -> tuple[Limits, Limits, OpenAIChat]:
    """Its own limits, those that it shares, and what is called."""
    limited = _peel(model)[3]
    assert isinstance(limited, Limited) and isinstance(limited.model, OpenAIChat)
    own, shared = limited.limits
    return own, shared, limited.model


def test_one_model_of_this_machine_is_loaded_once_and_nothing_is_held_back_from_it(loaded: list[str]) -> None:
    world = _build("rl.profile=inferred", "online.reference=written", *SERVER)
    assert loaded == ["embedded"]
    assert world.profiler is not None and world.writer is not None
    ends = [_peel(m)[3] for m in (world.simulator, world.profiler.model, world.writer.model)]
    assert isinstance(ends[0], LocalChat) and ends[0] is ends[1] is ends[2]


def test_roles_on_one_server_share_its_limits_and_have_accounts_of_their_own(loaded: list[str]) -> None:
    both = [*SERVER, *PLAYED]
    world = _build(*both, "online.simulator.tries=3", "judge.requests_per_minute=7")
    assert isinstance(world.judge, PairwiseJudge) and loaded == []
    _, tries, account, _ = _peel(world.simulator)
    judges_account = _peel(world.judge.model)[2]
    assert _limits(world.simulator)[1] is _limits(world.judge.model)[1]
    assert (account.role, judges_account.role) == ("simulator", "judge") and account.ledger is judges_account.ledger
    assert tries.attempts == 3


def test_a_role_on_a_shared_server_keeps_its_own_limits_where_they_differ() -> None:
    both = [*SERVER, *PLAYED]
    own = ["judge.requests_per_minute=7", "judge.concurrency=2", "judge.timeout=5"]
    world = _build(*both, *own, "online.simulator.tokens_per_minute=900", "judge.tokens_per_minute=400")
    assert isinstance(world.judge, PairwiseJudge)
    talks, together, talking = _limits(world.simulator)
    judges, shared, judging = _limits(world.judge.model)
    assert (judges.concurrency, judges.requests, judges.tokens) == (2, 7, 400)
    assert (talks.concurrency, talks.requests, talks.tokens) == (16, math.inf, 900)
    assert together is shared
    assert (together.concurrency, together.requests, together.tokens) == (16, math.inf, 900)
    assert (judging.timeout, talking.timeout) == (5, 60)


def test_roles_on_two_servers_share_nothing() -> None:
    both = [*SERVER, *PLAYED]
    world = _build(*both, "online.simulator.base_url=http://other/v1")
    assert isinstance(world.judge, PairwiseJudge)
    assert _limits(world.simulator)[1] is not _limits(world.judge.model)[1]


@pytest.mark.parametrize(("both", "seconds"), [(False, 4.0), (True, 8.0)])
def test_judge_throughput_is_bounded_by_concurrency_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: bool, seconds: float
) -> None:
    """320 judgements of 200 ms, 16 at once, through every wrapper that a run has: the ideal is 320 · 0.2 / 16 = 4 s."""

    async def answer(self: OpenAIChat, *args: object, **settings: object) -> Completion:
        await asyncio.sleep(0.2)
        return Completion("[[A]]", 10, 3)

    monkeypatch.setattr(OpenAIChat, "complete", answer)
    world = _build(*SERVER, f"cache={tmp_path}", f"judge.both_orders={str(both).lower()}")
    assert isinstance(world.judge, PairwiseJudge)
    cases = [Case(Persona(f"p{i}"), (Message("user", "Tea?"),), "Yes.", "No.") for i in range(320)]
    verdicts, took = play(world.judge.verdicts(cases))
    assert len(verdicts) == 320 and None not in verdicts
    assert took == pytest.approx(seconds)


def test_nobody_infers_or_writes_unless_asked_to() -> None:
    world = _build(*SERVER)
    assert world.profiler is None and world.writer is None


def test_a_server_needs_the_name_of_a_model() -> None:
    for end, name in (("online.simulator", "embedded"), ("judge", "match")):
        with pytest.raises(ConfigError, match=rf"{end}: a server needs the model's name: {end}\.model=NAME"):
            _build(*SERVER, f"{end}.kind=openai", f"{end}.model={name}")
    with pytest.raises(ConfigError, match="judge: a language model of this machine needs the model's name"):
        _build("judge.kind=local")
    with pytest.raises(ConfigError, match=r"judge: a server needs its address: judge\.base_url=http"):
        _build("judge.kind=openai", "judge.model=big")


def test_a_role_s_own_defaults_survive_an_override_beside_them() -> None:
    assert _load("online.simulator.model=other").online.simulator.temperature == 0.7
    assert _load("judge.temperature=0.5").judge.model == "signals"


def test_fingerprints_name_everybody_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    world = _build("rl.profile=inferred", "online.reference=written", *SERVER)
    prints = world.fingerprints(load_sample("train").dialogues)
    assert [p["role"] for p in prints] == ["simulator", "reward", "profiler", "reference"]
    # What stored runs are compared by: another key would refuse to go on with them.
    assert set(prints[0]) == {
        "role", "kind", "model", "revision", "top_p", "repetition_penalty", "prompt", "difficulty", "temperature",
    }  # fmt: skip
    assert set(prints[1]) == {
        "role", "name", "kind", "model", "base_url", "prompt", "both_orders", "temperature", "seed"
    }  # fmt: skip
    assert set(prints[2]) == {*prints[0], "seed", "most"} - {"difficulty"}
    assert set(prints[3]) == {*prints[0], "seed"} - {"difficulty"}
    assert "sk-secret" not in str(prints) + dump(world.config)
    with pytest.raises(ConfigError, match=r"judge\.base_url holds more .* judge\.key_env") as error:
        _build(*SERVER, "judge.base_url=http://u:sk-secret@host/v1")
    assert "sk-secret" not in str(error.value)
    with pytest.raises(ConfigError, match="holds more than an address"):
        _build("judge.urls.m=http://u:sk-secret@host/v1")  # nobody is asked there, and it would be stored


def test_what_a_resumed_run_may_change_are_settings() -> None:
    assert set(may_change()) <= set(flatten(Config()))


def test_the_estimate_counts_the_calls_of_every_role() -> None:
    dialogues = load_sample("train").dialogues
    config = _load(
        "rl.profile=inferred", "rl.horizon=3", "online.users=2", "online.rounds=5", "online.reference=written",
        "judge.both_orders=true", *SERVER,
    )  # fmt: skip
    rows = {row.role: row for row in estimate(config, dialogues)}
    assert {role: row.calls for role, row in rows.items()} == {
        "simulator": 30, "profiler": 40, "judge": 60, "reference": 30,
    }  # fmt: skip
    assert rows["simulator"].money == 0 and rows["judge"].money is None
    assert rows["judge"].completion_tokens == 60 * config.judge.max_tokens
    assert "judge" not in {row.role for row in estimate(_load(), dialogues)}  # the embedded one is no chat model


def test_the_estimate_is_money_where_prices_are_known() -> None:
    prices = ["judge.price_prompt=2", "judge.price_completion=10"]
    *_, row = estimate(_load(*SERVER, *prices), load_sample("train").dialogues)
    assert row.money == pytest.approx((2 * row.prompt_tokens + 10 * row.completion_tokens) / 1e6)
    longer = estimate(_load(*SERVER, "rl.horizon=12"), load_sample("train").dialogues)[-1]
    assert longer.calls == 2 * row.calls and longer.prompt_tokens > 2 * row.prompt_tokens  # histories grow


def test_the_cache_is_where_the_settings_say() -> None:
    world = _build(*SERVER)
    assert isinstance(world.judge, PairwiseJudge)
    assert _peel(world.judge.model)[0].folder == Path("answers")


def test_users_need_not_be_simulated(loaded: list[str]) -> None:
    @register_user("shy")
    class Shy(RecordedUser):
        """Says what the record says; its draws would be those of the seed."""

        fingerprint = {"name": "shy", "version": "2"}  # noqa: RUF012

        def __init__(self, dialogue: Dialogue, seed: int) -> None:
            super().__init__(dialogue)
            self.seed = seed

    dialogue = load_sample("train").dialogues[0]
    for name, version in (("recorded", {}), ("shy", {"version": "2"})):
        world = _build(f"online.user={name}", "rl.profile=inferred", *SERVER)
        assert world.simulator is None and world.profiler is None and loaded == []
        assert isinstance(world.user(dialogue, 3), RecordedUser)
        assert world.fingerprints([dialogue])[0] == {"role": "simulator", "name": name} | version
    assert world.user(dialogue, 3).seed == 3
    assert "simulator" not in {row.role for row in estimate(_load("online.user=recorded"), [dialogue])}
    with pytest.raises(
        ConfigError, match=r"online\.user: no user 'shi'; did you mean 'shy'\? there are: simulated, rec"
    ):
        _load("online.user=shi")


def test_the_registry_s_own_simulated_user_is_played_by_the_embedded_model(loaded: list[str]) -> None:
    simulated._embedded.cache_clear()
    first, second = load_sample("train").dialogues[:2]
    one, two = USERS["simulated"](first, 1), USERS["simulated"](second, 1)
    assert isinstance(one, SimulatedUser) and isinstance(two, SimulatedUser) and one.model is two.model
    assert loaded == ["embedded"] and (one.key, one.persona) == (first.id, first.persona)
    simulated._embedded.cache_clear()


def test_a_registered_kind_of_chat_model_is_limited_metered_and_remembered() -> None:
    made = list[EndpointConfig]()

    @CHAT_MODELS("mine")
    def mine(end: EndpointConfig) -> ScriptedChat:
        made.append(end)
        return ScriptedChat(lambda messages, seed: "[[A]]", end.model)

    world = _build("judge.kind=mine", "judge.model=m", "judge.concurrency=3")
    assert isinstance(world.judge, PairwiseJudge) and [end.model for end in made] == ["m"]
    limited = _peel(world.judge.model)[3]
    assert isinstance(limited, Limited) and limited.limits[0].concurrency == 3
    with pytest.raises(ConfigError, match="no kind of chat model 'yours'; there are: embedded, local, openai, mine"):
        _load("judge.kind=yours")


def test_a_registered_judge_rewards_and_an_unknown_one_is_named() -> None:
    @register_judge("long")
    def long(case: Case) -> float:
        return 1.0 if len(case.a) > len(case.b) else 0.0

    assert _build("judge.model=long").judge.name == "long"
    with pytest.raises(ConfigError, match="no judge 'lon'; did you mean 'long'"):
        _build("judge.model=lon")


def test_settings_that_were_stored_before_still_load(tmp_path: Path) -> None:
    called = {
        "base_url": "http://x/v1", "key_env": "K", "temperature": 0.5, "max_tokens": 9, "seed": 1, "timeout": 2.0,
        "tries": 3, "attempts": 4, "concurrency": 5, "requests_per_minute": 6, "tokens_per_minute": 7,
    }  # fmt: skip
    for kind in ("embedded", "local", "openai"):
        EndpointConfig.model_validate({**called, "kind": kind, "model": "m", "price_prompt": 1, "price_completion": 2})
    file = tmp_path / "config.toml"
    for kind in ("local", "openai"):
        grader = {**called, "kind": kind, "urls": {"m": "http://y/v1"}}
        file.write_text(tomli_w.dumps({"reward": "big", "grader": grader}))
        judge = load(ReproduceConfig, [file]).judge
        assert judge == JudgeConfig(**grader, model="big")
        file.write_text(tomli_w.dumps({"grader": grader}))
        assert load(EvalConfig, [file]).judge == JudgeConfig(**grader)
    online = {"rounds": 3, "judge": {**called, "kind": "openai", "model": "big"}, "both_orders": True, "cache": "c"}
    file.write_text(tomli_w.dumps({"online": online}))
    for made in (Config, OnlineReproduceConfig):
        found = load(made, [file])
        assert found.judge == JudgeConfig(**called, kind="openai", model="big", both_orders=True)
        assert (found.cache, found.online) == ("c", OnlineConfig(rounds=3))


def test_an_offline_run_of_before_is_taken_up_again(tmp_path: Path) -> None:
    """Its settings name the default judge under `online`, its fingerprint the one that `--judge` named."""
    config = Config(judge=JudgeConfig(model="readings"))
    prints = Fingerprint(data="d", model="m", revision="r", judges=({"role": "reward", "name": "readings"},))
    run = Run.create(tmp_path / "run", Config(), prints)
    stored = tomllib.loads((run.path / "config.toml").read_text())
    judge = {k: x for k, x in stored.pop("judge").items() if k not in ("both_orders", "weights", "urls")}
    stored["online"] |= {"judge": {**judge, "base_url": "http://127.0.0.1:8000/v1"}, "both_orders": False}
    (run.path / "config.toml").write_text(tomli_w.dumps(stored))
    run.close()
    with Run.resume(run.path, config, prints, (*may_change(), *NAMED)) as resumed:
        assert resumed.config(Config).judge.model == "readings"


def test_a_setting_may_be_named_as_before_and_its_new_name_wins(tmp_path: Path) -> None:
    (tmp_path / "old.toml").write_text('[online.judge]\nkind = "openai"\nmodel = "old"\nseed = 3\n')
    found = load(Config, [tmp_path / "old.toml"], ["judge.model=new"])
    assert (found.judge.kind, found.judge.model, found.judge.seed) == ("openai", "new", 3)
    (tmp_path / "old.toml").write_text('[online]\nrounds = 2\n[online.judge]\nkind = "telepathy"\n')
    with pytest.raises(ConfigError, match=r"old\.toml:4: judge\.kind: no kind of chat model 'telepathy'"):
        load(Config, [tmp_path / "old.toml"])
    assert _load("online.judge.tries=2", "online.both_orders=true").judge == JudgeConfig(tries=2, both_orders=True)


def test_an_offline_run_is_estimated_by_hand() -> None:
    first, second = load_sample("train").dialogues[:2]
    dialogues = [replace(first, turns=first.turns[:1]), replace(second, turns=second.turns[:2])]
    assert estimate_offline(_load(), dialogues) == []
    asked = ["rl.rounds=2", "rl.samples=3", "judge.price_prompt=1", "judge.price_completion=0", "judge.max_tokens=10"]
    (row,) = estimate_offline(_load(*SERVER, *asked), dialogues)
    assert (row.role, row.calls, row.completion_tokens) == ("judge", 2 * 3 * 3, 180)
    assert row.money == pytest.approx(row.prompt_tokens / 1e6)
    reply = sum(len(t.reply or "") for d in dialogues for t in d.turns) / 3
    said = [
        len(d.persona.text) + sum(len(m.content) for m in d.history(t)) for d in dialogues for t in range(len(d.turns))
    ]
    fixed = len(render("judge_pair", profile="", personality="", history="", query="", a="", b=""))
    # The prompt as it is written holds the names of what stands in it, too.
    assert row.prompt_tokens == pytest.approx(6 * (3 * (fixed + 2 * reply) + sum(said)) / 4, rel=0.05)
    (both,) = estimate_offline(_load(*SERVER, *asked, "judge.both_orders=true"), dialogues)
    assert (both.calls, both.prompt_tokens) == (2 * row.calls, 2 * row.prompt_tokens)
    bare = [replace(d, turns=tuple(replace(t, preferred=None) for t in d.turns)) for d in dialogues[:1]]
    (some,) = estimate_offline(_load(*SERVER, *asked, "rl.reference=preferred"), [*bare, dialogues[1]])
    assert some.calls == 2 * 3 * 2

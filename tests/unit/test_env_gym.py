"""The Gymnasium adapter: Gymnasium's own checker, the profile where it belongs, NaN for what was not judged."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence

import pytest
from gymnasium.utils.env_checker import check_env

from pamdp.env.gym import DialogueGym
from pamdp.env.reward import Reward
from pamdp.env.simulated import SimulatedUser
from pamdp.env.user import RecordedUser, User
from pamdp.errors import ConfigError
from pamdp.judges.pairwise import PairwiseJudge
from pamdp.types import Dialogue, Persona, TimeStep, Turn
from tests.tools.scripted import ScriptedChat

CANARY = "xyzzy"
ANA = Persona(f"Ana keeps {CANARY}.", "brief")


def _tea(steps: Sequence[TimeStep]) -> list[list[str]]:
    return [["tea"] for _ in steps]


def _reward() -> Reward:
    judge = ScriptedChat(lambda m, s: "?" if "\nbroken\n" in m[-1].content else "[[A]]")
    return Reward(PairwiseJudge("j", judge), _tea)


def _recorded(n: int) -> list[User]:
    turns = (Turn("Hello {you} 🙂", "Hi."), Turn("And now?", "Tea."))
    return [RecordedUser(Dialogue(f"d{i}", f"u{i}", ANA, turns)) for i in range(n)]


def _simulated(n: int) -> list[User]:
    model = ScriptedChat(lambda m, s: f"well, {s % 100}")
    return [SimulatedUser(f"d{i}", ANA, model, opening="Hello") for i in range(n)]


@pytest.mark.parametrize("make", [_recorded, _simulated])
def test_gymnasium_s_own_checker_passes(make: Callable[[int], list[User]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(not set|render|spec).*")
        check_env(DialogueGym(make(3), _reward()), skip_render_check=True)


def test_a_dialogue_goes_to_its_horizon_and_the_profile_is_in_privileged_alone() -> None:
    env = DialogueGym(_simulated(1), _reward(), horizon=2)
    seen, info = env.reset(seed=1)
    assert seen == "Person: Hello" and info["privileged"] == {"profile": ANA.profile, "personality": "brief"}
    first = env.step("Tea.")
    assert first[0].startswith("Person: Hello\nAssistant: Tea.\nPerson: well") and first[1:4] == (1.0, False, False)
    second = env.step("More tea.")
    assert second[1:4] == (1.0, False, True)
    for observation, *_, info in (first, second):
        outside = json.dumps({k: v for k, v in info.items() if k != "privileged"})
        assert CANARY not in observation and CANARY not in outside and CANARY in str(info["privileged"])
    with pytest.raises(ConfigError, match="reset"):
        env.step("too late")


def test_a_record_that_ends_terminates() -> None:
    env = DialogueGym(_recorded(1), _reward(), horizon=6)
    env.reset()
    assert env.step("a")[2:4] == (False, False)
    assert env.step("b")[2:4] == (True, False)


def test_what_could_not_be_judged_has_no_number() -> None:
    env = DialogueGym(_simulated(1), _reward())
    env.reset()
    _, reward, *_, info = env.step("broken")
    assert math.isnan(reward) and info["masked"] is True


def test_a_user_can_be_asked_for_and_seeds_draw_one() -> None:
    env = DialogueGym(_simulated(5), _reward())
    assert env.reset(options={"user": "d3"})[1]["user"] == "d3"
    drawn = [env.reset(seed=seed)[1]["user"] for seed in range(20)]
    assert len(set(drawn)) > 1 and drawn == [env.reset(seed=seed)[1]["user"] for seed in range(20)]
    with pytest.raises(ConfigError, match="no user 'nobody'"):
        env.reset(options={"user": "nobody"})

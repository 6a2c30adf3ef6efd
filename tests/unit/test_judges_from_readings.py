"""The judges fitted on readings: trained together, written, read again as they were, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest
import torch

from pamdp.data.readings import ReadState
from pamdp.errors import DataError, ModelError
from pamdp.files import write_json
from pamdp.judges import from_readings
from pamdp.judges.base import Case
from pamdp.judges.folder import Trained
from pamdp.judges.from_readings import FILES, NAMES, REWARD_MODEL, SIGNALS, load, save, train_from_readings
from pamdp.judges.reward_model import ADAPTER, RewardHead, RewardModel
from pamdp.judges.scoring import Calibration, Scorer, fit_temperature
from pamdp.judges.signals import NUMBERS, Signals, SignalsScorer
from pamdp.models.adapters import adapter_tensors, add_adapter
from pamdp.models.backbone import Backbone
from pamdp.registry import JUDGES
from pamdp.train.factory import shipped as policy_shipped
from pamdp.types import Persona
from tests.tools.chats import LONE, NURSE
from tests.tools.read_states import of_two_kinds, read_state
from tests.tools.tiny import make_tiny_backbone

PERSON = Persona("A nurse who works nights.", "Curt.")
REPLIES = ["Yes, with jam please.", "4 9 jam 33", "ok"]
STATES = of_two_kinds("Yes, with {food} please.", "4 9 {food} 33")
TEMPERATURE = {REWARD_MODEL: 2.0, SIGNALS: 0.5}


def _random(seed: int, first: int = 1, last: int = 2, rank: int = 2) -> tuple[RewardModel, SignalsScorer]:
    """Random judges whose weights half precision holds exactly."""
    backbone = make_tiny_backbone()
    add_adapter(backbone, ADAPTER, rank, first, last=last)
    head, signals = RewardHead(2 * backbone.d), Signals(backbone.d)
    generator = torch.Generator().manual_seed(seed)
    add_adapter(backbone, "cloned", rank + 1)
    adapted = [weight for name, weight in backbone.model.named_parameters() if "lora_" in name]
    for weight in [*adapted, head.readout.weight, head.readout.bias, head.whiten.mean, signals.weight]:
        weight.data.normal_(std=0.3, generator=generator)
        weight.data.copy_(weight.data.half())
    head.whiten.scale.fill_(0.5)
    signals.whiten.scale.fill_(0.1)
    return RewardModel(backbone, head.requires_grad_(False), first, last), SignalsScorer(backbone, signals, "cloned")


@pytest.fixture
def judges() -> tuple[RewardModel, SignalsScorer]:
    return _random(1)


@pytest.fixture
def folder(tmp_path: Path, judges: tuple[RewardModel, SignalsScorer]) -> Path:
    save(tmp_path / "judges", *judges, TEMPERATURE)
    return tmp_path / "judges"


# ---- written and read again


@pytest.mark.parametrize("at", [0, 1])
def test_scores_are_equal_after_a_round_trip(
    at: int, folder: Path, judges: tuple[RewardModel, SignalsScorer], tiny_backbone: Backbone
) -> None:
    scorer: Scorer = judges[at]
    loaded = load(NAMES[at], tiny_backbone, folder)
    for persona, history in ((PERSON, NURSE), (Persona(), LONE)):
        found = loaded.scorer.score(persona, history, REPLIES)
        assert found == scorer.score(persona, history, REPLIES) and len(set(found)) == 3
    assert loaded.name == NAMES[at] and loaded.calibration.temperature == TEMPERATURE[NAMES[at]]
    assert not any(weight.requires_grad for weight in tiny_backbone.model.parameters())
    assert tiny_backbone.active is None


@pytest.mark.parametrize(("first", "last", "rank"), [(0, 1, 2), (0, 2, 3)])
def test_layers_and_rank_come_back(first: int, last: int, rank: int, tmp_path: Path, tiny_backbone: Backbone) -> None:
    model, signals = _random(2, first, last, rank)
    save(tmp_path / "judges", model, signals, TEMPERATURE)
    scorer = load(REWARD_MODEL, tiny_backbone, tmp_path / "judges").scorer
    assert isinstance(scorer, RewardModel) and (scorer.first, scorer.last) == (first, last)
    one, two = (adapter_tensors(b, ADAPTER) for b in (model.backbone, tiny_backbone))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_what_is_there_already_is_replaced(folder: Path, judges: tuple[RewardModel, SignalsScorer]) -> None:
    other, _ = _random(7)
    before = other.score(PERSON, LONE, REPLIES)
    found = load(REWARD_MODEL, other.backbone, folder).scorer.score(PERSON, LONE, REPLIES)
    assert found == judges[0].score(PERSON, LONE, REPLIES) != before


@pytest.mark.parametrize(("first", "last", "rank"), [(0, 1, 2), (1, 2, 3)])
def test_what_is_there_already_may_have_another_shape(
    first: int, last: int, rank: int, folder: Path, judges: tuple[RewardModel, SignalsScorer]
) -> None:
    other, _ = _random(7, first, last, rank)
    found = load(REWARD_MODEL, other.backbone, folder).scorer.score(PERSON, LONE, REPLIES)
    assert found == judges[0].score(PERSON, LONE, REPLIES)


def test_a_folder_holds_what_it_should_and_a_second_one_replaces_it(folder: Path, tiny_backbone: Backbone) -> None:
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)
    about = json.loads((folder / "config.json").read_text("utf-8"))
    assert about == {
        "backbone": "tiny",
        "revision": "0",
        "first": 1,
        "numbers": [*NUMBERS],
        "last": 2,
        "temperature": TEMPERATURE,
        "clone": ANY,
    }
    before = {name: load(name, tiny_backbone, folder).fingerprint for name in NAMES}
    assert before[SIGNALS]["name"] == "signals" and before[REWARD_MODEL]["backbone"] == "tiny@0"
    assert (before[SIGNALS]["temperature"], before[REWARD_MODEL]["temperature"]) == ("0.5", "2")
    other = _random(8)
    save(folder, *other, TEMPERATURE)
    assert load(SIGNALS, tiny_backbone, folder).fingerprint["weights"] != before[SIGNALS]["weights"]
    scorer = load(SIGNALS, tiny_backbone, folder).scorer
    assert scorer.score(PERSON, LONE, REPLIES) == other[1].score(PERSON, LONE, REPLIES)


@pytest.mark.parametrize("name", NAMES)
def test_their_names_bring_the_shipped_ones(name: str, folder: Path, tiny_backbone: Backbone) -> None:
    made = JUDGES[name]
    assert isinstance(made, Trained) and made.shipped() == from_readings.shipped()
    judge = replace(made, shipped=lambda: folder)(lambda: tiny_backbone)
    assert judge.name == name
    [verdict] = judge.judge([Case(PERSON, LONE, REPLIES[0], REPLIES[1])])
    a, b = load(name, tiny_backbone, folder).scorer.score(PERSON, LONE, REPLIES[:2])
    assert verdict == Calibration(TEMPERATURE[name]).verdict(a - b)


def test_the_clone_of_the_package_is_its_policy(tmp_path: Path) -> None:
    """What `signals` asks how likely a reply is: not there twice."""
    about = json.loads((from_readings.shipped() / "config.json").read_text("utf-8"))
    for folder in (from_readings.shipped(), tmp_path):  # a copy of the folder elsewhere asks the same
        found = from_readings._clone(folder, about["clone"])
        assert found is not None and found.parent == policy_shipped()
    assert not (from_readings.shipped() / "clone.safetensors").exists()


def test_another_clone_is_another_judge(folder: Path, tiny_backbone: Backbone) -> None:
    before = load(SIGNALS, tiny_backbone, folder)
    said = before.scorer.score(PERSON, LONE, REPLIES)
    other = _random(9)
    save(folder.with_name("other"), *other, TEMPERATURE)
    after = load(SIGNALS, tiny_backbone, folder.with_name("other"))
    assert after.fingerprint["weights"] != before.fingerprint["weights"]
    assert after.scorer.score(PERSON, LONE, REPLIES) == other[1].score(PERSON, LONE, REPLIES)
    assert before.scorer.score(PERSON, LONE, REPLIES) == said  # both stand on one backbone
    (folder / "clone.safetensors").unlink()
    with pytest.raises(ModelError, match=r"clone\.safetensors is missing or another's"):
        load(SIGNALS, tiny_backbone, folder)


# ---- what is refused


@pytest.mark.parametrize("name", NAMES)
def test_judges_of_another_backbone_are_refused(name: str, folder: Path) -> None:
    with pytest.raises(ModelError, match=re.escape("belong to backbone tiny (0), not to tiny (1)")) as caught:
        load(name, make_tiny_backbone(seed=1), folder)
    assert "pamdp judge train --readings" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_folder_is_named(name: str, tmp_path: Path, tiny_backbone: Backbone) -> None:
    with pytest.raises(ModelError, match=r"no judges in .*none; .*pamdp judge train --readings"):
        load(name, tiny_backbone, tmp_path / "none")


@pytest.mark.parametrize("name", NAMES)
def test_missing_weights_are_named_and_the_other_judge_does_without(
    name: str, folder: Path, tiny_backbone: Backbone
) -> None:
    (folder / f"{name}.safetensors").unlink()
    with pytest.raises(ModelError, match=rf"{name}\.safetensors"):
        load(name, tiny_backbone, folder)
    (other,) = {*NAMES} - {name}
    assert load(other, tiny_backbone, folder).name == other


# ---- trained together


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Depths of which a backbone of two layers has some."""
    monkeypatch.setattr(from_readings, "FIRST", 0.0)
    monkeypatch.setattr(from_readings, "LAST", 0.5)


@pytest.mark.usefixtures("shallow")
def test_both_are_trained_and_calibrated_on_states_of_others(tiny_backbone: Backbone, tmp_path: Path) -> None:
    texts = ["Yes, with figs please.", "4 9 figs 33", "Well."]
    said = [{"A-B": "A", "A-C": "tie", "B-C": "B"}, {"B-C": "B"}]
    valid = [read_state("valid", texts, said), read_state("tied", texts, [{"A-B": "tie"}])]
    model, signals, temperature = train_from_readings(tiny_backbone, STATES, valid, epochs=2)
    assert (model.first, model.last) == (0, 1) and set(temperature) == set(NAMES)
    for name, scorer in ((REWARD_MODEL, model), (SIGNALS, signals)):
        a, b, c = scorer.score(valid[0].persona, valid[0].history, texts)
        assert a > b
        assert temperature[name] == pytest.approx(fit_temperature([a - b, b - c]))
    save(tmp_path / "judges", model, signals, temperature)
    for name, scorer in ((REWARD_MODEL, model), (SIGNALS, signals)):
        loaded = load(name, make_tiny_backbone(), tmp_path / "judges")
        assert loaded.scorer.score(PERSON, LONE, REPLIES) == pytest.approx(
            scorer.score(PERSON, LONE, REPLIES), abs=1e-3
        )


@pytest.mark.usefixtures("shallow")
def test_the_seed_and_the_epochs_are_the_reward_models(tiny_backbone: Backbone) -> None:
    def trained(epochs: int, seed: int) -> tuple[list[float], list[float]]:
        model, signals, _ = train_from_readings(tiny_backbone, STATES, STATES[:1], epochs, seed)
        return model.score(PERSON, LONE, REPLIES), signals.score(PERSON, LONE, REPLIES)

    one, two = trained(1, 0), trained(1, 1)
    assert one == trained(1, 0) and one[0] != two[0] and one[1] == two[1]
    assert trained(0, 0)[0] == [0.0, 0.0, 0.0]


@pytest.mark.usefixtures("shallow")
def test_readings_without_a_comparison_are_refused(tiny_backbone: Backbone) -> None:
    graded: list[ReadState] = [read_state("1", ["a", "b"], grades=[{"A": {"form": 2}}])]
    with pytest.raises(DataError, match="no reader compared two replies"):
        train_from_readings(tiny_backbone, graded, STATES)


@pytest.mark.usefixtures("shallow")
def test_states_that_decide_nothing_calibrate_nothing(tiny_backbone: Backbone) -> None:
    tied = [read_state("tied", ["a", "b"], [{"A-B": "tie"}])]
    with pytest.raises(DataError):
        train_from_readings(tiny_backbone, STATES, tied, epochs=1)


def test_the_reward_model_can_be_trained_on_a_backbone_of_two_layers(tiny_backbone: Backbone) -> None:
    model, _, _ = train_from_readings(tiny_backbone, STATES, STATES[:2], epochs=1)
    layers = {int(key.split("layers.")[1].split(".")[0]) for key in adapter_tensors(tiny_backbone, ADAPTER)}
    assert layers == {1} and model.last == 2


@pytest.mark.parametrize("numbers", [None, ["about the message", *NUMBERS[:-1]], [*NUMBERS, "smiles"]])
def test_weights_of_other_numbers_are_refused(folder: Path, numbers: list[str] | None, tiny_backbone: Backbone) -> None:
    """Earlier versions stored fifteen others, and sixteen, and did not say which."""
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert about.pop("numbers") == [*NUMBERS]
    write_json(folder / "config.json", about if numbers is None else about | {"numbers": numbers})
    with pytest.raises(ModelError, match=r"other numbers than signals has now; fit it again: pamdp judge"):
        load(SIGNALS, tiny_backbone, folder)

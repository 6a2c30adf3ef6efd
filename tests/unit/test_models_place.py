"""Where a model computes: what "auto" comes to, and one line for what this machine does not have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pamdp.config import Config, ModelConfig
from pamdp.errors import ConfigError, ModelError
from pamdp.models import place
from pamdp.models.embedded import load_backbone
from pamdp.models.place import place_of
from pamdp.settings import load
from pamdp.train.factory import require_learnable
from pamdp.train.init_from import placed
from tests.tools.tiny import make_tiny_backbone

PLAIN = {"device": "cpu"}


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(place, "_lacks_bfloat16", lambda device: "" if device.index == 0 else "this card has none")


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"device": "cuda"}, "device=cuda: this PyTorch"),
        ({"device": "mps"}, "device=mps"),
        ({"quantization": "4bit", "device": "cpu"}, "quantization=4bit runs on a GPU"),
        ({"attn": "flash_attention_2"}, "flash_attention_2 takes no mask"),
        ({"attn": "flex_attention"}, "nobody has seen it run"),
    ],
)
def test_what_is_not_here_is_one_line(no_card: None, settings: dict[str, str], says: str) -> None:
    with pytest.raises(ModelError, match=says) as found:
        place_of(ModelConfig(**settings))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"device": "cuda:7"}, "has 2 GPUs, cuda:0 to cuda:1"),
        ({"device": "cuda:1", "dtype": "bfloat16"}, "this card has none; set dtype=float32"),
        ({"quantization": "4bit"}, "needs bitsandbytes"),
    ],
)
def test_what_cards_lack_is_one_line(
    two_cards: None, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], says: str
) -> None:
    monkeypatch.setattr(place, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=says):
        place_of(ModelConfig(**settings))


def test_auto_is_bfloat16_on_a_card_that_has_it_and_float32_elsewhere(two_cards: None) -> None:
    found = [place_of(ModelConfig(device=name)) for name in ("auto", "cuda:1", "cpu")]
    assert [(str(p.device), p.dtype) for p in found] == [
        ("cuda:0", torch.bfloat16), ("cuda:1", torch.float32), ("cpu", torch.float32),
    ]  # fmt: skip


def test_a_cpu_stays_with_float32_and_says_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpuinfo").write_text("flags\t\t: avx2 avx512_bf16 amx_bf16 fma\n")
    monkeypatch.setattr(place, "CPUINFO", tmp_path / "cpuinfo")
    found = place_of(ModelConfig(device="cpu"))
    assert found.dtype == torch.float32 and "avx512_bf16, amx_bf16" in found.why


def test_an_unknown_device_is_refused_by_its_setting() -> None:
    with pytest.raises(ConfigError, match=r"model\.device: there are auto, cpu, cuda, cuda:N and mps, not 'gpu'"):
        load(Config, (), ["model.device=gpu"])


def test_all_weights_in_four_bits_cannot_learn() -> None:
    with pytest.raises(ConfigError, match=r"set model\.quantization=none"):
        require_learnable(load(Config, (), ["clone.backbone=full", "model.quantization=4bit"]))


def test_a_stored_policy_computes_where_it_can(no_card: None, capsys: pytest.CaptureFixture[str]) -> None:
    stored = ModelConfig(device="cuda:3", dtype="bfloat16")
    assert (placed(stored).device, placed(stored).dtype) == ("auto", "bfloat16")
    assert placed(stored, ModelConfig(dtype="float32")).dtype == "float32"
    four = placed(ModelConfig(device="cuda", quantization="4bit"))
    assert four.quantization == "none" and "as the policy was trained" in capsys.readouterr().err
    with pytest.raises(ModelError, match="device=cuda"):
        placed(stored, ModelConfig(device="cuda"))


@pytest.mark.parametrize("attn", ["auto", "eager", "sdpa"])
def test_a_model_is_loaded_as_the_settings_say(tmp_path: Path, attn: str) -> None:
    tiny = make_tiny_backbone()
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    found = load_backbone(str(tmp_path), dtype="bfloat16", attn=attn, checkpointing="on", device="cpu")
    assert found.dtype == torch.bfloat16 and found.checkpointing == "on"
    assert found.model.config._attn_implementation == {"auto": "pamdp_grouped"}.get(attn, attn)
    assert found.numbers == ("bfloat16", "none") and tiny.numbers == ()

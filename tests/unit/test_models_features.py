"""Features are computed once, kept whole, and never taken from a torn file."""

from pathlib import Path

import torch

from pamdp.models.backbone import Backbone
from pamdp.models.features import FeatureStore
from pamdp.models.packed_branches import Branch, reply_features
from pamdp.types import Message


class Counting:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, torch.Tensor]:
        self.calls += 1
        return {"x": torch.tensor([1.5, -2.0])}


def test_a_key_is_computed_once_and_other_keys_are_others(tmp_path: Path) -> None:
    compute = Counting()
    store = FeatureStore(tmp_path)
    for _ in range(2):
        assert torch.equal(store.get(("a", 1), compute)["x"], torch.tensor([1.5, -2.0]))
    assert compute.calls == 1
    store.get(("a", "1"), compute)  # 1 and "1" are not the same
    store.get(("a1",), compute)
    assert compute.calls == 3
    assert FeatureStore(tmp_path).get(("a", 1), compute) and compute.calls == 3  # another process finds it


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    compute = Counting()
    store = FeatureStore(None)
    store.get(("a",), compute)
    store.get(("a",), compute)
    assert compute.calls == 2
    assert not list(tmp_path.iterdir())


def test_a_torn_file_is_computed_again(tmp_path: Path) -> None:
    compute = Counting()
    store = FeatureStore(tmp_path)
    store.get(("a",), compute)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:20])
    assert torch.equal(store.get(("a",), compute)["x"], torch.tensor([1.5, -2.0]))
    assert compute.calls == 2
    assert [p.suffix for p in tmp_path.rglob("*") if p.is_file()] == [".safetensors"]


def test_a_shallow_pass_reads_what_a_whole_one_reads(tiny_backbone: Backbone) -> None:
    backbone = tiny_backbone
    messages = (Message("user", "what is for dinner?"), Message("assistant", "soup"), Message("user", "hot or cold?"))
    encoded = backbone.chat.history(messages, "Be kind.")
    whole, shallow = (backbone.prefix(encoded, 1, shallow=flag) for flag in (False, True))
    assert torch.equal(whole.states, shallow.states)
    assert len(shallow.cache.layers) < len(whole.cache.layers)
    first = backbone.chat.history(messages[:1], "Be kind.")
    longer = backbone.prefix(encoded, 1, backbone.prefix(first, 1, shallow=True), shallow=True)
    torch.testing.assert_close(longer.states, whole.states)
    branches = [Branch(encoded.heads[1], backbone.chat.reply("cold, please"))]
    means = [reply_features(backbone, prefix, branches, 1)[0] for prefix in (whole, shallow)]
    assert torch.equal(*means)
    # The interrupted pass leaves no hook behind.
    assert torch.equal(backbone.prefix(encoded, 1).final, whole.final)

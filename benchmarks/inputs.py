"""What all contenders are given: the sample's dialogues and the embedded model, loaded in the same way."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.arena import Options
from pamdp.data import load_sample
from pamdp.models.backbone import Backbone
from pamdp.models.embedded import load_backbone
from pamdp.types import Dialogue


def dialogues(options: Options) -> list[Dialogue]:
    """The first turns of the first users' dialogues, test users before training users."""
    found = [*load_sample("test").dialogues, *load_sample("train").dialogues][: options.users]
    return [replace(dialogue, turns=dialogue.turns[: options.turns]) for dialogue in found]


def backbone() -> Backbone:
    """The embedded model, in fp32 on the CPU, nothing of it learning."""
    return load_backbone(device="cpu")


def plain_backbone() -> Backbone:
    """The same as transformers has it, for peers: without this project's attention."""
    found = load_backbone(device="cpu")
    found.model.set_attn_implementation("sdpa")
    return found

"""What all contenders are given: the sample's dialogues and the embedded model, loaded in the same way."""

from __future__ import annotations

import sys
from dataclasses import replace

from benchmarks.arena import Options
from pamdp.config import ModelConfig
from pamdp.data import load_sample
from pamdp.models.backbone import Backbone
from pamdp.models.embedded import load_backbone
from pamdp.models.place import place_of
from pamdp.types import Dialogue


def dialogues(options: Options) -> list[Dialogue]:
    """The first turns of the first users' dialogues, test users before training users."""
    found = [*load_sample("test").dialogues, *load_sample("train").dialogues][: options.users]
    return [replace(dialogue, turns=dialogue.turns[: options.turns]) for dialogue in found]


def backbone() -> Backbone:
    """The embedded model, in fp32 on the CPU, nothing of it learning."""
    return _loaded()


def plain_backbone() -> Backbone:
    """The same as transformers has it, for peers: without this project's attention."""
    found = _loaded()
    found.model.set_attn_implementation("sdpa")
    return found


def _loaded() -> Backbone:
    """The embedded model on the CPU; its type, and why, goes to the error stream."""
    print(place_of(ModelConfig(device="cpu")).why, file=sys.stderr)
    return load_backbone(device="cpu")

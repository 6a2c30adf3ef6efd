"""Persona dialogues and preference pairs from files: loaders, writers, splits, checks and the sample.

Owns every file format of the project. Knows nothing of models, prompts or rewards.
"""

from pamdp.data.bundled import load_plain, load_sample, load_sample_pairs, load_sample_rated
from pamdp.data.formats import Layout, pairs_of, register_layout
from pamdp.data.jsonl import write_dialogues, write_pairs
from pamdp.data.load import (
    Loaded,
    LoadedPairs,
    is_pool,
    load_dialogues,
    load_pairs,
    load_personas,
    load_pool,
    load_rated,
)
from pamdp.data.split import TrainTest, split_by_topic, split_by_user, spread
from pamdp.data.trl import write_trl, write_trl_pairs

__all__ = [
    "Layout",
    "Loaded",
    "LoadedPairs",
    "TrainTest",
    "is_pool",
    "load_dialogues",
    "load_pairs",
    "load_personas",
    "load_plain",
    "load_pool",
    "load_rated",
    "load_sample",
    "load_sample_pairs",
    "load_sample_rated",
    "pairs_of",
    "register_layout",
    "split_by_topic",
    "split_by_user",
    "spread",
    "write_dialogues",
    "write_pairs",
    "write_trl",
    "write_trl_pairs",
]  # fmt: skip

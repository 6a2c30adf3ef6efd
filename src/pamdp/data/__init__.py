"""Persona dialogues and preference pairs from files: loaders, writers, splits, checks and the sample.

Owns every file format of the project. Knows nothing of models, prompts or rewards.
"""

from pamdp.data.bundled import load_sample, load_sample_pairs
from pamdp.data.formats import pairs_of
from pamdp.data.jsonl import write_dialogues, write_pairs
from pamdp.data.load import is_pool, load_dialogues, load_pairs, load_personas
from pamdp.data.loaded import Loaded, LoadedPairs, LoadedTexts
from pamdp.data.pool import load_pool
from pamdp.data.preference import write_trl, write_trl_pairs
from pamdp.data.split import split_by_topic, split_by_user, spread

__all__ = [
    "Loaded",
    "LoadedPairs",
    "LoadedTexts",
    "is_pool",
    "load_dialogues",
    "load_pairs",
    "load_personas",
    "load_pool",
    "load_sample",
    "load_sample_pairs",
    "pairs_of",
    "split_by_topic",
    "split_by_user",
    "spread",
    "write_dialogues",
    "write_pairs",
    "write_trl",
    "write_trl_pairs",
]

"""Mappings within mappings, as TOML gives them, by the keys on the way.

Owns setting, merging, moving and finding of values. Knows nothing of settings.
"""

from __future__ import annotations

from collections.abc import Mapping

Key = tuple[str, ...]


def nested(key: Key, value: object) -> dict[str, object]:
    """VALUE alone, under KEY."""
    return {key[0]: nested(key[1:], value) if key[1:] else value}


def moved(values: dict[str, object], renamed: Mapping[str, str]) -> dict[str, object]:
    """VALUES with what has an old name under its new one, which wins where both are there."""
    for old, new in renamed.items():
        head, _, last = old.rpartition(".")
        part = values.get(head) if head else values
        if isinstance(part, dict) and last in part:
            rest = {name: value for name, value in part.items() if name != last}
            values = merge(nested(tuple(new.split(".")), part[last]), {**values, head: rest} if head else rest)
    return values


def merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """BASE with what OVER has, which wins."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def holds(values: object, key: Key) -> bool:
    """Whether VALUES set KEY, or what stands above it."""
    for part in key:
        if not isinstance(values, dict):
            return True
        if part not in values:
            return False
        values = values[part]
    return True

"""What a policy and a backbone read, caught on the way, for tests that no profile reaches a policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

import pamdp.models.policy as policy_module
import pamdp.models.prefill as clean_module
from pamdp.models.backbone import Backbone
from pamdp.models.chat import Encoded
from pamdp.models.policy import Policy
from pamdp.models.prefix import Prefix


class Read(NamedTuple):
    """Tokens of every history, in order: those that policies read or wrote after, and those of every clean pass."""

    policy: list[tuple[int, ...]]
    backbone: list[tuple[int, ...]]


def spy_on_reading(monkeypatch: pytest.MonkeyPatch) -> Read:
    """From now on the tokens that are read are kept."""
    read = Read([], [])
    prefix, prefixes, generate, run = Policy.prefix, Policy.prefixes, policy_module.generate, Backbone.prefix
    together = clean_module.grown

    def spy_prefix(self: Policy, *args: Any, **named: Any) -> Prefix:
        found = prefix(self, *args, **named)
        read.policy.append(found.encoded.ids)
        return found

    def spy_prefixes(self: Policy, *args: Any, **named: Any) -> list[Prefix]:
        found = prefixes(self, *args, **named)
        read.policy.extend(p.encoded.ids for p in found)
        return found

    def spy_generate(backbone: Backbone, prefixes: Sequence[Prefix], *args: Any, **named: Any) -> list[list[int]]:
        read.policy.extend(p.encoded.ids for p in prefixes)
        return generate(backbone, prefixes, *args, **named)

    def spy_run(self: Backbone, *args: Any, **named: Any) -> Prefix:
        found = run(self, *args, **named)
        read.backbone.append(found.encoded.ids)
        return found

    def spy_together(encoded: Encoded, *args: Any) -> Prefix:
        read.backbone.append(encoded.ids)
        return together(encoded, *args)

    monkeypatch.setattr(Policy, "prefix", spy_prefix)
    monkeypatch.setattr(Policy, "prefixes", spy_prefixes)
    monkeypatch.setattr(policy_module, "generate", spy_generate)
    monkeypatch.setattr(Backbone, "prefix", spy_run)
    monkeypatch.setattr(clean_module, "grown", spy_together)
    return read

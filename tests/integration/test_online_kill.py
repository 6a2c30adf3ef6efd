"""A process that is killed for good while it learns online: what comes of the resumed run, and what it cost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import torch

from pamdp.checkpoint import load_tensors
from pamdp.files import Json
from pamdp.runs import Run
from tests.tools.learning import ROUNDS, USERS, T, main

ROOT = Path(__file__).resolve().parents[2]
INTO = ROUNDS * USERS * T // 2 + 3
"""Calls of the judge before the kill: the second round is under way, some of its turns are whole."""


def _counted(run: Path) -> list[dict[str, Json]]:
    """The log without what calls cost, which a kill raises."""
    rows = Run(run).metrics()
    return [{k: v for k, v in row.items() if not k.endswith(("_calls", "_tokens"))} for row in rows]


def test_a_real_kill_costs_calls_and_no_turn_and_no_call_is_forgotten(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    main(whole, None)
    process = subprocess.run(
        [sys.executable, "-m", "tests.tools.learning", str(killed), str(INTO)],
        cwd=ROOT,
        capture_output=True,
        timeout=300,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()
    (journal,) = (killed / "journal").iterdir()
    before = json.loads((killed / "costs.json").read_text(encoding="utf-8"))
    assert journal.name == "00000001.jsonl" and journal.stat().st_size > 0
    main(killed, None)
    ours, theirs = (load_tensors(path / "trained" / "planner.safetensors") for path in (killed, whole))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    traces = [Run(path).traces() for path in (killed, whole)]
    ids = [(t["step"], t["dialogue"], t["turn"], t["sample"]) for t in traces[0]]
    assert traces[0] == traces[1] and len(set(ids)) == len(ids) == ROUNDS * USERS * T
    # One user has no answer in all its turns: what failed before the kill is in the log of the round as well.
    assert _counted(killed) == _counted(whole)
    assert any(float(str(row["user_failures"])) >= T for row in _counted(whole))
    spent = [json.loads((path / "costs.json").read_text(encoding="utf-8")) for path in (killed, whole)]
    for role, entry in spent[1].items():
        # The turns in flight were paid for twice; nothing that was paid is missing.
        assert entry["calls"] <= spent[0][role]["calls"] and before[role]["calls"] <= spent[0][role]["calls"], role

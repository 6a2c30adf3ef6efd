"""Markdown tables of results: `python -m benchmarks.table FILE.json ...` (files that --out has written)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

COLUMNS = (
    "", "peer", "seconds, ours / peer", "ratio (spread)", "of CPU time", "target", "peak MB, ours / peer",
    "of GEMM rate per CPU second, ours / peer",
)  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """One benchmark as Markdown: its circumstances, then a row for each duel; seconds are for one piece of work."""
    machine, options = result["machine"], result["options"]
    lines = [
        f"**{result['benchmark']}**: "
        + ", ".join(f"{key} {value}" for key, value in options.items())
        + f"; load {machine['load']} on {machine['cores']} cores, torch {machine['torch']}",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    for duel in result["duels"]:
        ours, peer, ratio = result["contenders"][duel["ours"]], result["contenders"][duel["peer"]], duel["ratio"]
        target = "" if duel["target"] is None else f"{duel['target']:g}"
        lines.append(
            f"| {duel['ours']} | {duel['peer']} | {ours['seconds_per_unit']:.3g} / {peer['seconds_per_unit']:.3g} "
            f"| {ratio['median']:.3g} ({ratio['min']:.3g} to {ratio['max']:.3g}) "
            f"| {duel['cpu_ratio']['median']:.3g} | {target} "
            f"| {ours['peak_mb']} / {peer['peak_mb']} "
            f"| {ours['gemm_share_of_cpu']:.2f} / {peer['gemm_share_of_cpu']:.2f} |"
        )
    rest = {
        key: value
        for key, value in result.items()
        if key not in ("benchmark", "machine", "options", "contenders", "duels", "nll")
    }
    return "\n".join([*lines, *(["", f"Also: `{json.dumps(rest, ensure_ascii=False)}`"] if rest else [])])


if __name__ == "__main__":
    print("\n\n".join(table(json.loads(Path(name).read_text(encoding="utf-8"))) for name in sys.argv[1:]))
